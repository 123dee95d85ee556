"""How the data of a run was read: what every later use of the run reads other files by."""

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
    """The columns that were read, as they are spelled in the file, and how its labels were.

    Attributes:
        text: The text columns, in reading order.
        label: The label column; None where there was none.
        id: The id column; ``none`` where row numbers were asked for, None where there was no such column.
        numbering: What numbers in a label column mean.
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
        """Return what data.json holds under ``reading``."""
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
        """Return what `to_json` has given.

        Raises:
            RunError: It is damaged.
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
    """Return how the data of a run was read that does not say it, as far as it follows from its classes and columns.

    Classes called ``0..C-1`` are ids, other numbers are names. Other names leave open whether numbers were ids of
    them; they were read as ids that count from 0, and still are.

    Args:
        labels: The run's classes.
        text: The text columns that were read, as far as they are known; the others are found by name.
        label: The label column, likewise.
        row_id: The id column, likewise.
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
        values: What the file holds.
        num_labels: Number of classes that the run was planned for.
        where: The file, for messages.

    Raises:
        RunError: It names none, one twice, or another number of them.
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
    """Return the temperature that a file of a run or an export holds, above 0.

    Args:
        values: What the file holds.
        where: The file, for messages.

    Raises:
        RunError: It holds none, or no finite number above 0.
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
    """Return what a file of a run or an export says of its reading, and a note where it is too old to say it.

    Args:
        values: What the file holds.
        labels: The run's classes.
        settings: The run's own, which may name columns.
        where: The file, for messages.

    Raises:
        RunError: It is damaged.
    """
    if "reading" in values:
        return Reading.from_json(values["reading"], where=where), ()
    names = values.get("column_names")
    text = settings.text or (tuple(map(str, names)) if isinstance(names, list) else ())
    taken = f"the text columns {', '.join(text)}" if text else "columns that are found by name"
    note = f"{where} is of an earlier version, which did not keep how the data was read: the run takes {taken}"
    return recover_reading(labels, text=text, label=settings.label, row_id=settings.id), (note,)


def _find_problem(values: Mapping[str, object]) -> str:
    """Return what keeps values from being a reading; empty where nothing does."""
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
