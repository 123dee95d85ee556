"""Untrusted regular expressions: a bound for the time that matching may take, found before any is matched.

Files from elsewhere contain patterns: an adapter's name modules, a tokenizer's divide texts. In the worst case,
backtracking tries every way in which a pattern can match a text, so the number of ways is bounded before a pattern is
used.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

_MAX_CHARACTERS = 4096
_PROPERTY = re.compile(r"\\[pP](\{\^?\w+\}|\w)")


class SlowPatternError(ValueError):
    """A pattern is not valid or may take too long; the text says which and why."""


def bound_ways(pattern: str, length: int) -> float:
    r"""Return an upper bound of the ways to match a text that backtracking may try.

    Args:
        pattern: Regular expression, which may have classes such as ``\p{L}``.
        length: Number of characters of the longest text that it will be matched with.

    Raises:
        SlowPatternError: It is not valid, or it repeats a part that has repeats or alternatives, so that the ways grow
            exponentially.
    """
    if len(pattern) > _MAX_CHARACTERS:
        raise SlowPatternError(f"it has {len(pattern):,} characters, more than {_MAX_CHARACTERS:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            tree = re._parser.parse(_PROPERTY.sub(r"\\w", pattern))  # type: ignore[attr-defined]  # has no public name
    except (re.error, OverflowError, RecursionError) as error:
        raise SlowPatternError(f"it is not valid: {error}") from None
    return _count_ways(tree, length)


def explain_slow(patterns: Mapping[str, str], length: int, max_ways: float) -> str:
    """Return the reason why patterns are not used, as a sentence without a full stop; empty if they may be used.

    Args:
        patterns: Regular expressions as they are matched, by their names in the file.
        length: Number of characters of the longest text that they will be matched with.
        max_ways: Limit for the ways of all patterns together.
    """
    ways = 0.0
    for name, pattern in patterns.items():
        try:
            ways += bound_ways(pattern, length)
        except SlowPatternError as error:
            return f"the pattern {name!r:.120} is not used: {error}"
    return f"its patterns can match in {ways:.0e} ways, more than {max_ways:.0e}" if ways > max_ways else ""


def _count_ways(nodes: Any, length: int) -> float:
    """Return the bound for a sequence: the product of its parts' bounds, where unbounded repeats share the text."""
    ways, num_open = 1.0, 0
    for operation, value in nodes:
        match str(operation):
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, body = value
                if most <= 1:
                    ways *= 1 + _count_ways(body, length)
                elif not _is_plain(body):
                    raise SlowPatternError("it repeats a part that itself has repeats or alternatives")
                elif most > least:
                    num_open += 1
            case "BRANCH":
                ways *= sum(_count_ways(branch, length) for branch in value[1])
            case "SUBPATTERN" | "ASSERT" | "ASSERT_NOT":
                ways *= _count_ways(value[-1], length)
            case "ATOMIC_GROUP":
                ways *= _count_ways(value, length)
            case "GROUPREF" | "GROUPREF_EXISTS":
                raise SlowPatternError("it refers back to a group")
    return ways * math.comb(length + num_open, num_open)


def _is_plain(nodes: Any) -> bool:
    """Return whether a sequence matches only single characters, in one way."""
    return all(
        _is_plain(value[-1]) if str(operation) == "SUBPATTERN" else str(operation) in _SINGLE
        for operation, value in nodes
    )


_SINGLE = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN", "RANGE", "CATEGORY"})
