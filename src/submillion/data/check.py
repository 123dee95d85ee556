"""The data doctor: empty rows, duplicates, contradicting labels, leaks, lengths, encoding damage.

One pass normalises every row of every split. Equal and near texts are found once, over all splits together, and
serve duplicates, label conflicts and leaks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import add

import numpy as np

from submillion.config.run import LongTexts
from submillion.data.findings import (
    KINDS,
    MAX_EXAMPLES,
    Finding,
    Kind,
    Leak,
    SplitReport,
    describe_lengths,
    find_damage,
    shorten,
)
from submillion.data.label_names import find_doubtful_names, find_similar_names
from submillion.data.legibility import Legibility, TokenCounts, measure_legibility
from submillion.data.near import Progress
from submillion.data.similar import SimilarTexts, find_similar_texts, fold_columns
from submillion.records import LabelSet, Record

CountTokens = Callable[[], TokenCounts]


@dataclass(frozen=True)
class DataReport:
    """The doctor's findings; every figure counts rows unless its name says otherwise.

    Attributes:
        num_records: Rows of all splits, without those that only served for comparison.
        num_exact_duplicates: Rows beyond the first of each group of equal texts, within their split.
        num_near_duplicates: Distinct texts beyond the first of each group linked by near pairs, within their split.
        num_label_conflicts: Texts that have more than one label, over all splits.
        leaks: Leaks by pair of splits and kind.
        splits: Findings in each split.
        label_conflicts: Places of the conflicts.
        similar_labels: Groups of class names that look alike, with their rows.
        doubtful_labels: Class names that read like a missing value or a header, with their rows.
    """

    num_records: int
    num_exact_duplicates: int
    num_near_duplicates: int
    num_label_conflicts: int
    leaks: tuple[Leak, ...]
    splits: Mapping[str, SplitReport]
    label_conflicts: Finding
    similar_labels: Sequence[Mapping[str, int]] = ()
    doubtful_labels: Mapping[str, int] = field(default_factory=dict)

    def leaking_ids(self, left: str) -> frozenset[str]:
        """Return the ids of the rows of split `left` that appear exactly or nearly in a later split."""
        return frozenset().union(*(leak.ids for leak in self.leaks if leak.left == left and leak.kind != "column"))

    def to_json(self) -> dict[str, object]:
        """Return the object of ``check --json``."""
        return {
            "num_records": self.num_records,
            "num_exact_duplicates": self.num_exact_duplicates,
            "num_near_duplicates": self.num_near_duplicates,
            "num_label_conflicts": self.num_label_conflicts,
            "num_empty": sum(split.empty.num_records for split in self.splits.values()),
            "num_too_long": sum(split.too_long.num_records for split in self.splits.values()),
            "num_encoding_damage": sum(f.num_records for split in self.splits.values() for f in split.damage.values()),
            "num_similar_labels": sum(map(len, self.similar_labels)),
            "num_doubtful_labels": len(self.doubtful_labels),
            "leaks": [leak.to_json() for leak in self.leaks],
            "splits": {name: split.to_json() for name, split in self.splits.items()},
            "label_conflicts": self.label_conflicts.to_json(),
            "legibility": None if (legibility := self._sum_legibility()) is None else legibility.to_json(),
            "similar_labels": [dict(group) for group in self.similar_labels],
            "doubtful_labels": dict(self.doubtful_labels),
        }

    def _sum_legibility(self) -> Legibility | None:
        parts = [split.legibility for split in self.splits.values() if split.legibility is not None]
        return reduce(add, parts) if parts else None


def check_records(
    splits: Mapping[str, Sequence[Record]],
    labels: LabelSet | None,
    *,
    count_tokens: Mapping[str, CountTokens] | None = None,
    max_length: int | None = None,
    long_texts: LongTexts = "head",
    column_names: tuple[str, ...] = (),
    against: Mapping[str, Sequence[Record]] | None = None,
    similar: SimilarTexts | None = None,
    label_column: str | None = None,
    on_progress: Progress | None = None,
) -> DataReport:
    """Examine the splits of a data set, and find the rows of one that appear in another.

    Leaks are looked for from each split to the later ones and to all of `against`, in the order given. A row counts
    once for each pair of splits, under the strongest kind: exact, then near, then column.

    Args:
        splits: Rows by split; the split ``all`` is called by the name of its file.
        labels: Class names, for the balance.
        count_tokens: Functions that return the token counts of each row, by split. They are called last, so that the
            counting can run beside the rest. Without them lengths are in words, and unknown tokens are not counted.
        max_length: Number of tokens that the model reads at once; longer rows are counted if `count_tokens` is given.
        long_texts: Part of longer rows that the model reads.
        column_names: Names of the text columns, for the places of column leaks.
        against: Rows that only serve for comparison, such as a test file from elsewhere.
        similar: Equal and near texts of all these sets, by name; found here if absent.
        label_column: Name of the label column, which is not a class.
        on_progress: Called with a description of each step.
    """
    # The sets for comparison may have the names of splits.
    others = {f"against {name}": rows for name, rows in (against or {}).items()}
    if similar is None:
        similar = find_similar_texts({**splits, **others}, on_progress)
    parts = [_Part(_name_split(name, rows), rows, similar, name) for name, rows in splits.items()]
    strangers = [
        _Part(_name_split(name, rows), rows, similar, f"against {name}") for name, rows in (against or {}).items()
    ]
    neighbours = _list_neighbours(similar)
    check = partial(_check_split, neighbours=neighbours, labels=labels, max_length=max_length, long_texts=long_texts)
    reports = {
        part.name: check(part, count_tokens=count_tokens[split] if count_tokens else None)
        for split, part in zip(splits, parts, strict=True)
    }
    leaks = _list_leaks(parts, strangers, neighbours, column_names)
    conflicts = _find_conflicts(parts, labels)
    names = _count_names(parts, labels)
    return DataReport(
        num_records=sum(len(part.records) for part in parts),
        num_exact_duplicates=sum(report.exact_duplicates.num_records for report in reports.values()),
        num_near_duplicates=sum(report.near_duplicates.num_records for report in reports.values()),
        num_label_conflicts=conflicts.num_records,
        leaks=leaks,
        splits=reports,
        label_conflicts=conflicts,
        similar_labels=find_similar_names(names),
        doubtful_labels=find_doubtful_names(names, label_column),
    )


def _list_leaks(
    parts: Sequence[_Part], strangers: Sequence[_Part], neighbours: _Neighbours, column_names: tuple[str, ...]
) -> tuple[Leak, ...]:
    return tuple(
        leak
        for position, left in enumerate(parts)
        for right in [*parts[position + 1 :], *strangers]
        for leak in _find_leaks(left, right, neighbours, column_names)
    )


def _count_names(parts: Sequence[_Part], labels: LabelSet | None) -> dict[str, int]:
    """Return the rows of each class that has some."""
    counts = Counter(record.label for part in parts for record in part.records if record.label is not None)
    return {label: counts[number] for number, label in enumerate(labels) if counts[number]} if labels else {}


class _Part:
    """One split with its texts as numbers.

    Attributes:
        name: Name of the split or of its file.
        records: Rows of the split.
        contents: Text that the model reads of each row.
        keys: Number of each row's normalised text among all distinct ones, shape (n,); -1 for empty rows.
        columns: Numbers of the normalised columns, shape (n, columns); -1 for those too short to mean anything.
        first_row: First row of each distinct text, in the order of the rows.
    """

    def __init__(self, name: str, records: Sequence[Record], similar: SimilarTexts, key: str) -> None:
        self.name = name
        self.records = records
        self.contents = [record.text for record in records]
        self.keys = similar.keys[key]
        self.columns = similar.columns[key]
        known, first = np.unique(self.keys, return_index=True)
        order = np.argsort(first)
        self.first_row: dict[int, int] = dict(zip(known[order].tolist(), first[order].tolist(), strict=True))
        self.first_row.pop(-1, None)

    def place(self, row: int) -> str:
        """Return the place of a row."""
        record = self.records[row]
        return record.source or f"{self.name}:{record.id}"


def _name_split(name: str, rows: Sequence[Record]) -> str:
    file = rows[0].source.rpartition(":")[0] if rows else ""
    return file if name == "all" and file else name


_Neighbours = Mapping[int, Sequence[int]]
"""Near texts of each distinct text, by their numbers, as far as `find_near_links` returns them."""


def _list_neighbours(similar: SimilarTexts) -> _Neighbours:
    neighbours: dict[int, list[int]] = defaultdict(list)
    for left, right in similar.links.tolist():
        neighbours[left].append(right)
        neighbours[right].append(left)
    return neighbours


def _check_split(
    part: _Part,
    neighbours: _Neighbours,
    labels: LabelSet | None,
    *,
    count_tokens: CountTokens | None,
    max_length: int | None,
    long_texts: LongTexts,
) -> SplitReport:
    counts = count_tokens() if count_tokens else None
    lengths = np.array([len(text.split()) for text in part.contents] if counts is None else counts.lengths, np.int64)
    too_long = lengths > max_length if count_tokens and max_length is not None else np.zeros(len(lengths), np.bool_)
    class_counts = Counter(record.label for record in part.records if record.label is not None)
    return SplitReport(
        num_records=len(part.records),
        class_counts=_name_counts(class_counts, labels) if class_counts else None,
        lengths=describe_lengths(lengths, "tokens" if count_tokens else "words"),
        empty=_list_rows(part, np.flatnonzero(part.keys < 0).tolist()),
        too_long=_list_rows(part, np.flatnonzero(too_long).tolist()),
        exact_duplicates=_find_exact_duplicates(part),
        near_duplicates=_find_near_duplicates(part, neighbours),
        damage={name: _list_rows(part, rows) for name, rows in find_damage(part.contents).items()},
        legibility=None
        if counts is None or max_length is None
        else measure_legibility(
            part.contents,
            counts,
            [record.label for record in part.records],
            labels.names if labels else (),
            max_length=max_length,
            long_texts=long_texts,
        ),
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
    is_repeat = part.keys >= 0
    is_repeat[list(part.first_row.values())] = False
    repeats = np.flatnonzero(is_repeat).tolist()
    pairs = ((row, part.first_row[int(part.keys[row])]) for row in repeats[:MAX_EXAMPLES])
    return Finding(len(repeats), tuple(_show_pair(part, first, part, row) for row, first in pairs))


def _find_near_duplicates(part: _Part, neighbours: _Neighbours) -> Finding:
    parents: dict[int, int] = {}

    def find_root(key: int) -> int:
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
    first_label: dict[int, int] = {}
    conflicts: set[int] = set()
    for part in parts:
        for record, key in zip(part.records, part.keys.tolist(), strict=True):
            if key >= 0 and record.label is not None and first_label.setdefault(key, record.label) != record.label:
                conflicts.add(key)
    # Texts are numbered in the order of their first rows.
    shown = sorted(conflicts)[:MAX_EXAMPLES]
    places: dict[int, dict[int, str]] = {key: {} for key in shown}
    texts: dict[int, str] = {}
    for part in parts:
        for row in np.flatnonzero(np.isin(part.keys, shown)).tolist():
            label, key = part.records[row].label, int(part.keys[row])
            if label is not None:
                places[key].setdefault(label, part.place(row))
                texts.setdefault(key, fold_columns(part.records[row].columns))
    examples = tuple(
        {"text": shorten(texts[key])}
        | {(labels.names[label] if labels else str(label)): place for label, place in sorted(places[key].items())}
        for key in shown
    )
    return Finding(len(conflicts), examples)


def _find_leaks(left: _Part, right: _Part, neighbours: _Neighbours, column_names: Sequence[str]) -> list[Leak]:
    found: dict[Kind, list[tuple[int, int, str]]] = {kind: [] for kind in KINDS}
    by_column = _index_columns(left, right)
    columns = left.columns.tolist() if by_column else []
    for row, key in enumerate(left.keys.tolist()):
        if key < 0:
            continue
        if key in right.first_row:
            found["exact"].append((row, right.first_row[key], ""))
            continue
        near = next((right.first_row[other] for other in neighbours.get(key, ()) if other in right.first_row), None)
        if near is not None:
            found["near"].append((row, near, ""))
            continue
        for position, column in enumerate(columns[row] if by_column else ()):
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


def _index_columns(left: _Part, right: _Part) -> dict[int, int]:
    """Return the first row of each long enough column of `right`; none if the only column is the whole text."""
    if left.columns.shape[1] <= 1 and right.columns.shape[1] <= 1:
        return {}
    index: dict[int, int] = {}
    for row, columns in enumerate(right.columns.tolist()):
        for column in columns:
            if column >= 0:
                index.setdefault(column, row)
    return index
