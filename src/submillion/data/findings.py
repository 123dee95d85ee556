"""The data doctor's records: findings with examples, leaks, lengths, and signs of damaged encoding."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from submillion.data.legibility import Legibility
from submillion.storage.json_shapes import JsonObject, JsonView

Kind = Literal["exact", "near", "column"]
KINDS: tuple[Kind, ...] = ("exact", "near", "column")

MAX_EXAMPLES = 100
"""Most examples listed of each finding; its count is always complete."""

_SHOWN_CHARS = 160
_NUM_BINS = 30
_PERCENTILES = (50, 90, 95, 99)

# Windows-1252 shows these characters for the bytes 0x80-0xBF, which continue a character in UTF-8.
_CONTINUATION = "".join(
    sorted(
        {bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xC0)}
        | {chr(c) for c in range(0x80, 0xA0)} - {""}
    )
)

DAMAGE: Mapping[str, re.Pattern[str]] = {
    "replacement_character": re.compile("\ufffd"),
    "mojibake": re.compile(f"[ÂÃ][{_CONTINUATION}]|[à-ï][{_CONTINUATION}]{{2}}|[ð-ô][{_CONTINUATION}]{{3}}"),
    "entity": re.compile(
        r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,31});|(?:^| )(?:#\d{2,5}|quot|amp|lt|gt|nbsp);"
    ),
    "control_character": re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]"),
}
"""Signs of damage by name: a decoder's replacement characters, UTF-8 read as Windows-1252 (``Ã©``), entities with or
without their ampersand, control characters."""


@dataclass(frozen=True)
class Finding:
    """A count and its first examples.

    Attributes:
        num_records: Number of all occurrences.
        examples: First occurrences, at most `MAX_EXAMPLES`, each with places and text.
    """

    num_records: int
    examples: tuple[Mapping[str, str], ...]

    def to_json(self) -> JsonObject:
        """Return count and examples."""
        return {"num_records": self.num_records, "examples": [dict(example) for example in self.examples]}


@dataclass(frozen=True)
class Leak:
    """Rows of one split that appear in another.

    Attributes:
        left: Split whose rows are counted.
        right: Split in which they appear.
        kind: ``exact`` (equal after normalisation), ``near`` (Jaccard similarity of word 3-shingles of at least 0.8)
            or ``column`` (one text column of at least five words is equal).
        num_records: Number of such rows of `left`.
        ids: Ids of these rows.
        examples: First pairs, with both places.
    """

    left: str
    right: str
    kind: Kind
    num_records: int
    ids: frozenset[str]
    examples: tuple[Mapping[str, str], ...]

    def to_json(self) -> JsonObject:
        """Return counts and examples, without ids."""
        return {
            "left": self.left,
            "right": self.right,
            "kind": self.kind,
            "num_records": self.num_records,
            "examples": [dict(example) for example in self.examples],
        }


@dataclass(frozen=True)
class SplitReport:
    """Findings inside one split.

    Attributes:
        num_records: Number of rows.
        class_counts: Rows by class name; None without labels.
        lengths: Distribution from `describe_lengths`.
        empty: Rows without any text.
        too_long: Rows of more tokens than the model reads.
        exact_duplicates: Rows beyond the first of a group of equal texts.
        near_duplicates: Distinct texts beyond the first of a group linked by near pairs.
        damage: Damaged rows by sign of damage.
        legibility: Share of the texts that reaches the model; None if no tokens were counted.
    """

    num_records: int
    class_counts: Mapping[str, int] | None
    lengths: JsonView
    empty: Finding
    too_long: Finding
    exact_duplicates: Finding
    near_duplicates: Finding
    damage: Mapping[str, Finding]
    legibility: Legibility | None = None

    def to_json(self) -> JsonObject:
        """Return everything as JSON values."""
        return {
            "num_records": self.num_records,
            "class_counts": None if self.class_counts is None else dict(self.class_counts),
            "lengths": dict(self.lengths),
            "empty": self.empty.to_json(),
            "too_long": self.too_long.to_json(),
            "exact_duplicates": self.exact_duplicates.to_json(),
            "near_duplicates": self.near_duplicates.to_json(),
            "damage": {name: finding.to_json() for name, finding in self.damage.items()},
            "legibility": None if self.legibility is None else self.legibility.to_json(),
        }


def find_damage(texts: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of the texts that show each sign of `DAMAGE`, by its name."""
    found: dict[str, list[int]] = {name: [] for name in DAMAGE}
    for position, text in enumerate(texts):
        # These tests settle most texts in a tenth of the time that the patterns take.
        names = ["entity"] if ";" in text else []
        if not text.isascii():
            names += ["replacement_character", "mojibake"]
        if not text.isprintable():
            names.append("control_character")
        for name in names:
            if DAMAGE[name].search(text):
                found[name].append(position)
    return found


