"""A length limit that follows from the lengths of the training rows: mean + 2 standard deviations, or a percentile."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion.config.run import LongTexts

MIN_LENGTH = 8
"""Fewest tokens kept of a text, as `model.max_length` has it."""
_NUM_DEVIATIONS = 2


@dataclass(frozen=True)
class ChosenLength:
    """A limit, the rule that it follows from, and what it cuts.

    Attributes:
        rule: ``auto`` or a percentile such as ``p99``.
        max_length: Tokens kept of a text, special tokens included.
        window: The base model's own limit, or None if it has none.
        mean: Tokens of a training row, special tokens included.
        deviation: Standard deviation of the same.
        longest: Tokens of the longest training row.
        num_records: Training rows measured.
        num_cut: Of them longer than the limit.
        long_texts: What is read of those.
    """

    rule: str
    max_length: int
    window: int | None
    mean: float
    deviation: float
    longest: int
    num_records: int
    num_cut: int
    long_texts: LongTexts = "head"

    def to_json(self) -> dict[str, object]:
        """Return the attributes as JSON types."""
        return asdict(self)

    def describe(self) -> str:
        """Return one sentence for the user."""
        meaning = (
            f"mean {self.mean:.1f} + {_NUM_DEVIATIONS} x {self.deviation:.1f}"
            if self.rule == "auto"
            else f"percentile {self.rule.removeprefix('p')}"
        )
        bounded = f", bounded by the base's {self.window}" if self.max_length == self.window else ""
        share = self.num_cut / self.num_records
        return (
            f"model.max_length={self.rule}: {self.max_length} tokens ({meaning} of {self.num_records:,} training rows"
            f"{bounded}); {self.num_cut:,} of them ({share:.1%}) are longer and are "
            f"{'read in chunks' if self.long_texts == 'chunks' else 'cut'}"
        )


def choose_length(
    lengths: NDArray[np.integer[Any]], rule: str, *, window: int | None, long_texts: LongTexts = "head"
) -> ChosenLength:
    """Return the limit that a rule gives for rows of these lengths.

    Args:
        lengths: Tokens of each training row, uncut, special tokens included; shape (n,), n >= 1.
        rule: ``auto`` for mean + 2 standard deviations, rounded up; ``pK`` for the smallest length that at least K
            percent of the rows do not exceed.
        window: Positions of the base model, or None if it has no limit.
        long_texts: What is read of longer rows.
    """
    if rule == "auto":
        limit = math.ceil(lengths.mean() + _NUM_DEVIATIONS * lengths.std())
    else:
        limit = int(np.percentile(lengths, int(rule.removeprefix("p")), method="inverted_cdf"))
    limit = max(MIN_LENGTH, limit if window is None else min(limit, window))
    return ChosenLength(
        rule=rule,
        max_length=limit,
        window=window,
        mean=float(lengths.mean()),
        deviation=float(lengths.std()),
        longest=int(lengths.max()),
        num_records=len(lengths),
        num_cut=int((lengths > limit).sum()),
        long_texts=long_texts,
    )
