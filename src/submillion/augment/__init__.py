"""Synthetic training rows: how they are written down, and the ways to make them."""