def describe_lengths(lengths: NDArray[np.int64], unit: Literal["tokens", "words"]) -> JsonObject:
    """Return the distribution of text lengths.

    Args:
        lengths: Length of each row, shape (n,).
        unit: Unit of the lengths.

    Returns:
        ``unit, min, mean, max, percentiles {p50, p90, p95, p99}`` and ``histogram {edges, counts}``, where bin i holds
        the lengths from edge i up to, but not including, edge i + 1. Without rows there is only the unit.
    """
    if not len(lengths):
        return {"unit": unit}
    # Edges are whole numbers at equal distances, and the last one is beyond the longest text.
    width = max(1, -(-int(lengths.max() + 1) // _NUM_BINS))
    edges = np.arange(0, int(lengths.max()) + width + 1, width)
    counts = np.bincount(lengths // width, minlength=len(edges) - 1)
    return {
        "unit": unit,
        "min": int(lengths.min()),
        "mean": float(lengths.mean()),
        "max": int(lengths.max()),
        "percentiles": {f"p{p}": float(np.percentile(lengths, p)) for p in _PERCENTILES},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def shorten(text: str) -> str:
    """Return a text cut for display."""
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."


_KIND_WORDS = {"exact": "equal texts", "near": "nearly equal texts", "column": "one column equal"}
_SPLIT_WORDS = {
    "empty": "rows without any text",
    "too_long": "rows longer than the model reads",
    "exact_duplicates": "exact duplicates",
    "near_duplicates": "near duplicates",
}


def describe_findings(findings: JsonView) -> list[str]:
    """Return a line for every finding that is not zero, with its first place.

    Args:
        findings: The object of `DataReport.to_json`.
    """
    lines = []
    for key, words in _SPLIT_WORDS.items():
        lines += _describe_split_finding(words, {name: split[key] for name, split in findings["splits"].items()})
    for sign in DAMAGE:
        found = {name: split["damage"].get(sign) for name, split in findings["splits"].items()}
        lines += _describe_split_finding(f"rows with the damage {sign.replace('_', ' ')!r}", found)
    if conflicts := findings["num_label_conflicts"]:
        first = _first(findings["label_conflicts"])
        places = ", ".join(f"{name} at {place}" for name, place in first.items() if name != "text")
        lines.append(f"check: {conflicts:,} texts with more than one label, first {places}")
    for leak in findings["leaks"]:
        first = _first(leak)
        shown = f", first {first['left']} ~ {first['right']}" if first else ""
        kind = _KIND_WORDS.get(leak["kind"], leak["kind"])
        lines.append(f"check: {leak['num_records']:,} rows of {leak['left']} appear in {leak['right']} ({kind}){shown}")
    return lines + describe_labels(findings)


def describe_labels(findings: JsonView) -> list[str]:
    """Return a line for every group of class names that look alike, and one for names that look wrong."""
    alike = [f"check: class names that look alike: {_list(group)}" for group in findings.get("similar_labels", ())]
    doubtful = findings.get("doubtful_labels")
    return alike + (
        [f"check: class names that read like a missing value or a header: {_list(doubtful)}"] if doubtful else []
    )


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} ({count:,} rows)" for name, count in counts.items())


def _first(finding: JsonView) -> Mapping[str, str]:
    examples: Sequence[Mapping[str, str]] = finding.get("examples") or ({},)
    return examples[0]


def _describe_split_finding(words: str, found: Mapping[str, JsonView | None]) -> list[str]:
    counts = {name: finding["num_records"] for name, finding in found.items() if finding and finding["num_records"]}
    if not counts:
        return []
    first = _first(found[next(iter(counts))] or {})
    place = first.get("place") or " ~ ".join(first[side] for side in ("left", "right") if side in first)
    spread = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return [f"check: {sum(counts.values()):,} {words} ({spread})" + (f", first {place}" if place else "")]
