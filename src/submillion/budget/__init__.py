"""Counting and planning of trainable parameters before any weight is loaded."""
