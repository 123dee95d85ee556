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
