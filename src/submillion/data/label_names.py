"""Class names that look alike to a reader, and names that stand for a missing value or repeat the header."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping

MISSING_WORDS = frozenset(
    {"nan", "null", "none", "nil", "na", "n/a", "#n/a", "#value!", "unknown", "undefined", "-", "?"}
)
"""Folded names that programs write where there is no label."""

# What is easily added or left out: quotes, blanks, and the marks between words. A mark before a digit, and a sign, tell
# 1.5 from 15, 1-2 from 12 and -1 from 1; plus and number signs tell C from C++ and C#.
_LOOSE = re.compile(
    r"""["'`\u00b4\u2018-\u201f\u00ab\u00bb\u2039\u203a]|[\s_./,;:\-\u2010-\u2015]+(?!\d)|(?<=\D)[\s_]+"""
)


class Respelled:
    """Counts labels that are not spelled as they are read: composed, without what nobody sees, with single blanks."""

    def __init__(self) -> None:
        self._count = 0
        self._sample = ""

    def compare(self, value: object, label: int | str | None) -> None:
        """Look at a label of the data and at how it is read; what is empty or a number is none of these."""
        if isinstance(value, str) and isinstance(label, str) and value != label:
            self._count += 1
            self._sample = self._sample or f"{value!a} as {label!r}"

    def describe(self) -> str:
        """Return how many there are, with one of them, as a sentence without its end; empty where there are none."""
        if not self._count:
            return ""
        labels = f"{self._count:,} labels are" if self._count > 1 else "1 label is"
        return f"{labels} not spelled as read, such as {self._sample}"


def fold_name(name: str) -> str:
    """Return what is left of a name without case, quotes, blanks and marks; the name itself where that is nothing."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return _LOOSE.sub("", text) or text.strip()


def find_similar_names(counts: Mapping[str, int]) -> list[dict[str, int]]:
    """Return the groups of names that differ only in case, quotes, blanks or marks.

    Args:
        counts: Rows by class name.

    Returns:
        For each group, its names and their rows, in the order given.
    """
    groups: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name, count in counts.items():
        groups[fold_name(name)][name] = count
    return [group for group in groups.values() if len(group) > 1]


def find_doubtful_names(counts: Mapping[str, int], column: str | None = None) -> dict[str, int]:
    """Return the names that read like a missing value, or like the header of their own column.

    Args:
        counts: Rows by class name.
        column: Name of the label column, where it is known.
    """
    header = None if column is None else column.strip().casefold()
    return {
        name: count
        for name, count in counts.items()
        if name.strip().casefold() in MISSING_WORDS or name.strip().casefold() == header
    }
