"""Open one file of rows in any supported format: its column names first, then its rows as a stream.

Every reader names the place of its rows (1-based physical lines for text, 1-based rows for binary formats) and turns
damage of any kind into a `DataError` that says where.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from submillion.data import arrow, pickles
from submillion.errors import DataError

MAX_FIELD_CHARS = 1 << 20
"""Longest field that is accepted, in characters: some 200,000 words, far beyond any news item."""

MAX_LINE_BYTES = 16 << 20
"""Longest physical line, so that a file without line ends cannot fill the memory."""

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".txt")
BINARY_SUFFIXES = (".parquet", ".arrow", ".feather", ".pkl", ".pickle")
SUFFIXES = (*TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES), *BINARY_SUFFIXES)

OFFICIAL_NAMES = ("class_index", "title", "description")
"""Columns of the official AG News files, which have no header; `class_index` counts from 1."""

Row = tuple[int, Sequence[object]]


@dataclass(frozen=True)
class Table:
    """One file of rows.

    Attributes:
        names: Column names in file order.
        iter_rows: Takes positions of wanted columns; yields (place, their values) from the first row on, anew at
            every call.
        place: What a place counts: ``line`` or ``row``.
        class_names: Class names in label order, by column, where the file carries them.
    """

    names: tuple[str, ...]
    iter_rows: Callable[[Sequence[int]], Iterator[Row]]
    place: str = "line"
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def find_suffix(path: Path) -> str | None:
    """Return the supported ending of a file's name, such as ``.csv.gz``, or None."""
    name = path.name.lower()
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), None)


def open_table(path: Path) -> Table:
    """Open a file, or a folder that `datasets` has saved, and read its column names.

    Raises:
        DataError: The file is missing, empty, damaged or of no known format.
    """
    if path.is_dir():
        return _open_binary(path, arrow.open_saved_folder)
    if not path.exists():
        raise DataError("there is no such file", where=str(path), hint="Check the path; nothing was read.")
    if not path.is_file():
        raise DataError(
            "is not a regular file", where=str(path), hint="Give a file of rows, or a folder of such files."
        )
    suffix = find_suffix(path)
    if suffix is None:
        raise DataError(
            f"cannot tell the format of {path.name!r}", where=str(path), hint=f"Known endings: {', '.join(SUFFIXES)}."
        )
    with _readable(path):
        if path.stat().st_size == 0:
            raise DataError("the file is empty", where=str(path), hint="It needs at least one row.")
        path.open("rb").close()
    kind = suffix.removesuffix(".gz")
    if kind in {".csv", ".tsv"}:
        return _open_delimited(path, "," if kind == ".csv" else "\t")
    if kind == ".txt":
        return Table(("text",), lambda wanted: _pick(wanted, ((n, (line,)) for n, line in _iter_texts(path))))
    if kind in {".jsonl", ".json"}:
        return _open_json(path)
    opener = {".parquet": arrow.open_parquet, ".pkl": pickles.open_pickle, ".pickle": pickles.open_pickle}
    return _open_binary(path, opener.get(kind, arrow.open_arrow))


def _open_binary(path: Path, opener: Callable[[Path], arrow.BinaryTable]) -> Table:
    table = opener(path)
    return Table(table.names, table.iter_rows, "row", table.class_names)


_T = TypeVar("_T")


@contextmanager
def closed_after(rows: Iterator[_T]) -> Iterator[Iterator[_T]]:
    """Close a generator of rows when the block ends, so that an error inside does not leave its file open."""
    try:
        yield rows
    finally:
        if isinstance(rows, Generator):
            rows.close()


