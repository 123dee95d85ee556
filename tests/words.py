"""Words for made-up texts of tests."""

from __future__ import annotations

WORDS = (
    *("soup", "bread", "oven", "tax", "bank", "loan", "goal", "match"),
    *("medal", "rain", "town", "bridge", "lunch", "near", "twice", "old"),
)
