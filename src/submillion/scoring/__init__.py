"""Trained runs, and what they say of texts."""
