"""Accuracy against the trainable budget: one recipe filled into several budgets, over seeds, each a run of its own."""
