"""Accuracy against the trainable budget: one recipe fills several budgets, and each budget and seed is one run."""
