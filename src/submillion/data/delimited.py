"""Read files whose fields are kept apart by commas, tabs and the like, with a header or in AG News' own format."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from submillion.data.dialect import Dialect, find_dialect
from submillion.data.official import OFFICIAL_NAMES, find_doubt, is_official_row
from submillion.data.swallowed import SwallowedRows
from submillion.data.table import (
    MAX_FIELD_CHARS,
    Row,
    Table,
    Tell,
    closed_after,
    count_things,
    field_too_long,
    ignore_note,
    pick_fields,
    shorten,
)
from submillion.data.text_lines import TextForm, examine_text, iter_lines
from submillion.errors import DataError

NUM_DOUBTED = 1000
"""Rows that are looked at before a file without a header is taken for one of AG News' own."""


def open_delimited(path: Path, separator: str) -> Table:
    """Open a file of delimited fields and read its column names.

    Args:
        path: The file.
        separator: The separator that its name promises.

    Raises:
        DataError: The file cannot be read, holds no rows, or could be read in two ways.
    """
    form = examine_text(path)
    dialect = find_dialect(path, form, separator)
    notes = [*form.notes, *dialect.notes]
    with closed_after(_Rows(path, form, dialect).iter_rows()) as rows:
        first = next(rows, None)
    if first is None:
        raise DataError("the file holds no rows", where=str(path), hint="It needs a header and at least one row.")
    headerless = is_official_row(first[1])
    if headerless:
        _refuse_unofficial(path, form, dialect)
        notes.append(f"{path.name}: has no header and is read as AG News' own format: class from 1, title, description")
    names = OFFICIAL_NAMES if headerless else tuple(name.strip().strip("\ufeff") for name in first[1])

    def read(wanted: Sequence[int], on_note: Tell) -> Iterator[Row]:
        rows = _Rows(path, form, dialect, None if headerless else first[1])
        return pick_fields(wanted, rows.iter_rows(on_note))

    return Table(names, read, notes=tuple(notes))


def _refuse_unofficial(path: Path, form: TextForm, dialect: Dialect) -> None:
    with closed_after(_Rows(path, form, dialect).iter_rows()) as rows:
        doubt = find_doubt([row for _, row in islice(rows, NUM_DOUBTED)])
    if doubt:
        raise DataError(
            f"the file has no header, and is not AG News' own format (class, title, description) either: {doubt}",
            where=str(path),
            hint="Write the names of the columns into a first line, such as id,text,label.",
        )


