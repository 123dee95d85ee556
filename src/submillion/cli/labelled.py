"""Rows for a finished run, read with the columns and classes of its training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from submillion.cli.console import print_note
from submillion.data.columns import Columns
from submillion.data.label_files import join_labels
from submillion.data.labels import Numbering, NumbersChoice, describe_ids
from submillion.data.read import list_columns, read_split
from submillion.data.run_columns import fit_columns
from submillion.errors import DataError
from submillion.run.trained_rows import count_trained_rows, describe_trained_rows

if TYPE_CHECKING:
    from submillion.progress import Progress
    from submillion.records import Record
    from submillion.scoring.run_model import RunModel


def read_labelled(
    model: RunModel,
    data: str,
    asked: Columns,
    *,
    labels_file: Path | None,
    numbers: NumbersChoice | None,
    progress: Progress,
) -> tuple[list[Record], int | None]:
    """Read the labelled records of a file, or of a folder's test split, and print how they were read.

    Args:
        model: The loaded run.
        data: Path of a file or folder, or name of a hub data set.
        asked: Columns that flags name; the others are the run's.
        labels_file: File with rows of id and label, if the data has no labels.
        numbers: Meaning of numbers as labels; None for the meaning in the run's training.
        progress: Receives the end of reading.

    Returns:
        The records, and how many of them the run was trained on; None where it does not say.

    Raises:
        DataError: A column is missing, or a row has no valid label.
    """
    records = _read(model, data, asked, labels_file, numbers)
    progress.finish()
    known = count_trained_rows(model.folder, records, model.config.data.clean)
    if note := describe_trained_rows(known, len(records), model.folder):
        print_note(note)
    return records, known


def _read(
    model: RunModel, data: str, asked: Columns, labels_file: Path | None, numbers: NumbersChoice | None
) -> list[Record]:
    splits = list_columns(data)
    name = "test" if "test" in splits else next(iter(splits))
    if len(splits) > 1:
        if name != "test":
            raise DataError(
                f"has no test split, only {', '.join(splits)}", where=data, hint="Give the path of one of its files."
            )
        print_note(f"{data}: evaluating its test split")
    reading, labels = model.reading, model.labels
    numbering = Numbering.parse(numbers) or reading.numbering
    columns, notes = fit_columns(
        reading,
        splits[name],
        asked,
        where=data,
        needs_label=labels_file is None,
        needs_id=labels_file is not None,
    )
    for note in (*model.notes, *notes):
        print_note(note)
    # Numbers in a label column are read as ids, and the user should be able to check them.
    if numbering.numbers == "ids":
        print_note(f"label ids: {describe_ids(labels, numbering.first_id)}")
    if labels_file is None:
        records = read_split(data, name, columns, labels=labels, numbering=numbering, on_note=print_note)
    else:
        rows = read_split(data, name, columns, on_note=print_note)
        official = reading.is_official
        records = join_labels(rows, str(labels_file), labels, numbering, is_official=official, on_note=print_note)
        if len(records) < len(rows):
            print_note(f"{labels_file}: has labels for {len(records):,} of {len(rows):,} rows; the others are left out")
    missing = [record.source for record in records if record.label is None]
    if missing or not records:
        raise DataError(
            f"{len(missing):,} rows have no label: {', '.join(missing[:5])}" if missing else "has no labelled rows",
            where=data,
            hint="Give a file with id,label rows as --labels FILE, or name the column with --label.",
        )
    return records
