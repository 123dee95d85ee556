"""Which metrics are better when they are lower."""

from __future__ import annotations

LOWER_IS_BETTER = frozenset({"loss", "brier_raw", "ece_raw"})
"""Metrics for which lower is better; for all others, higher is better."""


def is_better(metric: str, value: float, best: float | None) -> bool:
    """Return whether a figure beats the best so far; the earliest wins ties."""
    if best is None:
        return True
    return value < best if metric in LOWER_IS_BETTER else value > best
