"""Measurements of submillion and other libraries side by side, and experiments on its settings."""
