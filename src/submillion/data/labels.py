"""Turn raw label values of whole files into label ids; the meaning of numbers among them is decided once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from submillion.data.clean import compose_text
from submillion.errors import DataError
from submillion.records import LabelSet, Record

SHOWN_PROBLEMS = 10
SHOWN_CLASSES = 12

NumbersChoice = Literal["names", "ids", "ids-from-1"]
"""The meanings that numbers can have: names of classes, or label ids that count from 0 or from 1."""

# Longer numbers stay text in every format: all formats and platforms agree about 18 digits.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.0+)?")
_LARGEST = 10**18
# Above this not every whole number is a float, so a float may not be the number that was meant.
_LARGEST_FLOAT = 2.0**53
# Soft hyphens, zero-width spaces and marks of direction are invisible, so they cannot distinguish classes.
_INVISIBLE = dict.fromkeys(
    [0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
# Longer labels are normalised each time: four thousand of them would fill the memory.
_REMEMBERED_CHARS = 200
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class Numbering:
    """The meaning of whole numbers in a label column, which training decides and every use of the run keeps.

    Attributes:
        numbers: ``names`` of classes, or ``ids``, which count the classes.
        first_id: Number of the first class if they are ids, 0 or 1.
        is_asked: Whether a flag or a setting decided it, which overrides the format of a file.
    """

    numbers: Literal["names", "ids"] = "ids"
    first_id: Literal[0, 1] = 0
    is_asked: bool = False

    @classmethod
    def parse(cls, choice: NumbersChoice | None) -> Numbering | None:
        """Return the numbering that a flag or setting asks for; None if it is absent."""
        if choice is None:
            return None
        return cls("names" if choice == "names" else "ids", 1 if choice == "ids-from-1" else 0, is_asked=True)

    @property
    def choice(self) -> NumbersChoice:
        """The value of the flag that asks for it."""
        if self.numbers == "names":
            return "names"
        return "ids-from-1" if self.first_id else "ids"


@dataclass(frozen=True)
class RawLabels:
    """The label column of one split or file, before its values have a meaning.

    Attributes:
        values: Label of each record: an int, a class name, or None if empty.
        records: Rows, in order.
        one_based: Whether the file's format counts its classes from 1, as the official files of AG News do.
        names: Class names that come with the file (classes.txt, hub metadata), in label order.
        folder: Folder of the file, for messages.
        is_encoded: Whether the file declares its numbers as positions in `names`, as columns of `datasets` do.
    """

    values: Sequence[int | str | None]
    records: Sequence[Record]
    one_based: bool
    names: tuple[str, ...] | None
    folder: str
    is_encoded: bool = False


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, and their spelling in its label column.

    Attributes:
        labels: Class names in label order.
        numbering: Meaning of numbers in a label column.
        spelled: Whether the rows hold class names or numbers.
        is_official: Whether the rows are numbered by the official format of AG News.
        notes: Guesses, one sentence each.
    """

    labels: LabelSet
    numbering: Numbering
    spelled: Literal["names", "numbers"]
    is_official: bool
    notes: tuple[str, ...] = ()


