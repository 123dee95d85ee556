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
        data: Path, ``hf:owner/name`` or DataFrame to read.
        text: Text columns; found by name if empty.
        label: Label column; found by name if absent.
        row_id: Id column, or ``none`` for row numbers; found by name if absent.
        numbers: Meaning of numbers as labels: ``names`` of classes, or ``ids`` from 0 or ``ids-from-1``.
        labels: Class names in label order, if known; otherwise the training rows decide.

    Returns:
        The data set. It has `splits` (records by split, ``all`` for a single file), `labels` (classes), `column_names`
        (text columns) and `notes` (guesses and omissions).

    Raises:
        DataError: Files are missing or damaged, columns are missing, or labels fit no class.
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
        data: Path, ``hf:owner/name`` or DataFrame to read.
        split: ``train``, ``validation`` or ``test``; not needed for a single file.
        text: Text columns, as in `read_dataset`.
        label: Label column.
        row_id: Id column.
        numbers: Meaning of numbers as labels.
        labels: Class names in label order, such as ``submillion.load(run).labels.names``.

    Raises:
        DataError: `read_dataset` would fail, or there are several splits and `split` names none of them.
    """
    dataset = read_dataset(data, text=text, label=label, row_id=row_id, numbers=numbers, labels=labels)
    splits = dataset.splits
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        problem = "there are several splits" if split is None else f"there is no split {split!r}"
        raise DataError(f"{problem}, of {', '.join(splits)}", where="split", hint="Name one of them.")
    return splits[split]
