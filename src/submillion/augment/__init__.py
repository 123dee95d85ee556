"""Synthetic training rows, written by a language model; a run only reads the rows and never imports this room."""
