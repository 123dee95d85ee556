"""The reading of a run's data, by which every later use of the run reads other files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from submillion.config.run import DataConfig
from submillion.data.labels import Numbering, normalise_label
from submillion.errors import RunError
from submillion.records import LabelSet


@dataclass(frozen=True)
class Reading:
    """The columns that were read, as the file spells them, and the kind of its labels.

    Attributes:
        text: Text columns, in reading order.
        label: Label column; None if there was none.
        id: Id column; ``none`` if row numbers were asked for, None if there was no such column.
        numbering: Meaning of numbers in a label column.
        spelled: Whether the labels were class names or numbers.
        is_official: Whether they were numbered by the official format of AG News, which counts from 1.
    """

    text: tuple[str, ...]
    label: str | None
    id: str | None
    numbering: Numbering
    spelled: Literal["names", "numbers"] = "names"
    is_official: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the value of ``reading`` in data.json."""
        return {
            "text": list(self.text),
            "label": self.label,
            "id": self.id,
            "numbers": self.numbering.numbers,
            "first_id": self.numbering.first_id,
            "spelled": self.spelled,
            "official": self.is_official,
        }

    @classmethod
    def from_json(cls, values: Any, *, where: str) -> Reading:
        """Return the reading that `to_json` wrote.

        Raises:
            RunError: The values are damaged.
        """
        if not isinstance(values, Mapping) or (problem := _find_problem(values)):
            found = problem if isinstance(values, Mapping) else type(values).__name__
            raise RunError(f"is damaged: its `reading` holds {found}", where=where, hint="Restore the file.")
        return cls(
            text=tuple(values["text"]),
            label=values["label"],
            id=values["id"],
            numbering=Numbering(values["numbers"], values["first_id"]),
            spelled=values["spelled"],
            is_official=values["official"],
        )


def recover_reading(
    labels: LabelSet, *, text: tuple[str, ...] = (), label: str | None = None, row_id: str | None = None
) -> Reading:
    """Return the reading of an older run that did not keep it, as far as it follows from its classes and columns.

    Classes called ``0..C-1`` are ids, and other numbers are names. With other names, numbers could be ids of them; they
    were read as ids that count from 0, and still are.

    Args:
        labels: Classes of the run.
        text: Text columns that were read, if known; otherwise they are found by name.
        label: Label column, likewise.
        row_id: Id column, likewise.
    """
    is_counted = list(labels) == [str(number) for number in range(len(labels))]
    has_numbers = any(isinstance(normalise_label(name), int) for name in labels)
    return Reading(
        text=text,
        label=label,
        id=row_id,
        numbering=Numbering("names" if has_numbers and not is_counted else "ids"),
        spelled="numbers" if has_numbers else "names",
    )


def read_labels(values: Mapping[str, object], num_labels: int, *, where: str) -> LabelSet:
    """Return the classes that a file of a run or an export names.

    Args:
        values: Content of the file.
        num_labels: Number of classes that the run was planned for.
        where: Path of the file, for messages.

    Raises:
        RunError: The file names no classes, one twice, or another number of them.
    """
    names = values.get("labels")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RunError(f"is damaged: its classes are {names!r:.80}", where=where, hint="Restore the file.")
    if len(names) != num_labels or len(set(names)) != len(names):
        raise RunError(
            f"is damaged: it names {len(set(names))} different classes, and the run was planned for {num_labels}",
            where=where,
            hint="Restore the file.",
        )
    return LabelSet(tuple(names))


def read_temperature(values: Mapping[str, object], *, where: str) -> float:
    """Return the temperature, above 0, from a file of a run or an export.

    Args:
        values: Content of the file.
        where: Path of the file, for messages.

    Raises:
        RunError: The file has no temperature, or one that is not a finite number above 0.
    """
    found = values.get("temperature")
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 < found < math.inf:
        raise RunError(
            f"is damaged: its temperature is {found!r:.80}, which must be a number above 0",
            where=where,
            hint="Restore the file.",
        )
    return float(found)


def read_reading(
    values: Mapping[str, object], labels: LabelSet, settings: DataConfig, *, where: str
) -> tuple[Reading, tuple[str, ...]]:
    """Return the reading from a file of a run or an export, and a note if the file is too old to have it.

    Args:
        values: Content of the file.
        labels: Classes of the run.
        settings: Settings of the run, which may name columns.
        where: Path of the file, for messages.

    Raises:
        RunError: The file is damaged.
    """
    if "reading" in values:
        return Reading.from_json(values["reading"], where=where), ()
    names = values.get("column_names")
    text = settings.text or (tuple(map(str, names)) if isinstance(names, list) else ())
    taken = f"the text columns {', '.join(text)}" if text else "columns that are found by name"
    note = f"{where} is from an earlier version, which did not record how the data was read: the run reads {taken}"
    return recover_reading(labels, text=text, label=settings.label, row_id=settings.id), (note,)


def _find_problem(values: Mapping[str, object]) -> str:
    """Return the first fault of the values of a reading; empty if there is none."""
    text = values.get("text")
    if not isinstance(text, list) or not text or not all(isinstance(name, str) for name in text):
        return f"text {text!r:.80}"
    for key in ("label", "id"):
        if key not in values or not isinstance(values[key], str | None):
            return f"{key} {values.get(key)!r:.80}"
    allowed: dict[str, tuple[object, ...]] = {
        "numbers": ("names", "ids"),
        "first_id": (0, 1),
        "spelled": ("names", "numbers"),
        "official": (True, False),
    }
    for key, choices in allowed.items():
        if not any(type(values.get(key)) is type(choice) and values[key] == choice for choice in choices):
            return f"{key} {values.get(key)!r:.80}"
    return ""
