"""Find the files of a data set and read them: splits of records, their classes, the digests of their bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from submillion.data import arrow, hub
from submillion.data.columns import Columns, Selection, describe_selection, iter_labelled, select_columns
from submillion.data.formats import SUFFIXES, find_suffix, iter_lines, open_table
from submillion.data.labels import Classes, Numbering, RawLabels, apply_labels, decide_classes, normalise_label
from submillion.data.reading import Reading
from submillion.errors import DataError
from submillion.files import expand_home
from submillion.records import LabelSet, Record

__all__ = ["Columns", "Dataset", "iter_records", "list_inputs", "read_dataset", "read_records"]

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
HUB_PREFIX = "hf:"
CLASS_NAMES = "classes.txt"
FOUND_BY_NAME = Columns()

Tell = Callable[[str], None]
"""Takes one sentence on what was guessed or left out in reading."""


def ignore_note(note: str) -> None:
    """Take a note and say nothing."""


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


@dataclass(frozen=True)
class _Source:
    """Files of each split, and what is known of their classes from elsewhere."""

    splits: dict[str, list[Path]]
    class_names: Mapping[str, tuple[str, ...]]


def read_dataset(
    data: str,
    columns: Columns = FOUND_BY_NAME,
    *,
    labels: LabelSet | None = None,
    numbering: Numbering | None = None,
    revision: str | None = None,
) -> Dataset:
    """Read a file, a folder of splits or a hub data set.

    Args:
        data: A path (an existing one always wins) or ``hf:owner/name``.
        columns: Which columns to read; what it leaves out is found by name.
        labels: The classes, where they are known beforehand; else they come from the training split.
        numbering: What numbers as labels mean, where it is asked for or known beforehand; else it is decided by the
            training split.
        revision: Commit of a hub data set.

    Raises:
        DataError: Files that are missing or damaged, columns that are not there, labels that fit no class.
    """
    source = _find_source(data, revision)
    raw: dict[str, RawLabels] = {}
    selected: dict[str, Selection] = {}
    notes: list[str] = []
    for split, paths in source.splits.items():
        raw[split], selected[split] = _read_split(paths, columns, source.class_names, notes.append)
    _check_same_columns(selected, source)
    with_labels = {split: part for split, part in raw.items() if selected[split].label is not None}
    classes, reading = _decide(with_labels, selected, labels, numbering)
    splits = {
        split: apply_labels(part, classes.labels, classes.numbering)
        if classes is not None and split in with_labels
        else list(part.records)
        for split, part in raw.items()
    }
    files = {
        file.name: hash_file(file) for paths in source.splits.values() for path in paths for file in _list_files(path)
    }
    column_names = next(iter(selected.values())).text
    if classes is None:
        return Dataset(splits, labels, files, column_names, tuple(notes))
    return Dataset(splits, classes.labels, files, column_names, (*notes, *classes.notes), reading)


def _decide(
    with_labels: Mapping[str, RawLabels],
    selected: Mapping[str, Selection],
    labels: LabelSet | None,
    numbering: Numbering | None,
) -> tuple[Classes | None, Reading | None]:
    """Return what the training split, or else the first one with a label column, says of the classes."""
    if not with_labels:
        return None, None
    split = "train" if "train" in with_labels else next(iter(with_labels))
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
    source = _find_source(data, revision)
    parts: list[object] = [columns, sorted(source.class_names.items())]
    for split, paths in source.splits.items():
        for path in paths:
            names = path.parent / CLASS_NAMES
            files = [*_list_files(path), *([names] if names.is_file() else [])]
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
    path, class_names = _find_single(data)
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
    source = _find_source(data, None)
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
    return apply_labels(raw, labels, numbering)


def iter_records(data: str, columns: Columns = FOUND_BY_NAME, *, on_note: Tell = ignore_note) -> Iterator[Record]:
    """Stream one file's rows in order, without labels, a bounded number in memory (ids of an id column are kept).

    Args:
        data: A path of one file, or what holds just one.
        columns: Which columns to read; what it leaves out is found by name.
        on_note: Called with every note on what was guessed or left out.

    Raises:
        DataError: As `read_records`; damage further down in the file shows when the stream comes to it.
    """
    path, _ = _find_single(data)
    table = open_table(path)
    selection = replace(select_columns(table, columns, path), label=None)
    on_note(f"{path.name}: {describe_selection(selection, table)}")
    return (record for record, _ in iter_labelled(path, table, selection))


def list_inputs(data: str) -> list[Path]:
    """Return the files that are read of a file or folder on this machine, none of a hub data set.

    Raises:
        DataError: There are none.
    """
    if not expand_home(data).exists():
        return []
    paths = [path for paths in _find_source(data, None).splits.values() for path in paths]
    names = [path.parent / CLASS_NAMES for path in paths]
    return [file for path in paths for file in _list_files(path)] + [path for path in names if path.is_file()]


def list_columns(data: str) -> dict[str, tuple[str, ...]]:
    """Return the column names of every split, ``all`` where there is one file, without reading its rows.

    A file of lines has one text a line and no names: its tuple is empty.

    Raises:
        DataError: As `read_dataset`.
    """
    return {split: _list_names(paths[0]) for split, paths in _find_source(data, None).splits.items()}


def _list_names(path: Path) -> tuple[str, ...]:
    names = open_table(path).names
    return () if (find_suffix(path) or "").startswith(".txt") else names


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_source(data: str, revision: str | None) -> _Source:
    path = expand_home(data)
    if not path.exists() and data.startswith(HUB_PREFIX):
        files, class_names = hub.fetch_dataset(data.removeprefix(HUB_PREFIX), revision)
        return _Source(find_splits(files, data), class_names)
    if not path.is_dir():
        return _Source({"all": [path]}, {})
    if (path / "dataset_dict.json").is_file():
        names = arrow.read_json_file(path / "dataset_dict.json").get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) and name == Path(name).name for name in names):
            raise DataError("names no splits", where=str(path / "dataset_dict.json"), hint="Save the data set again.")
        return _Source(find_splits([(name, path / name) for name in names], data), {})
    if (path / "state.json").is_file():
        return _Source({"all": [path]}, {})
    files_here = sorted(entry for entry in path.iterdir() if entry.is_file() and find_suffix(entry) is not None)
    return _Source(find_splits([(file.name, file) for file in files_here], data), {})


def _find_single(data: str) -> tuple[Path, Mapping[str, tuple[str, ...]]]:
    source = _find_source(data, None)
    paths = [path for paths in source.splits.values() for path in paths]
    if len(paths) != 1:
        raise DataError(
            f"expected one file, found {', '.join(path.name for path in paths)}",
            where=data,
            hint="Give the path of one of these files.",
        )
    return paths[0], source.class_names


def find_splits(files: Sequence[tuple[str, Path]], where: str) -> dict[str, list[Path]]:
    """Sort files into splits by their names: ``train.csv``, ``dev.jsonl``, ``test-00000-of-00002.parquet``.

    Args:
        files: Names and paths.
        where: The data set, for messages.

    Raises:
        DataError: No file is named as a split, two files claim one, or a part is missing.
    """
    result: dict[str, list[Path]] = {}
    for split, aliases in SPLIT_NAMES.items():
        pattern = re.compile(rf"({'|'.join(aliases)})(-\d+-of-(?P<count>\d+))?(\..*)?", re.IGNORECASE)
        matches = [(match, path) for name, path in files if (match := pattern.fullmatch(name))]
        if not matches:
            continue
        count = int(matches[0][0]["count"] or 1)
        if len(matches) != count:
            names = ", ".join(path.name for _, path in matches)
            raise DataError(
                f"the {split} split needs {count} file(s), found {len(matches)}: {names}",
                where=where,
                hint="Keep exactly one file of a split, or all of its numbered parts.",
            )
        result[split] = [path for _, path in matches]
    if not result:
        present = ", ".join(name for name, _ in files[:10]) or "no data files"
        raise DataError(
            f"found no train, validation or test file; it holds {present}",
            where=where,
            hint=f"Name files train, validation and test with one of {', '.join(SUFFIXES)}; or give one file.",
        )
    return result


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
        if selection not in selections:
            on_note(f"{path.name}: {describe_selection(selection, table)}")
        selections.append(selection)
        known = {**table.class_names, **known}
        for record, value in iter_labelled(path, table, selection, first_row=len(records)):
            records.append(record)
            values.append(normalise_label(value))
    if not records:
        raise DataError("the file holds no rows", where=str(paths[0]), hint="It needs at least one row.")
    first = selections[0]
    if any(selection != first for selection in selections):
        raise DataError("the parts of one split have different columns", where=str(paths[0].parent))
    names, is_encoded = _read_class_names(paths[0].parent), False
    if names is None and first.label is not None:
        names = known.get(first.label)
        is_encoded = names is not None
    return RawLabels(values, records, first.is_one_based, names, _folder_of(paths[0]), is_encoded), first


def _folder_of(path: Path) -> str:
    return "" if path.parent == Path() else f"{path.parent}/"


def _read_class_names(folder: Path) -> tuple[str, ...] | None:
    path = folder / CLASS_NAMES
    if not path.is_file():
        return None
    names = tuple(line.strip() for line in iter_lines(path) if line.strip())
    return names or None


def _check_same_columns(selected: Mapping[str, Selection], source: _Source) -> None:
    if len({selection.text for selection in selected.values()}) > 1:
        found = "; ".join(
            f"{source.splits[split][0].name}: {', '.join(selection.text)}" for split, selection in selected.items()
        )
        raise DataError(
            f"the splits have different text columns ({found})", hint="Choose columns that all have with --text."
        )


def _list_files(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