def normalise_label(value: object) -> int | str | None:
    """Return an integer for a whole number in any spelling, None for an empty value, and else the name.

    ``1``, ``"1"``, ``1.0`` and ``"1.0"`` are the number 1, while ``"01"`` and numbers of more than 18 digits are names.
    Names are brought into Unicode's composed form, without invisible characters and with single spaces.
    """
    if type(value) is str:
        # Most labels of most files are one digit.
        return int(value) if len(value) == 1 and value in "0123456789" else _recall_text(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        # Python refuses to write a very long number in decimal digits, so it is written in hexadecimal ones.
        return value if abs(value) < _LARGEST else str(value) if value.bit_length() < 10_000 else hex(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_FLOAT:
        return int(value)
    return _normalise_text(str(value))


def _normalise_text(value: str) -> int | str | None:
    text = compose_text(value).translate(_INVISIBLE)
    text = " ".join(text.split()).strip(_JOINERS)
    return int(text.partition(".")[0]) if _NUMBER.fullmatch(text) else text or None


_remember_text = lru_cache(maxsize=4096)(_normalise_text)


def _recall_text(value: str) -> int | str | None:
    return _remember_text(value) if len(value) <= _REMEMBERED_CHARS else _normalise_text(value)


def index_names(labels: LabelSet) -> dict[int | str | None, int]:
    """Return the position of every class by its name from `normalise_label`.

    Raises:
        DataError: Two names are the same label, such as ``1`` and ``1.0``.
    """
    index: dict[int | str | None, int] = {}
    for position, name in enumerate(labels):
        label = normalise_label(name)
        if label in index:
            first = labels.names[index[label]]
            raise DataError(
                f"the classes {first!r} and {name!r} are the same label, {label!r}",
                hint="Spellings of one number are the same label, and so are names that only look alike; "
                "give each class another name.",
            )
        index[label] = position
    return index


def decide_classes(raw: RawLabels, *, labels: LabelSet | None = None, numbering: Numbering | None = None) -> Classes:
    """Decide the classes, their order and the meaning of numbers from the training split.

    Names that are given or come with the file take precedence. Without them, integers ``0..C-1`` (``1..C`` in the
    official format) are ids and are named by their digits. All other values are class names, in sorted order.

    Args:
        raw: Label column.
        labels: Classes, if they are known beforehand.
        numbering: Meaning of numbers, if it is asked for or was decided before.

    Raises:
        DataError: Ids have a gap, there are fewer than two classes, or numbers fit two readings.
    """
    values = {value for value in raw.values if value is not None}
    _refuse_unwritable(values, raw)
    numbers = sorted(value for value in values if isinstance(value, int))
    spelled: Literal["names", "numbers"] = "numbers" if numbers and len(numbers) == len(values) else "names"
    if labels is None and raw.names is not None:
        labels = LabelSet(raw.names)
    notes: list[str] = []
    if labels is None:
        labels, numbering, note = _choose_labels(values, numbers, raw, numbering)
    else:
        note = ""
        if numbering is None:
            numbering, note = _fit_numbers(numbers, labels, raw)
    if note:
        notes.append(note)
    is_official = raw.one_based and numbering.numbers == "ids" and numbering.first_id == 1 and not raw.is_encoded
    return Classes(labels, numbering, spelled, is_official, tuple(notes))


def _choose_labels(
    values: set[int | str], numbers: list[int], raw: RawLabels, asked: Numbering | None
) -> tuple[LabelSet, Numbering, str]:
    if len(values) == 1:
        raise DataError(
            f"every row has the same label, {next(iter(values))!r}",
            where=f"{raw.folder}{raw.records[0].source.rpartition(':')[0]}",
            hint="A classifier needs at least two classes; check the label column.",
        )
    if asked is not None and asked.numbers == "ids" and len(numbers) < len(values):
        # Some rows name the classes, so the numbers in the others are ids.
        return LabelSet(tuple(sorted(value for value in values if isinstance(value, str)))), asked, ""
    if len(numbers) < len(values):
        return LabelSet(tuple(sorted(map(str, values)))), asked or Numbering("names"), ""
    names = LabelSet(tuple(map(str, numbers)))
    first = asked.first_id if asked is not None else 1 if raw.one_based else 0
    is_counted = numbers == list(range(first, first + len(numbers)))
    if asked is not None:
        if asked.numbers == "ids" and not is_counted:
            raise _explain_gap(numbers, first, raw)
        return names, asked, ""
    if is_counted:
        return names, Numbering("ids", 1 if first else 0), ""
    shown = ", ".join(map(str, numbers[:SHOWN_CLASSES])) + (", ..." if len(numbers) > SHOWN_CLASSES else "")
    reason = "leave a gap, so they" if numbers[0] == first else f"do not count from {first}, so they"
    return names, Numbering("names"), f"the labels {shown} {reason} are taken as names of classes (data.numbers: names)"


def _explain_gap(numbers: list[int], first: int, raw: RawLabels) -> DataError:
    expected = range(first, first + len(numbers))
    odd = next(value for value in numbers if value not in expected)
    row = next(record for record, value in zip(raw.records, raw.values, strict=True) if value == odd)
    return DataError(
        f"the label {odd} lies outside {first}..{first + len(numbers) - 1}: the {len(numbers)} labels that occur "
        f"leave a gap ({', '.join(map(str, numbers[:SHOWN_CLASSES]))})",
        where=f"{raw.folder}{row.source}",
        hint="Correct the row; or take these numbers as names of classes: --numbers names.",
    )


def _fit_numbers(numbers: Sequence[int], labels: LabelSet, raw: RawLabels) -> tuple[Numbering, str]:
    """Return the meaning of numbers if the classes are known, and a note if that is a guess."""
    count = len(labels)
    index = index_names(labels)
    if raw.is_encoded or (raw.one_based and _fits(numbers, 1, count)):
        return Numbering("ids", 0 if raw.is_encoded else 1), ""
    labelled = [number for number in numbers if number != -1 or -1 in index]
    has_numbers = any(isinstance(name, int) for name in index)
    is_counted = list(labels) == [str(number) for number in range(count)]
    if labelled or has_numbers:
        if not is_counted and all(number in index for number in labelled):
            return Numbering("names"), ""
        if not is_counted and _fits(labelled, 1, count):
            return _count_from_one(labelled, labels, raw)
    return Numbering("ids", 0), ""


def _count_from_one(numbers: Sequence[int], labels: LabelSet, raw: RawLabels) -> tuple[Numbering, str]:
    """Return the numbering from 1 if the largest number requires it.

    Raises:
        DataError: The numbers fit from 0 too.
    """
    if numbers[-1] == len(labels):
        return Numbering("ids", 1), f"the labels are taken as ids that count from 1: {describe_ids(labels, 1)}"
    lowest = numbers[0]
    raise DataError(
        f"the labels {', '.join(map(str, numbers[:SHOWN_CLASSES]))} fit two readings: counted from 0, {lowest} is "
        f"{labels.names[lowest]!r}; counted from 1, it is {labels.names[lowest - 1]!r}",
        where=f"{raw.folder}{raw.records[0].source.rpartition(':')[0]}",
        hint="Choose one of them: --numbers ids or --numbers ids-from-1 (data.numbers in a recipe).",
    )


def _fits(numbers: Sequence[int], first: int, count: int) -> bool:
    return all(first <= number < first + count for number in numbers)


def drop_unlabelled(raw: RawLabels, labels: LabelSet | None) -> tuple[RawLabels, int]:
    """Return a label column without the rows whose label is empty or -1, and the number of these rows.

    Args:
        raw: Label column.
        labels: Classes, if they are known beforehand; ``-1`` may be one of them.
    """
    is_class = labels is not None and "-1" in labels.names
    kept = [value is not None and (value != -1 or is_class) for value in raw.values]
    values = [value for value, keeps in zip(raw.values, kept, strict=True) if keeps]
    records = [record for record, keeps in zip(raw.records, kept, strict=True) if keeps]
    return replace(raw, values=values, records=records), len(kept) - len(values)


def apply_labels(raw: RawLabels, labels: LabelSet, numbering: Numbering | None = None) -> list[Record]:
    """Return the records with label ids; without them if the whole column is empty or -1.

    Args:
        raw: Label column.
        labels: Classes.
        numbering: Meaning of numbers; decided from this column alone if None.

    Raises:
        DataError: Some values are not classes; the error has the places of the first ones and the count of all.
    """
    distinct = {value for value in raw.values if value is not None}
    _refuse_unwritable(distinct, raw)
    index = index_names(labels)
    if distinct <= {-1} and -1 not in index:
        return list(raw.records)
    if numbering is None:
        numbering, _ = _fit_numbers(sorted(value for value in distinct if isinstance(value, int)), labels, raw)
    ids = map_values(raw, index, numbering)
    problems = [
        f"{record.source}: {'the label is empty' if value is None else f'unknown label {value!r}'}"
        for record, value in zip(raw.records, raw.values, strict=True)
        if value not in ids
    ]
    if problems:
        more = f"\n... and {len(problems) - SHOWN_PROBLEMS:,} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise DataError(
            f"{len(problems):,} of {len(raw.records):,} rows have no valid label\n"
            + "\n".join(f"{raw.folder}{problem}" for problem in problems[:SHOWN_PROBLEMS])
            + more,
            hint=_explain_numbers(labels, numbering, raw),
        )
    return [
        Record(record.id, record.columns, ids[value], record.source)
        for record, value in zip(raw.records, raw.values, strict=True)
        if value is not None
    ]


def map_values(
    raw: RawLabels, index: Mapping[int | str | None, int], numbering: Numbering
) -> dict[int | str | None, int]:
    """Return the label id of every valid value."""
    words: dict[int | str | None, int] = {
        name: position for name, position in index.items() if not isinstance(name, int)
    }
    first = _find_first(raw, numbering)
    if raw.names is not None and not numbering.is_asked:
        # The file names the meaning of its numbers, so they are matched to the wanted classes by name.
        own = [normalise_label(name) for name in raw.names]
        are_names = numbering.numbers == "names" and len(words) < len(index) and not raw.is_encoded
        if not are_names and any(name in index for name in own):
            return {**words, **{number: index[name] for number, name in enumerate(own, first) if name in index}}
    if numbering.numbers == "names":
        return dict(index)
    return {**words, **{position + first: position for position in range(len(index))}}


def _find_first(raw: RawLabels, numbering: Numbering) -> int:
    if raw.is_encoded:
        return 0
    return 1 if raw.one_based and not numbering.is_asked else numbering.first_id


def _explain_numbers(labels: LabelSet, numbering: Numbering, raw: RawLabels) -> str:
    """Return the labels that are valid under the current reading, and the meaning of numbers under another one."""
    names = f"the class names: {', '.join(labels)[:400]}"
    if numbering.numbers == "names":
        return (
            f"Valid labels are {names}. Numbers are names here, since these classes were read so. Taken as ids, "
            f"{describe_ids(labels, 0)}: choose that with --numbers ids, or --numbers ids-from-1."
        )
    first = _find_first(raw, numbering)
    other = 1 - first
    return (
        f"Valid labels are the ids {first}..{first + len(labels) - 1} ({describe_ids(labels, first)}), or {names}. "
        f"Counted from {other}, {describe_ids(labels, other)}: "
        f"choose that with --numbers {'ids-from-1' if other else 'ids'}."
    )


def describe_ids(labels: LabelSet, first: int) -> str:
    """Return the meaning of label ids, as ``0 is World, 1 is Sports``."""
    shown = [f"{number} is {name}" for number, name in enumerate(labels.names[:SHOWN_CLASSES], first)]
    return ", ".join(shown) + (", ..." if len(labels) > SHOWN_CLASSES else "")


def _refuse_unwritable(values: set[int | str], raw: RawLabels) -> None:
    """Refuse half characters, which no file can hold, before the class name is written anywhere."""
    for value in values:
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            row = next(record for record, other in zip(raw.records, raw.values, strict=True) if other == value)
            raise DataError(
                f"the label {value!r} holds half a character (a surrogate)",
                where=f"{raw.folder}{row.source}",
                hint="The file was written from damaged text; correct the label.",
            )
