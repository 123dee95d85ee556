"""Figures from logits, with their intervals; the baseline beside them."""
