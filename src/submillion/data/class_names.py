"""The names in a classes.txt beside a file of rows, if they fit its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from submillion.data.labels import RawLabels, normalise_label
from submillion.records import LabelSet
from submillion.tables.table import Tell, shorten
from submillion.tables.text_lines import iter_lines

CLASS_NAMES = "classes.txt"
SHOWN = 8


def choose_class_names(
    raw: RawLabels, folder: Path, teaching: RawLabels, labels: LabelSet | None, on_note: Tell
) -> RawLabels:
    """Return the labels of a split with the class names of a classes.txt, if it exists and fits.

    Args:
        raw: The split, perhaps with names from its own file.
        folder: Folder of the split's file.
        teaching: The split that decides which labels exist.
        labels: The classes, if they are known beforehand.
        on_note: Called with the names that were taken, or with the reason why they were not.

    Raises:
        DataError: The classes.txt cannot be read.
    """
    path = folder / CLASS_NAMES
    if not path.is_file():
        return raw
    names = tuple(line.strip() for line in iter_lines(path) if line.strip())
    problem = _find_misfit(names, teaching, labels)
    if problem:
        on_note(f"{path} is ignored: it names {_list(names)}, but {problem}")
        return raw
    first = 1 if raw.one_based else 0
    on_note(f"{path} names the classes: {_list([f'{number} {name}' for number, name in enumerate(names, first)])}")
    return replace(raw, names=names, is_encoded=False)


def _find_misfit(names: Sequence[str], teaching: RawLabels, labels: LabelSet | None) -> str:
    if labels is not None:
        # Numbered classes keep their numbers, and the list finds them by position.
        is_fitting = set(names) == set(labels) or (all(map(str.isdigit, labels)) and len(names) == len(labels))
        return "" if is_fitting else f"the classes are {_list(labels.names)}"
    if not names or len(set(names)) < len(names):
        return "the names of classes must differ"
    values = {value for value in teaching.values if value is not None and value != -1}
    first = 1 if teaching.one_based else 0
    numbers = set(range(first, first + len(names)))
    # A part of AG News in its own format can lack a class. In other files, the labels must be those of the list.
    if values in ({normalise_label(name) for name in names}, numbers) or (teaching.one_based and values <= numbers):
        return ""
    return f"the labels are {_list(sorted(values, key=lambda value: (isinstance(value, str), value)))}"


def _list(values: Sequence[object]) -> str:
    shown = ", ".join(shorten(value, 40) if isinstance(value, str) else str(value) for value in values[:SHOWN])
    return shown + (f" and {len(values) - SHOWN:,} more" if len(values) > SHOWN else "")
