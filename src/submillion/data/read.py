"""Find the files of a data set and read them: splits of records, their classes, the digests of their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from submillion.data.class_names import CLASS_NAMES, choose_class_names
from submillion.data.columns import NO_ID, Columns, Selection, describe_selection, select_columns
from submillion.data.formats import open_table
from submillion.data.label_names import Respelled
from submillion.data.labels import (
    Classes,
    Numbering,
    RawLabels,
    apply_labels,
    decide_classes,
    drop_unlabelled,
    normalise_label,
)
from submillion.data.reading import Reading
from submillion.data.rows import iter_labelled
from submillion.data.sources import Source, find_single, find_source, hash_file, list_files
from submillion.data.table import Tell, ignore_note
from submillion.errors import DataError
from submillion.files import expand_home
from submillion.records import LabelSet, Record

__all__ = ["Columns", "Dataset", "hash_file", "iter_records", "list_inputs", "read_dataset", "read_records"]

FOUND_BY_NAME = Columns()


@dataclass(frozen=True)
class Dataset:
    """Everything read from one source.

    Attributes:
        splits: Records by split, keys among train, validation and test; one single file is ``all``.
        labels: The classes; None where there is no label column anywhere.
        files: SHA-256 of the bytes of every file read, by its name.
        column_names: The text columns read, such as ``("title", "description")``.
        notes: What was guessed or left out in reading, one sentence each, for the reader of the command.
        reading: The columns read and what numbers as labels mean; None where there is no label column anywhere.
    """

    splits: dict[str, list[Record]]
    labels: LabelSet | None
    files: dict[str, str]
    column_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    reading: Reading | None = None


def read_dataset(
    data: str,
    columns: Columns = FOUND_BY_NAME,
    *,
    labels: LabelSet | None = None,
    numbering: Numbering | None = None,
    revision: str | None = None,
    drops_unlabelled: bool = False,
) -> Dataset:
    """Read a file, a folder of splits or a hub data set.

    Args:
        data: A path (an existing one always wins) or ``hf:owner/name``.
        columns: Which columns to read; what it leaves out is found by name.
        labels: The classes, where they are known beforehand; else they come from the training split.
        numbering: What numbers as labels mean, where it is asked for or known beforehand; else it is decided by the
            training split.
        revision: Commit of a hub data set.
        drops_unlabelled: Whether rows whose label is empty or -1 are left out, and a split of such rows alone.

    Raises:
        DataError: Files that are missing or damaged, columns that are not there, labels that fit no class.
    """
    source = find_source(data, revision)
    raw: dict[str, RawLabels] = {}
    selected: dict[str, Selection] = {}
    notes: list[str] = []
    for split, paths in source.splits.items():
        raw[split], selected[split] = _read_split(paths, columns, source.class_names, notes.append)
    _check_same_columns(selected, source)
    if drops_unlabelled:
        raw = _drop_unlabelled(raw, selected, labels, data, notes.append)
    with_labels = {split: part for split, part in raw.items() if selected[split].label is not None}
    for split, part in list(with_labels.items()):
        # What the training rows show of the classes holds for the other splits, which may lack some.
        teaching = with_labels[_find_teaching(with_labels)]
        with_labels[split] = choose_class_names(part, source.splits[split][0].parent, teaching, labels, notes.append)
    classes, reading = _decide(with_labels, selected, labels, numbering)
    if reading is not None and reading.id is None and columns.id == NO_ID:
        reading = replace(reading, id=NO_ID)
    splits = {
        split: apply_labels(with_labels[split], classes.labels, classes.numbering)
        if classes is not None and split in with_labels
        else list(part.records)
        for split, part in raw.items()
    }
    files = {
        file.name: hash_file(file) for paths in source.splits.values() for path in paths for file in list_files(path)
    }
    column_names = next(iter(selected.values())).text
    if classes is None:
        return Dataset(splits, labels, files, column_names, tuple(dict.fromkeys(notes)))
    return Dataset(splits, classes.labels, files, column_names, (*dict.fromkeys(notes), *classes.notes), reading)


def _drop_unlabelled(
    raw: Mapping[str, RawLabels], selected: Mapping[str, Selection], labels: LabelSet | None, data: str, on_note: Tell
) -> dict[str, RawLabels]:
    kept: dict[str, RawLabels] = {}
    for split, part in raw.items():
        if selected[split].label is None:
            kept[split] = part
            continue
        rest, count = drop_unlabelled(part, labels)
        if count:
            rows = "1 row is" if count == 1 else f"{count:,} rows are"
            on_note(f"{split}: {rows} left out of {len(part.records):,}, without a label (data.unlabelled=drop)")
        if rest.records:
            kept[split] = rest
    if not kept.keys() & {"train", "all"}:
        raise DataError("no row has a label", where=data, hint="Label some rows, or name the column: --label.")
    return kept


def _find_teaching(with_labels: Mapping[str, RawLabels]) -> str:
    return "train" if "train" in with_labels else next(iter(with_labels))


def _decide(
    with_labels: Mapping[str, RawLabels],
    selected: Mapping[str, Selection],
    labels: LabelSet | None,
    numbering: Numbering | None,
) -> tuple[Classes | None, Reading | None]:
    """Return what the training split, or else the first one with a label column, says of the classes."""
    if not with_labels:
        return None, None
    split = _find_teaching(with_labels)
    classes = decide_classes(with_labels[split], labels=labels, numbering=numbering)
    columns = selected[split]
    reading = Reading(
        columns.text, columns.label, columns.id, classes.numbering, classes.spelled, is_official=classes.is_official
    )
    return classes, reading


def digest_source(data: str, columns: Columns = FOUND_BY_NAME, *, revision: str | None = None) -> str:
    """Return a SHA-256 of all that `read_dataset` would read: the files by split, their names and bytes, their classes.

    Raises:
        DataError: There are none, as `read_dataset` says it.
        OSError: One cannot be read.
    """
    source = find_source(data, revision)
    parts: list[object] = [columns, sorted(source.class_names.items())]
    for split, paths in source.splits.items():
        for path in paths:
            names = path.parent / CLASS_NAMES
            files = [*list_files(path), *([names] if names.is_file() else [])]
            parts.append((split, path.name, [(file.name, hash_file(file)) for file in files]))
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()


def read_records(
    data: str,
    columns: Columns = FOUND_BY_NAME,
    *,
    labels: LabelSet | None = None,
    numbering: Numbering | None = None,
    on_note: Tell = ignore_note,
) -> list[Record]:
    """Read one file; with `labels`, every row of a labelled file gets its label id.

    Args:
        data: A path of one file, or what holds just one.
        columns: Which columns to read; what it leaves out is found by name.
        labels: The classes.
        numbering: What numbers as labels mean; decided from the file if None.
        on_note: Called with every note on what was guessed or left out.

    Raises:
        DataError: As `read_dataset`; also where the source has several splits.
    """
    path, class_names = find_single(data)
    return _read_part([path], columns, class_names, labels, numbering=numbering, on_note=on_note)


def read_split(
    data: str,
    split: str,
    columns: Columns = FOUND_BY_NAME,
    *,
    labels: LabelSet | None = None,
    numbering: Numbering | None = None,
    on_note: Tell = ignore_note,
) -> list[Record]:
    """Read one split alone; with `labels`, its rows get their label ids if it has a label column.

    Args:
        data: A path or ``hf:owner/name``.
        split: One of the keys of `list_columns`.
        columns: Which columns to read; what it leaves out is found by name.
        labels: The classes.
        numbering: What numbers as labels mean; decided from the split if None.
        on_note: Called with every note on what was guessed or left out.

    Raises:
        DataError: As `read_dataset`.
    """
    source = find_source(data)
    return _read_part(source.splits[split], columns, source.class_names, labels, numbering=numbering, on_note=on_note)


def _read_part(
    paths: Sequence[Path],
    columns: Columns,
    class_names: Mapping[str, tuple[str, ...]],
    labels: LabelSet | None,
    *,
    numbering: Numbering | None,
    on_note: Tell,
) -> list[Record]:
    raw, selection = _read_split(paths, columns, class_names, on_note)
    if labels is None or selection.label is None:
        return list(raw.records)
    return apply_labels(choose_class_names(raw, paths[0].parent, raw, labels, on_note), labels, numbering)


def iter_records(data: str, columns: Columns = FOUND_BY_NAME, *, on_note: Tell = ignore_note) -> Iterator[Record]:
    """Stream one file's rows in order, without labels, a bounded number in memory (ids of an id column are kept).

    Args:
        data: A path of one file, or what holds just one.
        columns: Which columns to read; what it leaves out is found by name.
        on_note: Called with every note on what was guessed, and at the end of the rows on what was left out.

    Raises:
        DataError: As `read_records`; damage further down in the file shows when the stream comes to it.
    """
    path, _ = find_single(data)
    table = open_table(path)
    selection = replace(select_columns(table, columns, path), label=None)
    for note in (*table.notes, f"{path.name}: {describe_selection(selection, table)}"):
        on_note(note)
    return (record for record, _ in iter_labelled(path, table, selection, on_note=on_note))


def count_rows(data: str, columns: Columns = FOUND_BY_NAME, *, on_note: Tell = ignore_note) -> int:
    """Read one file as `iter_records` does, and return the number of its rows: whatever is wrong in it shows here.

    Args:
        data: A path of one file, or what holds just one.
        columns: Which columns to read; what it leaves out is found by name.
        on_note: Called with every note on what was guessed or left out.

    Raises:
        DataError: As `read_records`; also where there are no rows.
    """
    num_rows = sum(1 for _ in iter_records(data, columns, on_note=on_note))
    if not num_rows:
        raise _no_rows(data)
    return num_rows


def list_inputs(data: str) -> list[Path]:
    """Return the files that are read of a file or folder on this machine, none of a hub data set.

    Raises:
        DataError: There are none.
    """
    if not expand_home(data).exists():
        return []
    paths = [path for paths in find_source(data).splits.values() for path in paths]
    names = [path.parent / CLASS_NAMES for path in paths]
    return [file for path in paths for file in list_files(path)] + [path for path in names if path.is_file()]


def list_columns(data: str) -> dict[str, tuple[str, ...]]:
    """Return the column names of every split, ``all`` where there is one file, without reading its rows.

    A file of lines has one text a line and no names: its tuple is empty.

    Raises:
        DataError: As `read_dataset`.
    """
    return {split: _list_names(paths[0]) for split, paths in find_source(data).splits.items()}


def _list_names(path: Path) -> tuple[str, ...]:
    table = open_table(path)
    return table.names if table.has_names else ()


def _read_split(
    paths: Sequence[Path], columns: Columns, class_names: Mapping[str, tuple[str, ...]], on_note: Tell
) -> tuple[RawLabels, Selection]:
    records: list[Record] = []
    values: list[int | str | None] = []
    selections: list[Selection] = []
    known = dict(class_names)
    for path in paths:
        table = open_table(path)
        selection = select_columns(table, columns, path)
        found = () if selection in selections else (f"{path.name}: {describe_selection(selection, table)}",)
        for note in (*table.notes, *found):
            on_note(note)
        selections.append(selection)
        known = {**table.class_names, **known}
        respelled = Respelled()
        for record, value in iter_labelled(path, table, selection, first_row=len(records), on_note=on_note):
            records.append(record)
            label = normalise_label(value)
            respelled.compare(value, label)
            values.append(label)
        if note := respelled.describe():
            on_note(f"{path.name}: {note}")
    if not records:
        raise _no_rows(paths[0])
    first = selections[0]
    if any(selection != first for selection in selections):
        raise DataError("the parts of one split have different columns", where=str(paths[0].parent))
    names = known.get(first.label) if first.label is not None else None
    return RawLabels(values, records, first.is_one_based, names, _folder_of(paths[0]), names is not None), first


def _no_rows(path: object) -> DataError:
    return DataError("the file holds no rows", where=str(path), hint="It needs at least one row.")


def _folder_of(path: Path) -> str:
    return "" if path.parent == Path() else f"{path.parent}/"


def _check_same_columns(selected: Mapping[str, Selection], source: Source) -> None:
    if len({selection.text for selection in selected.values()}) > 1:
        found = "; ".join(
            f"{source.splits[split][0].name}: {', '.join(selection.text)}" for split, selection in selected.items()
        )
        raise DataError(
            f"the splits have different text columns ({found})", hint="Choose columns that all have with --text."
        )