def _pick(wanted: Sequence[int], rows: Iterator[Row]) -> Iterator[Row]:
    with closed_after(rows):
        for place, values in rows:
            yield place, [values[position] for position in wanted]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the gzip file is cut off or damaged: {error}", where=str(path), hint="Fetch or compress the file again."
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def _open_bytes(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def iter_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file, ends included, holding one at a time.

    Raises:
        DataError: Other encodings, a NUL byte, an endless line, a cut gzip; with the line.
    """
    with _readable(path), _open_bytes(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if number == 1 and line[:2] in {b"\xff\xfe", b"\xfe\xff"}:
                raise DataError("the file is UTF-16, not UTF-8", where=f"{path}:1", hint="Save it as UTF-8.")
            if b"\0" in line:
                raise DataError(
                    "the line holds a NUL byte",
                    where=f"{path}:{number}",
                    hint="The file is damaged or not text; remove the byte.",
                )
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                raise DataError(
                    f"the line is longer than {MAX_LINE_BYTES:,} bytes",
                    where=f"{path}:{number}",
                    hint="Is this a file of rows?",
                )
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"byte 0x{line[error.start]:02x} at position {error.start} of the line is not UTF-8",
                    where=f"{path}:{number}",
                    hint="Save the file as UTF-8, for example with iconv -f latin1 -t utf-8.",
                ) from None


def _iter_texts(path: Path) -> Iterator[tuple[int, str]]:
    with closed_after(iter_lines(path)) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.rstrip("\r\n")
            if len(text) > MAX_FIELD_CHARS:
                raise _field_too_long(f"{path}:{number}")
            yield number, text


def _field_too_long(where: str) -> DataError:
    return DataError(
        f"a field is longer than {MAX_FIELD_CHARS:,} characters",
        where=where,
        hint="Look for a quotation mark that is never closed, or shorten the text.",
    )


def _iter_delimited(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # The limit belongs to the whole process; it is only ever raised, so other readers of CSV are not cut.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
    with closed_after(iter_lines(path)) as lines:
        yield from _parse_delimited(path, csv.reader(lines, delimiter=delimiter, strict=True))


def _parse_delimited(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    line, width = 1, 0
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            if "field larger" in str(error):
                raise _field_too_long(f"{path}:{line}") from None
            raise DataError(
                f"broken quoting in the row that begins here: {error}",
                where=f"{path}:{line}",
                hint='Put fields with quotation marks in quotation marks, and write each inner one twice ("").',
            ) from None
        if row is None:
            return
        if max(map(len, row), default=0) > MAX_FIELD_CHARS:
            raise _field_too_long(f"{path}:{line}")
        # A wholly blank line is no row; writers of CSV put "" where a single column is empty.
        if row:
            width = width or len(row)
            if len(row) != width:
                raise DataError(
                    f"the row has {len(row)} fields, the rows before it {width}",
                    where=f"{path}:{line}",
                    hint="Put texts that hold the separator or line ends in quotation marks.",
                )
            yield line, row
        line = reader.line_num + 1


def _open_delimited(path: Path, delimiter: str) -> Table:
    first = next(_iter_delimited(path, delimiter), None)
    if first is None:
        raise DataError("the file holds no rows", where=str(path), hint="It needs a header and at least one row.")
    headerless = is_official_row(first[1])
    names = OFFICIAL_NAMES if headerless else tuple(name.strip() for name in first[1])

    def iter_rows(wanted: Sequence[int]) -> Iterator[Row]:
        rows = _iter_delimited(path, delimiter)
        if not headerless:
            next(rows)
        return _pick(wanted, iter(rows))

    return Table(names, iter_rows)


def is_official_row(row: Sequence[str]) -> bool:
    """Whether a first row is of the headerless official format: class 1..C, title, description."""
    return len(row) == len(OFFICIAL_NAMES) and re.fullmatch("0*[1-9][0-9]{0,8}", row[0]) is not None


def _open_json(path: Path) -> Table:
    first = next(_iter_objects(path), None)
    if first is None:
        raise DataError("the file holds no rows", where=str(path), hint="It needs one JSON object a line.")
    names = tuple(first[1])

    def iter_rows(wanted: Sequence[int]) -> Iterator[Row]:
        keys = [names[position] for position in wanted]
        with closed_after(_iter_objects(path)) as rows:
            for place, row in rows:
                if row.keys() != first[1].keys():
                    odd = sorted(row.keys() ^ first[1].keys())
                    raise DataError(
                        f"the keys differ from those of the first row: {', '.join(odd)}",
                        where=f"{path}:{place}",
                        hint="Give every row the same keys; write null for a missing value.",
                    )
                yield place, [row[key] for key in keys]

    return Table(names, iter_rows)


def _iter_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with closed_after(iter_lines(path)) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if line.lstrip().startswith("["):
                yield from _iter_array(path, number, line, lines)
                return
            yield number, _parse_object(line, f"{path}:{number}")


def _iter_array(path: Path, number: int, line: str, rest: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    # One JSON array over the whole file has no rows to stream: it is read at once, and its places count elements.
    rows = _parse_json(line + "".join(rest), f"{path}:{number}")
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"expected an object, found {type(row).__name__}", where=f"{path}:{place}")
        yield place, row


def _parse_object(line: str, where: str) -> dict[str, Any]:
    value = _parse_json(line, where)
    if not isinstance(value, dict):
        raise DataError(
            f"expected a JSON object, found {type(value).__name__}", where=where, hint="Write one object a line."
        )
    return value


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"not valid JSON: {reason}", where=where, hint="Write one JSON object a line.") from None
