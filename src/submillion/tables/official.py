"""AG News' own format: files without a header, whose rows have a class counted from 1, a title and a description."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

OFFICIAL_NAMES = ("class_index", "title", "description")
"""Columns of the official AG News files, which have no header; `class_index` counts from 1."""

_CLASS = re.compile("0*[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"\s*[-+]?[0-9]*[.,]?[0-9]+(?:[eE][-+]?[0-9]+)?\s*")


def is_official_row(row: Sequence[str]) -> bool:
    """Whether a first row fits the official format without header: class 1..C, title, description."""
    return len(row) == len(OFFICIAL_NAMES) and _CLASS.fullmatch(row[0]) is not None


def find_doubt(rows: Sequence[Sequence[str]]) -> str | None:
    """Return the reason why rows are not in the official format, or None.

    Args:
        rows: First rows of a file, whose fields are all text.
    """
    classes, titles, descriptions = zip(*(row for row in rows if len(row) == len(OFFICIAL_NAMES)), strict=True)
    num_rows = len(classes)
    if num_rows >= 5 and len(set(classes)) > num_rows / 2:
        return "its first column has a different number in nearly every row, like row numbers"
    for ordinal, values in (("second", titles), ("third", descriptions)):
        if all(_NUMBER.fullmatch(value) for value in values):
            return f"its {ordinal} column holds numbers"
    lengths = [median(map(len, values)) for values in (titles, descriptions)]
    num_words = [median(len(value.split()) for value in values) for values in (titles, descriptions)]
    is_short = num_words[1] <= 3 and lengths[0] > 2 * lengths[1] and num_words[0] > num_words[1]
    repeats = num_rows >= 4 and len(set(descriptions)) <= num_rows / 2 and num_words[1] <= 3
    if is_short or repeats:
        shown = ", ".join(repr(value[:40]) for value in list(dict.fromkeys(descriptions))[:3])
        return f"its third column seems to hold labels ({shown})"
    return None
