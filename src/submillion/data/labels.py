"""Turn raw label values of whole files into label ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from submillion.errors import DataError
from submillion.records import LabelSet, Record

SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class RawLabels:
    """The label column of one split or file, before its values have a meaning.

    Attributes:
        values: One an entry of `records`: an int, a class name, or None where empty.
        records: The rows, in order.
        one_based: Whether integers count from 1, as in the official files.
        names: Class names that come with the file (classes.txt, hub metadata), in label order.
        folder: Where the file stands, for messages.
    """

    values: Sequence[int | str | None]
    records: Sequence[Record]
    one_based: bool
    names: tuple[str, ...] | None
    folder: str


def normalise_label(value: object) -> int | str | None:
    """Return an integer for whole numbers and their digits, None for empty values, else the name."""
    if type(value) is str and len(value) == 1 and value in "0123456789":  # most labels of most files
        return int(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int):
        return value
    text = str(value).strip()
    digits = text.removeprefix("-")
    return (
        int(text)
        if digits.isascii() and digits.isdigit() and len(digits) < 10 and text == str(int(text))
        else text or None
    )


def find_label_set(raw: RawLabels) -> LabelSet:
    """Decide the classes and their order from the split that a model learns from.

    Names that come with the file win. Integers ``0..C-1`` (``1..C`` in the official format) are ids and are named by
    their digits; other values are class names, in sorted order.

    Raises:
        DataError: Integers with a gap, fewer than two classes.
    """
    if raw.names is not None:
        return LabelSet(raw.names)
    values = {value for value in raw.values if value is not None}
    if len(values) == 1:
        raise DataError(
            f"every row has the same label, {next(iter(values))!r}",
            where=f"{raw.folder}{raw.records[0].source.rpartition(':')[0]}",
            hint="A classifier needs at least two classes; check the label column.",
        )
    integers = sorted(value for value in values if isinstance(value, int))
    if len(integers) < len(values):
        return LabelSet(tuple(sorted(str(value) for value in values)))
    first = 1 if raw.one_based else 0
    if not integers or (integers[0] != first and not raw.one_based):
        return LabelSet(tuple(str(value) for value in integers))
    expected = list(range(first, first + len(integers)))
    if integers != expected:
        odd = next(value for value in integers if value not in expected)
        row = next(record for record, value in zip(raw.records, raw.values, strict=True) if value == odd)
        raise DataError(
            f"the label {odd} lies outside {first}..{first + len(integers) - 1}: the {len(integers)} labels that occur "
            f"leave a gap ({', '.join(map(str, integers[:12]))})",
            where=f"{raw.folder}{row.source}",
            hint="Correct the row; or, if these numbers are names of classes, list them in data.labels.",
        )
    return LabelSet(tuple(str(value) for value in expected))


def apply_labels(raw: RawLabels, labels: LabelSet) -> list[Record]:
    """Return the records with label ids; where the whole column is empty or -1, without.

    One decision holds for a whole file: all its values are names of classes, or all are ids.

    Raises:
        DataError: Values that are no class, with the places of the first ones and the count of all.
    """
    distinct = {value for value in raw.values if value is not None}
    if distinct <= {-1} and "-1" not in labels.names:
        return list(raw.records)
    ids = _map_values(distinct, raw, labels)
    problems = [
        f"{record.source}: {'the label is empty' if value is None else f'unknown label {value!r}'}"
        for record, value in zip(raw.records, raw.values, strict=True)
        if value not in ids
    ]
    if problems:
        first = 1 if raw.one_based else 0
        more = f"\n... and {len(problems) - SHOWN_PROBLEMS:,} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise DataError(
            f"{len(problems):,} of {len(raw.records):,} rows have no valid label\n"
            + "\n".join(f"{raw.folder}{problem}" for problem in problems[:SHOWN_PROBLEMS])
            + more,
            hint=f"Valid are {first}..{first + len(labels) - 1}, or the class names: {', '.join(labels)[:400]}.",
        )
    return [
        Record(record.id, record.columns, ids[value], record.source)
        for record, value in zip(raw.records, raw.values, strict=True)
        if value is not None
    ]


def _map_values(values: set[int | str], raw: RawLabels, labels: LabelSet) -> dict[int | str | None, int]:
    first = 1 if raw.one_based else 0
    named = raw.names if raw.names is not None and not _is_unnamed(labels) else None
    if named is not None:
        # The file says what its numbers mean; they are matched to the wanted classes by those names.
        by_name: dict[int | str | None, int] = {name: position for position, name in enumerate(labels)}
        ids: dict[int | str | None, int] = {
            position + first: by_name[name] for position, name in enumerate(named) if name in by_name
        }
        return {**by_name, **ids}
    by_digits: dict[int | str | None, int] = {name: position for position, name in enumerate(labels)}
    if not raw.one_based and all(str(value) in by_digits for value in values):
        return {value: by_digits[str(value)] for value in values}
    positions: dict[int | str | None, int] = {position + first: position for position in range(len(labels))}
    return {**by_digits, **positions}


def _is_unnamed(labels: LabelSet) -> bool:
    digits = [str(position) for position in range(len(labels) + 1)]
    return list(labels) in (digits[:-1], digits[1:])
