"""Measurements of submillion beside other libraries, and experiments on its settings."""
