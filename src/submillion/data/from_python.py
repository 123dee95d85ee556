"""`submillion.read_dataset` and `submillion.read_records`: the readers of files with the keywords of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from submillion.data import read
from submillion.data.columns import make_columns
from submillion.data.labels import Numbering, NumbersChoice
from submillion.data.texts import open_source
from submillion.errors import DataError
from submillion.records import LabelSet, Record


def read_dataset(
    data: Any,
    *,
    text: str | Sequence[str] = (),
    label: str | None = None,
    row_id: str | None = None,
    numbers: NumbersChoice | None = None,
    labels: Sequence[str] = (),
) -> read.Dataset:
    """Read a file, a folder of splits, a hub data set or a DataFrame as training does.

    Args:
        data: What to read.
        text: Text columns; found by name if empty.
        label: Label column; found by name if absent.
        row_id: Id column, or ``none`` for row numbers; found by name if absent.
        numbers: What numbers as labels are: ``names`` of classes, or ``ids`` from 0 or ``ids-from-1``.
        labels: Class names in label order, where they are known; else the training rows decide.

    Returns:
        `splits`, records by split (``all`` for a single file); `labels`, the classes; `column_names`, the text columns;
        `notes`, what was guessed or left out.

    Raises:
        DataError: Files that are missing or damaged, columns that are not there, labels that fit no class.
    """
    names = LabelSet(tuple(labels)) if labels else None
    with open_source(data) as source:
        return read.read_dataset(
            source, make_columns(text, label, row_id), labels=names, numbering=Numbering.parse(numbers)
        )


def read_records(
    data: Any,
    *,
    split: str | None = None,
    text: str | Sequence[str] = (),
    label: str | None = None,
    row_id: str | None = None,
    numbers: NumbersChoice | None = None,
    labels: Sequence[str] = (),
) -> list[Record]:
    """Read the records of one file, or of one split, as training does.

    Args:
        data: What to read.
        split: ``train``, ``validation`` or ``test``; not needed where there is one file.
        text: As in `read_dataset`, and so are the other arguments.
        label: Label column.
        row_id: Id column.
        numbers: What numbers as labels are.
        labels: Class names in label order, such as ``submillion.load(run).labels.names``.

    Raises:
        DataError: As `read_dataset`; or there are several splits, and none or another one is named.
    """
    dataset = read_dataset(data, text=text, label=label, row_id=row_id, numbers=numbers, labels=labels)
    splits = dataset.splits
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        problem = "there are several splits" if split is None else f"there is no split {split!r}"
        raise DataError(f"{problem}, of {', '.join(splits)}", where="split", hint="Name one of them.")
    return splits[split]
