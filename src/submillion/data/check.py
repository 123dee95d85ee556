"""The data doctor: empty rows, duplicates, contradicting labels, leaks, lengths, encoding damage.

One pass normalises every row of every split; equal and near texts are found once, over all splits together, and
serve duplicates, label conflicts and leaks alike.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from submillion.data.findings import (
    DAMAGE,
    KINDS,
    MAX_EXAMPLES,
    Finding,
    Kind,
    Leak,
    LeakCounts,
    SplitReport,
    describe_lengths,
    shorten,
)
from submillion.data.near import Progress, find_near_pairs, normalise_text
from submillion.records import LabelSet, Record

__all__ = ["DataReport", "LeakCounts", "check_records", "drop_leaks"]

MIN_COLUMN_WORDS = 5
"""Shorter columns repeat without meaning anything ("Business briefs")."""


@dataclass(frozen=True)
class DataReport:
    """What the doctor found; every figure counts rows unless it says otherwise.

    Attributes:
        num_records: Rows of all splits, without those they were only compared against.
        num_exact_duplicates: Rows beyond the first of each group of equal texts, within their split.
        num_near_duplicates: Distinct texts beyond the first of each group linked by near pairs, within their split.
        num_label_conflicts: Texts that stand under more than one label, over all splits.
        leaks: Per pair of splits and kind, where there are any.
        splits: What was found in each split.
        label_conflicts: Places of the conflicts.
    """

    num_records: int
    num_exact_duplicates: int
    num_near_duplicates: int
    num_label_conflicts: int
    leaks: tuple[Leak, ...]
    splits: Mapping[str, SplitReport]
    label_conflicts: Finding

    def leaking_ids(self, left: str) -> frozenset[str]:
        """Return the ids of the rows of split `left` that stand exactly or nearly in a split after it."""
        return frozenset().union(*(leak.ids for leak in self.leaks if leak.left == left and leak.kind != "column"))

    def count_leaks(self, left: str) -> LeakCounts:
        """Return what dropping the rows of `leaking_ids` removes, as `drop_leaks` counts it."""
        return _count_leaks([leak for leak in self.leaks if leak.left == left])

    def to_json(self) -> dict[str, Any]:
        """Return the object of ``check --json``."""
        return {
            "num_records": self.num_records,
            "num_exact_duplicates": self.num_exact_duplicates,
            "num_near_duplicates": self.num_near_duplicates,
            "num_label_conflicts": self.num_label_conflicts,
            "num_empty": sum(split.empty.num_records for split in self.splits.values()),
            "num_too_long": sum(split.too_long.num_records for split in self.splits.values()),
            "num_encoding_damage": sum(f.num_records for split in self.splits.values() for f in split.damage.values()),
            "leaks": [leak.to_json() for leak in self.leaks],
            "splits": {name: split.to_json() for name, split in self.splits.items()},
            "label_conflicts": self.label_conflicts.to_json(),
        }


def check_records(
    splits: Mapping[str, Sequence[Record]],
    labels: LabelSet | None,
    *,
    count_tokens: Callable[[Sequence[str]], Sequence[int]] | None = None,
    max_length: int | None = None,
    column_names: tuple[str, ...] = (),
    against: Mapping[str, Sequence[Record]] | None = None,
    on_progress: Progress | None = None,
) -> DataReport:
    """Examine the splits of a data set, and whether rows of one stand in another.

    Leaks are looked for from each split to those after it and to all of `against`, in the order given; a row counts
    once for each pair of splits, under the strongest kind: exact, then near, then column.

    Args:
        splits: Rows by split; the split ``all`` goes by the name of its file.
        labels: Class names, for the balance.
        count_tokens: Number of tokens of each text; lengths are in words without it.
        max_length: Tokens that the model reads; longer rows are counted where `count_tokens` is given.
        column_names: Names of the text columns, for the places of column leaks.
        against: Rows that are only compared with, such as a test file from elsewhere.
        on_progress: Told what is being done.
    """
    parts = [_Part(_name_split(name, rows), rows) for name, rows in splits.items()]
    others = [_Part(_name_split(name, rows), rows) for name, rows in (against or {}).items()]
    neighbours = _find_neighbours([*parts, *others], on_progress)
    reports = {
        part.name: _check_split(part, neighbours, labels, count_tokens=count_tokens, max_length=max_length)
        for part in parts
    }
    leaks = [
        leak
        for position, left in enumerate(parts)
        for right in [*parts[position + 1 :], *others]
        for leak in _find_leaks(left, right, neighbours, column_names)
    ]
    conflicts = _find_conflicts(parts, labels)
    return DataReport(
        num_records=sum(len(part.records) for part in parts),
        num_exact_duplicates=sum(report.exact_duplicates.num_records for report in reports.values()),
        num_near_duplicates=sum(report.near_duplicates.num_records for report in reports.values()),
        num_label_conflicts=conflicts.num_records,
        leaks=tuple(leaks),
        splits=reports,
        label_conflicts=conflicts,
    )


def drop_leaks(
    records: Sequence[Record], against: Mapping[str, Sequence[Record]], *, on_progress: Progress | None = None
) -> tuple[list[Record], LeakCounts]:
    """Drop the records that stand in other rows, exactly or nearly.

    Where `check_records` has run on the same rows, `DataReport.leaking_ids` gives the same answer for nothing.

    Args:
        records: Rows to drop from.
        against: Rows by split, such as validation and test.
        on_progress: Told what is being done.

    Returns:
        The rows kept, in order, and the counts.
    """
    left = _Part("train", records)
    others = [_Part(name, rows) for name, rows in against.items()]
    neighbours = _find_neighbours([left, *others], on_progress)
    leaks = [leak for right in others for leak in _find_leaks(left, right, neighbours, ()) if leak.kind != "column"]
    leaking = frozenset().union(*(leak.ids for leak in leaks))
    return [record for record in records if record.id not in leaking], _count_leaks(leaks)


class _Part:
    """One split, normalised: the columns of each row, and its key in the comparison (None for empty rows)."""

    def __init__(self, name: str, records: Sequence[Record]) -> None:
        self.name = name
        self.records = records
        self.columns = [tuple(normalise_text(column) for column in record.columns) for record in records]
        self.keys = [_make_key(record, columns) for record, columns in zip(records, self.columns, strict=True)]
        self.first_row: dict[str, int] = {}
        for row, key in enumerate(self.keys):
            if key is not None:
                self.first_row.setdefault(key, row)

    def place(self, row: int) -> str:
        """Return where a row stands."""
        record = self.records[row]
        return record.source or f"{self.name}:{record.id}"


def _make_key(record: Record, columns: Iterable[str]) -> str | None:
    # A text of nothing but punctuation is no empty row: it is compared as it stands.
    return " ".join(column for column in columns if column) or record.text.strip() or None


def _name_split(name: str, rows: Sequence[Record]) -> str:
    file = rows[0].source.rpartition(":")[0] if rows else ""
    return file if name == "all" and file else name


_Neighbours = Mapping[str, Sequence[str]]
"""Which distinct texts are near to which, by their keys."""


def _find_neighbours(parts: Sequence[_Part], on_progress: Progress | None) -> _Neighbours:
    keys = list(dict.fromkeys(key for part in parts for key in part.first_row))
    neighbours: dict[str, list[str]] = defaultdict(list)
    for left, right in find_near_pairs(keys, on_progress).tolist():
        neighbours[keys[left]].append(keys[right])
        neighbours[keys[right]].append(keys[left])
    return neighbours


def _check_split(
    part: _Part,
    neighbours: _Neighbours,
    labels: LabelSet | None,
    *,
    count_tokens: Callable[[Sequence[str]], Sequence[int]] | None,
    max_length: int | None,
) -> SplitReport:
    rows = range(len(part.records))
    contents = [record.text for record in part.records]
    lengths = list(count_tokens(contents)) if count_tokens else [len(text.split()) for text in contents]
    too_long = [row for row in rows if count_tokens and max_length is not None and lengths[row] > max_length]
    class_counts = Counter(record.label for record in part.records if record.label is not None)
    return SplitReport(
        num_records=len(part.records),
        class_counts=_name_counts(class_counts, labels) if class_counts else None,
        lengths=describe_lengths(lengths, "tokens" if count_tokens else "words"),
        empty=_list_rows(part, [row for row in rows if part.keys[row] is None]),
        too_long=_list_rows(part, too_long),
        exact_duplicates=_find_exact_duplicates(part),
        near_duplicates=_find_near_duplicates(part, neighbours),
        damage={
            name: _list_rows(part, [row for row in rows if pattern.search(contents[row])])
            for name, pattern in DAMAGE.items()
        },
    )


def _name_counts(counts: Mapping[int, int], labels: LabelSet | None) -> dict[str, int]:
    if labels is None:
        return {str(label): counts[label] for label in sorted(counts)}
    return {name: counts.get(label, 0) for label, name in enumerate(labels)}


def _list_rows(part: _Part, rows: Sequence[int]) -> Finding:
    examples = tuple({"place": part.place(row), "text": shorten(part.records[row].text)} for row in rows[:MAX_EXAMPLES])
    return Finding(len(rows), examples)


def _show_pair(left: _Part, left_row: int, right: _Part, right_row: int) -> dict[str, str]:
    return {
        "left": left.place(left_row),
        "right": right.place(right_row),
        "text": shorten(left.records[left_row].text),
        "right_text": shorten(right.records[right_row].text),
    }


def _find_exact_duplicates(part: _Part) -> Finding:
    repeats = [row for row, key in enumerate(part.keys) if key is not None and part.first_row[key] != row]
    pairs = ((row, part.first_row[part.keys[row] or ""]) for row in repeats[:MAX_EXAMPLES])
    return Finding(len(repeats), tuple(_show_pair(part, first, part, row) for row, first in pairs))


def _find_near_duplicates(part: _Part, neighbours: _Neighbours) -> Finding:
    parents: dict[str, str] = {}

    def find_root(key: str) -> str:
        while parents.get(key, key) != key:
            parents[key] = parents.get(parents[key], parents[key])
            key = parents[key]
        return key

    links: list[tuple[int, int]] = []
    for key, row in part.first_row.items():
        for other in neighbours.get(key, ()):
            other_row = part.first_row.get(other, row)
            if other_row < row and (root := find_root(key)) != (other_root := find_root(other)):
                parents[root] = other_root
                links.append((other_row, row))
    return Finding(len(links), tuple(_show_pair(part, first, part, row) for first, row in links[:MAX_EXAMPLES]))


def _find_conflicts(parts: Sequence[_Part], labels: LabelSet | None) -> Finding:
    seen: dict[str, dict[int, str]] = defaultdict(dict)
    for part in parts:
        for row, (record, key) in enumerate(zip(part.records, part.keys, strict=True)):
            if key is not None and record.label is not None:
                seen[key].setdefault(record.label, part.place(row))
    conflicts = {key: places for key, places in seen.items() if len(places) > 1}
    examples = tuple(
        {"text": shorten(key)}
        | {(labels.names[label] if labels else str(label)): place for label, place in sorted(places.items())}
        for key, places in list(conflicts.items())[:MAX_EXAMPLES]
    )
    return Finding(len(conflicts), examples)


def _find_leaks(left: _Part, right: _Part, neighbours: _Neighbours, column_names: Sequence[str]) -> list[Leak]:
    found: dict[Kind, list[tuple[int, int, str]]] = {kind: [] for kind in KINDS}
    by_column = _index_columns(left, right)
    for row, key in enumerate(left.keys):
        if key is None:
            continue
        if key in right.first_row:
            found["exact"].append((row, right.first_row[key], ""))
            continue
        near = next((right.first_row[other] for other in neighbours.get(key, ()) if other in right.first_row), None)
        if near is not None:
            found["near"].append((row, near, ""))
            continue
        for position, column in enumerate(left.columns[row]):
            if column in by_column:
                name = column_names[position] if position < len(column_names) else f"column {position + 1}"
                found["column"].append((row, by_column[column], name))
                break
    return [
        Leak(
            left.name,
            right.name,
            kind,
            len(rows),
            frozenset(left.records[row].id for row, _, _ in rows),
            tuple(
                _show_pair(left, row, right, other) | ({"column": name} if name else {})
                for row, other, name in rows[:MAX_EXAMPLES]
            ),
        )
        for kind, rows in found.items()
        if rows
    ]


def _index_columns(left: _Part, right: _Part) -> dict[str, int]:
    """Return the first row of each long enough column of `right`; nothing where a column is the whole text anyway."""
    if all(len(columns) <= 1 for part in (left, right) for columns in part.columns):
        return {}
    index: dict[str, int] = {}
    for row, columns in enumerate(right.columns):
        for column in columns:
            if column.count(" ") >= MIN_COLUMN_WORDS - 1:
                index.setdefault(column, row)
    return index


def _count_leaks(leaks: Sequence[Leak]) -> LeakCounts:
    by_split: dict[str, dict[str, int]] = {}
    for leak in leaks:
        if leak.kind != "column":
            by_split.setdefault(leak.right, {})[leak.kind] = leak.num_records
    dropped = frozenset().union(*(leak.ids for leak in leaks if leak.kind != "column"))
    return LeakCounts(len(dropped), by_split)
