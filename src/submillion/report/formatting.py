"""Numbers as text, for pages, Markdown, plots and terminals: percentages, intervals, p values, durations, counts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


def percent(share: float, digits: int = 2) -> str:
    """Return 0.9355 as ``93.55 %``."""
    return f"{100 * share:.{digits}f}{NARROW}%"


def percent_range(interval: Sequence[float], digits: int = 2) -> str:
    """Return an interval of shares as ``92.97 to 94.08 %``."""
    return f"{100 * interval[0]:.{digits}f} to {100 * interval[1]:.{digits}f}{NARROW}%"


def points(difference: float, digits: int = 2) -> str:
    """Return a difference of shares in percentage points with its sign."""
    return f"{100 * difference:+.{digits}f}".replace("-", MINUS)


def points_range(interval: Sequence[float], digits: int = 2) -> str:
    """Return an interval of differences of shares as ``+0.12 to +1.30``."""
    return f"{points(interval[0], digits)} to {points(interval[1], digits)}"


def p_value(p: float) -> str:
    """Return ``p = 0.031``, or ``p < 0.001`` below that."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def count(number: float) -> str:
    """Return a whole number with thousands separated."""
    return f"{number:,.0f}"


def number(value: float) -> str:
    """Return a number with four significant digits, whole numbers whole."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace("-", MINUS)
    return f"{value:.4g}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Return seconds as ``41 s``, ``27 min 5 s`` or ``2 h 3 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}{NARROW}s" if seconds < 10 else f"{whole}{NARROW}s"
    if whole < 3600:
        return f"{whole // 60}{NARROW}min {whole % 60}{NARROW}s"
    return f"{whole // 3600}{NARROW}h {whole % 3600 // 60}{NARROW}min"


def shorten(text: str, length: int) -> str:
    """Return one line of printable text of at most `length` characters, an ellipsis where it was cut.

    Control and other unprintable characters, which neither XML nor a font can show, become a visible mark; so do
    those that turn the direction of the text around them.
    """
    line = " ".join(text.split())
    if len(line) > length:
        line = line[: length - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_unshowable(c) else c for c in line)


def shorten_names(names: Sequence[str], length: int) -> list[str]:
    """Return names of at most `length` characters that differ where the names do, as far as their ends tell.

    Names that would be cut to the same text keep their ends and lose their middle.
    """
    short = [shorten(name, length) for name in names]
    shared = {name for name, number in Counter(short).items() if number > 1}
    half = (length - 1) // 2
    result = []
    for name, cut in zip(names, short, strict=True):
        line = shorten(name, len(name) + 1)
        is_unclear = cut in shared and len(line) > length
        middle_cut = f"{line[: length - 1 - half].rstrip()}\N{HORIZONTAL ELLIPSIS}{line[-half:].lstrip()}"
        result.append(middle_cut if is_unclear else cut)
    return result


def _is_unshowable(character: str) -> bool:
    turns = unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return turns or unicodedata.category(character) in ("Cc", "Cs", "Cn")


def show_percent(value: float) -> str:
    """Return a share for a terminal, whose font need not have a narrow space: ``93.55 %``."""
    return percent(value).replace(NARROW, " ")


def show_interval(interval: Sequence[float] | None) -> str:
    """Return an interval of shares for a terminal as ``93.01 .. 94.12 %``; a dash where there is none."""
    return "-" if interval is None else f"{100 * interval[0]:.2f} .. {show_percent(interval[1])}"


def show_points(difference: float, interval: Sequence[float]) -> str:
    """Return a difference of shares in percentage points for a terminal, with its interval."""
    return f"{points(difference)} ({points(interval[0])} .. {points(interval[1])})".replace(MINUS, "-")


def show_p(p: float) -> str:
    """Return a p value for a terminal with two significant digits."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def setting(value: object) -> str:
    """Return a setting as YAML would show it on one line."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(item) for item in value) or "\N{EN DASH}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {setting(item)}" for key, item in value.items()) or "\N{EN DASH}"
    return f"{value:g}" if isinstance(value, float) else str(value)
