"""Trained runs, loaded to score texts."""
