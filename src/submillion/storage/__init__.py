"""Whole writes, checked reads, locks and private folders."""
