"""Files of ids and labels: predictions spell each class so that the file is read back as the same class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from submillion.data.labels import (
    Numbering,
    RawLabels,
    apply_labels,
    describe_ids,
    index_names,
    map_values,
    normalise_label,
)
from submillion.data.reading import Reading
from submillion.errors import DataError
from submillion.records import LabelSet, Record
from submillion.tables.formats import open_table
from submillion.tables.table import Row, Table, Tell, closed_after, ignore_note

ID, LABEL, LABEL_ID = "ID", "Label", "LabelId"
"""Columns of predictions. `LabelId` always holds positions from 0."""

LabelChoice = Literal["ids", "names"]


@dataclass(frozen=True)
class Spelling:
    """The spelling of the classes in predictions.

    Attributes:
        values: Value of each class in the column `Label`, in label order.
        with_ids: Whether a column `LabelId` is needed, because `Label` alone would be read back as other classes.
        note: Description of the column, if its values need one.
    """

    values: tuple[int | str, ...]
    with_ids: bool = False
    note: str = ""


def choose_spelling(
    labels: LabelSet, reading: Reading, wanted: LabelChoice | None = None, *, write: Callable[[object], object] = str
) -> Spelling:
    """Return the spelling of a run's classes in its predictions.

    Labels are written as in the training rows, as names or as the same numbers. Numbers of AG News' official files,
    1..C, are written as its competition wants them, 0..C-1.

    Args:
        labels: Classes of the run.
        reading: Reading of the run's data.
        wanted: ``ids`` for positions from 0, ``names`` for class names; the training rows' spelling if None.
        write: Function that returns a value as a file holds it, if not as plain text.
    """
    names: tuple[int | str, ...] = labels.names
    numbers = tuple(normalise_label(name) for name in labels)
    if reading.spelled == "numbers" and all(isinstance(number, int) for number in numbers):
        names = tuple(number for number in numbers if isinstance(number, int))
    values, note = names, ""
    if wanted == "ids" or (wanted is None and reading.is_official and reading.spelled == "numbers"):
        values = tuple(range(len(labels)))
        if names != values:
            note = f"{LABEL} holds positions that count from 0: {describe_ids(labels, 0)}"
            if wanted is None:
                note += ", as AG News' competition wants them; --labels names writes names"
    elif wanted is None and reading.spelled == "numbers" and reading.numbering.numbers == "ids":
        first = reading.numbering.first_id
        values = tuple(range(first, first + len(labels)))
        if names != values:
            note = f"{LABEL} holds numbers, as the training data did: {describe_ids(labels, first)}"
    read_back = _map_label(labels, reading.numbering, is_competition=_is_competition(reading.is_official, values))
    lost = [read_back.get(normalise_label(write(value))) != position for position, value in enumerate(values)]
    if any(lost):
        note = f"{note or f'{LABEL} alone would be read as other classes'}; the column {LABEL_ID} repeats the positions"
    return Spelling(values, any(lost), note)


def join_labels(
    records: Sequence[Record],
    path: str,
    labels: LabelSet,
    numbering: Numbering | None = None,
    *,
    is_official: bool = False,
    on_note: Tell = ignore_note,
) -> list[Record]:
    """Return the records that a file of ``id,label`` rows labels, in the order of the records.

    A column `LabelId` holds positions from 0. If it exists, a column `Label` must name the same classes.

    Args:
        records: Rows of the data.
        path: File of labels.
        labels: Classes of the run.
        numbering: Meaning of numbers in the run's training data; decided from the file if None.
        is_official: Whether the run was trained on AG News' official files, whose competition counts from 0.
        on_note: Called with notes on the reading of the file.

    Raises:
        DataError: An id belongs to no record or appears twice, a label is not a class, or two columns contradict each
            other.
    """
    file = Path(path)
    table = open_table(file)
    row_id, label, positions = _find_columns(table, file)
    wanted = [column for column in (row_id, label, positions) if column is not None]
    for note in table.notes:
        on_note(note)
    with closed_after(table.iter_rows(wanted, on_note)) as rows:
        places, values = _find_labelled(records, rows, file)
    folder = "" if file.parent == Path() else f"{file.parent}/"
    column = [row[-1] for row in values]
    if positions is not None:
        if label is not None:
            meaning = _map_label(labels, numbering or Numbering("names"), is_competition=False)
            _refuse_contradictions(values, places, meaning, labels)
        numbering = Numbering("ids", 0, is_asked=True)
    elif (
        (numbering is None or not numbering.is_asked)
        and {ID, LABEL} <= set(table.names)
        and _is_competition(is_official, column)
    ):
        numbering = Numbering("ids", 0, is_asked=True)
        on_note(
            f"{path}: {ID},{LABEL} is the header of AG News' competition, so its labels count from 0: "
            f"{describe_ids(labels, 0)}"
        )
    raw_labels = RawLabels(column, places, False, None, folder)
    ids = {record.id: record.label for record in apply_labels(raw_labels, labels, numbering)}
    return [replace(record, label=ids[record.id]) for record in records if record.id in ids]


def _find_columns(table: Table, file: Path) -> tuple[int, int | None, int | None]:
    """Return the places of the ids, the labels and the positions among the columns."""
    positions = _find_column(table, LABEL_ID, file, is_exact=True)
    label = _find_column(table, "label", file)
    row_id = _find_column(table, "id", file)
    if row_id is None or (label is None and positions is None):
        raise DataError(
            f"there is no column {'id' if row_id is None else 'label'!r}; the file has "
            f"{', '.join(map(repr, table.names))}",
            where=str(file),
            hint=f"A file of labels has the columns id and label, or {ID} and {LABEL_ID} with positions from 0.",
        )
    return row_id, label, positions


def _find_labelled(
    records: Sequence[Record], rows: Iterable[Row], file: Path
) -> tuple[list[Record], list[tuple[int | str | None, ...]]]:
    """Return the records that a file labels, placed in the file, and the labels of each."""
    known = {record.id: record for record in records}
    places: dict[str, Record] = {}
    values: list[tuple[int | str | None, ...]] = []
    for place, (raw_id, *raw) in rows:
        record_id = str(raw_id).strip()
        if record_id not in known or record_id in places:
            problem = "appears twice" if record_id in places else "belongs to no row of the data"
            raise DataError(
                f"the id {record_id!r} {problem}",
                where=f"{file}:{place}",
                hint="Ids are those of the data's id column, or 0-based row numbers.",
            )
        places[record_id] = replace(known[record_id], source=f"{file.name}:{place}")
        values.append(tuple(normalise_label(value) for value in raw))
    return list(places.values()), values


def _is_competition(is_official: bool, values: Sequence[object]) -> bool:
    """Whether a column `Label`, of a run on AG News' official files, is its competition's, which counts from 0."""
    return is_official and all(isinstance(value, int) for value in values if value is not None)


def _map_label(labels: LabelSet, numbering: Numbering, *, is_competition: bool) -> Mapping[int | str | None, int]:
    """Return the meaning of a column `Label` in a file of labels according to the run."""
    if is_competition:
        numbering = Numbering("ids", 0)
    return map_values(RawLabels((), (), False, None, ""), index_names(labels), numbering)


def _refuse_contradictions(
    values: Sequence[tuple[int | str | None, ...]],
    places: Sequence[Record],
    meaning: Mapping[int | str | None, int],
    labels: LabelSet,
) -> None:
    names = index_names(labels)
    for (value, position), place in zip(values, places, strict=True):
        # The label may be a name, a number as in the training data, or the position itself.
        read = {meaning.get(value), names.get(value), value}
        if position not in read and read & {*meaning.values()}:
            raise DataError(
                f"the label {value!r} and the {LABEL_ID} {position!r} are two classes",
                where=place.source,
                hint=f"{LABEL_ID} counts from 0: {describe_ids(labels, 0)}. Remove one of the two columns.",
            )


def _find_column(table: Table, name: str, path: Path, *, is_exact: bool = False) -> int | None:
    if is_exact:
        return table.names.index(name) if name in table.names else None
    found = [position for position, present in enumerate(table.names) if present.lower() == name]
    if len(found) > 1:
        spelled = " and ".join(repr(table.names[position]) for position in found)
        raise DataError(f"the columns {spelled} are both called {name}", where=str(path), hint="Rename the wrong one.")
    return found[0] if found else None