class _Rows:
    """The rows of a file, and counts of what is left out of them.

    Args:
        path: The file.
        form: How its text is written.
        dialect: How its fields are kept apart.
        header: Its first row, which is left out then; None where the first row is one as the others.
    """

    def __init__(self, path: Path, form: TextForm, dialect: Dialect, header: Sequence[str] | None = None) -> None:
        self._path = path
        self._form = form
        self._dialect = dialect
        self._header = header
        self._width = len(header) if header is not None else 0
        self._swallowed = SwallowedRows(path, dialect.separator, lambda: _iter_plain(path, form, dialect))
        # Columns behind the last name are what a spreadsheet writes beside its table: empty, or a row torn apart.
        named = [position for position, name in enumerate(header or (), start=1) if name.strip()]
        self._num_named = max(named, default=self._width)
        self._num_blank = self._num_headers = self._num_extra = 0

    def iter_rows(self, on_note: Tell = ignore_note) -> Iterator[tuple[int, list[str]]]:
        """Yield the line and the fields of every row, and tell at the end what was left out."""
        # The limit belongs to the whole process; it is only ever raised, so other readers of CSV are not cut.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
        with closed_after(iter_lines(self._path, self._form)) as lines:
            yield from self._parse(islice(lines, self._dialect.num_skipped, None))
        for number, one, many in (
            (self._num_blank, "blank row is left out", "blank rows are left out"),
            (self._num_headers, "repeated header is left out", "repeated headers are left out"),
            (self._width - self._num_named, "empty column without a name is left out", "empty columns are left out"),
            (self._num_extra, "row has more separators than the header", "rows have more separators than the header"),
        ):
            if number and self._header is not None:
                on_note(f"{self._path.name}: {count_things(number, one, many)}")
        if self._header is not None and (doubt := self._swallowed.describe_doubt()):
            on_note(f"{self._path.name}: {doubt}")

    def _parse(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        dialect, path = self._dialect, self._path
        reader = csv.reader(lines, delimiter=dialect.separator, quoting=dialect.quoting, strict=True)
        is_limited = csv.field_size_limit() == MAX_FIELD_CHARS
        is_header_due, is_partly_named = self._header is not None, self._num_named < self._width
        before = dialect.num_skipped + 1
        first_name = self._header[0] if self._header is not None and self._width > 1 else None
        last = 0
        try:
            for row in reader:
                line, last, is_long = last + before, reader.line_num, reader.line_num > last + 1
                fields = row
                is_odd = not row or len(row) != self._width or not row[0] or row[0] == first_name or row[0].isspace()
                if is_odd or is_partly_named or is_header_due:
                    fields = self._fit(row, f"{path}:{line}", is_header=is_header_due)
                    if not fields:
                        is_header_due = is_header_due and not any(map(str.strip, row))
                        continue
                if not is_limited and max(map(len, fields)) > MAX_FIELD_CHARS:
                    raise field_too_long(f"{path}:{line}")
                if is_long:
                    self._swallowed.check(fields, f"{path}:{line}")
                yield line, fields
        except csv.Error as error:
            if "field larger" in str(error):
                raise field_too_long(f"{path}:{last + before}") from None
            raise DataError(
                f"broken quoting in the row that begins here: {error}",
                where=f"{path}:{last + before}",
                hint='Put fields with quotation marks in quotation marks, and write each inner one twice ("").',
            ) from None

    def _fit(self, row: list[str], where: str, *, is_header: bool) -> list[str]:
        """Return the fields of a row that is not as most are, or nothing where it is left out."""
        if not row or (len(row) > 1 and not any(map(str.strip, row))):
            self._num_blank += 1
            return []
        if row == self._header and (self._width > 1 or is_header):
            self._num_headers += not is_header
            return []
        self._width = self._width or len(row)
        if len(row) > self._width and not any(map(str.strip, row[self._width :])):
            self._num_extra += 1
            row = row[: self._width]
        if len(row) != self._width and not row[0].strip() and len(row) == 1:
            self._num_blank += 1
            return []
        if len(row) != self._width:
            raise DataError(
                f"the row has {count_things(len(row), 'field', 'fields')}, the rows before it {self._width}",
                where=where,
                hint="Put texts that hold the separator or line ends in quotation marks.",
            )
        if self._header is not None and any(map(str.strip, row[self._num_named :])):
            raise _unnamed_field(where, row, self._num_named)
        return row


def _unnamed_field(where: str, row: Sequence[str], num_named: int) -> DataError:
    position, value = next((n, v) for n, v in enumerate(row[num_named:], start=num_named + 1) if v.strip())
    return DataError(
        f"field {position} of the row holds {shorten(value)}, and column {position} has no name",
        where=where,
        hint="Give the column a name; or, if a text fell apart here, put it in quotation marks.",
    )


def _iter_plain(path: Path, form: TextForm, dialect: Dialect) -> Iterator[list[str]]:
    """Yield the rows that stand on one line, to compare others with them; what is damaged ends them."""
    with closed_after(iter_lines(path, form)) as lines:
        reader = csv.reader(
            islice(lines, dialect.num_skipped, None),
            delimiter=dialect.separator,
            quoting=dialect.quoting,
        )
        last = 0
        try:
            for row in reader:
                if reader.line_num == last + 1:
                    yield row
                last = reader.line_num
        except csv.Error:
            return
