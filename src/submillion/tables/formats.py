"""Open one file of rows in any supported format: its column names first, then its rows as a stream.

Every reader gives the place of its rows (1-based physical lines for text, 1-based rows for binary formats) and turns
damage of any kind into a `DataError` with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from submillion.errors import DataError
from submillion.tables import arrow, pickles
from submillion.tables.compression import PACKINGS, name_content, readable
from submillion.tables.delimited import open_delimited
from submillion.tables.json_lines import open_json
from submillion.tables.table import MAX_FIELD_CHARS, Row, Table, Tell, closed_after, field_too_long, pick_fields
from submillion.tables.text_lines import examine_text, iter_lines

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt")
BINARY_SUFFIXES = (".parquet", ".arrow", ".feather", ".pkl", ".pickle")
SUFFIXES = (*TEXT_SUFFIXES, *BINARY_SUFFIXES, ".zip", *(f"{suffix}{p}" for suffix in TEXT_SUFFIXES for p in PACKINGS))


def find_suffix(path: Path) -> str | None:
    """Return the supported ending of a file's name, such as ``.csv.gz``, or None."""
    name = path.name.lower()
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), None)


def open_table(path: Path) -> Table:
    """Open a file, or a folder that `datasets` has saved, and read its column names.

    Raises:
        DataError: The file is missing, empty, damaged or in an unknown format.
    """
    if path.is_dir():
        return _open_binary(path, arrow.open_saved_folder)
    if not path.exists():
        raise DataError("there is no such file", where=str(path), hint="Check the path; nothing was read.")
    if not path.is_file():
        raise DataError(
            "is not a regular file", where=str(path), hint="Give a file of rows, or a folder of such files."
        )
    if find_suffix(path) is None:
        raise _unknown_format(path, path.name)
    with readable(path):
        if path.stat().st_size == 0:
            raise DataError("the file is empty", where=str(path), hint="It needs at least one row.")
        path.open("rb").close()
    name = name_content(path).lower()
    kind = next((suffix for suffix in (*TEXT_SUFFIXES, *BINARY_SUFFIXES) if name.endswith(suffix)), None)
    if kind is None or (kind in BINARY_SUFFIXES and name != path.name.lower()):
        raise _unknown_format(path, name)
    if kind in {".csv", ".tsv"}:
        return open_delimited(path, "," if kind == ".csv" else "\t")
    if kind == ".txt":
        return _open_texts(path)
    if kind in {".jsonl", ".ndjson", ".json"}:
        return open_json(path)
    opener = {".parquet": arrow.open_parquet, ".pkl": pickles.open_pickle, ".pickle": pickles.open_pickle}
    return _open_binary(path, opener.get(kind, arrow.open_arrow))


def _unknown_format(path: Path, name: str) -> DataError:
    if name.lower().endswith((".xlsx", ".xls", ".ods")):
        hint = "Save the sheet as CSV (UTF-8) in the spreadsheet program."
    else:
        known = ", ".join((*TEXT_SUFFIXES, *BINARY_SUFFIXES))
        hint = f"Known endings: {known}. Text formats may be compressed: {', '.join(PACKINGS)}."
    return DataError(f"cannot tell the format of {name!r}", where=str(path), hint=hint)


def _open_binary(path: Path, opener: Callable[[Path], arrow.BinaryTable]) -> Table:
    table = opener(path)

    def read(wanted: Sequence[int], on_note: Tell) -> Iterator[Row]:
        return table.iter_rows(wanted)

    return Table(table.names, read, "row", table.class_names, table.strings)


def _open_texts(path: Path) -> Table:
    form = examine_text(path)

    def iter_texts() -> Iterator[Row]:
        with closed_after(iter_lines(path, form)) as lines:
            for number, line in enumerate(lines, start=1):
                text = line.rstrip("\r\n")
                if len(text) > MAX_FIELD_CHARS:
                    raise field_too_long(f"{path}:{number}")
                yield number, (text,)

    def read(wanted: Sequence[int], on_note: Tell) -> Iterator[Row]:
        return pick_fields(wanted, iter_texts())

    return Table(("text",), read, has_names=False, notes=form.notes)
