"""A length limit computed from the lengths of the training rows: mean + 2 standard deviations, or a percentile."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion.config.run import LongTexts

MIN_LENGTH = 8
"""Smallest limit that `model.max_length` allows."""
_NUM_DEVIATIONS = 2


@dataclass(frozen=True)
class ChosenLength:
    """A limit, the rule that gave it, and the rows that it cuts.

    Attributes:
        rule: Rule, ``auto`` or a percentile such as ``p99``.
        max_length: Most tokens kept of a text, special tokens included.
        window: Limit of the base model, or None if it has none.
        mean: Mean number of tokens of a training row, special tokens included.
        deviation: Standard deviation of the same.
        longest: Number of tokens of the longest training row.
        num_records: Number of training rows measured.
        num_cut: Number of these rows that are longer than the limit.
        long_texts: Part of these rows that is read.
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
        lengths: Number of tokens of each training row, uncut, special tokens included; shape (n,), n >= 1.
        rule: ``auto`` for mean + 2 standard deviations, rounded up, or ``pK`` for the smallest length that at least K
            percent of the rows do not exceed.
        window: Number of positions of the base model, or None if it has no limit.
        long_texts: Part of longer rows that is read.
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
