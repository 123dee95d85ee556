"""Decide which columns of a table are the texts, the label and the id, and turn its rows into records."""

from __future__ import annotations

import difflib
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from submillion.data.formats import MAX_FIELD_CHARS, Table, closed_after
from submillion.errors import DataError
from submillion.records import Record

# Tried in order, compared without case; the first that is there in full is taken.
TEXT_CHOICES: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("title", "description"),
    ("headline", "description"),
    ("title", "content"),
    ("headline", "short_description"),
    ("sentence",),
    ("content",),
    ("description",),
    ("headline",),
    ("title",),
    ("review",),
    ("body",),
    ("document",),
    ("question",),
)
LABEL_CHOICES = ("label", "labels", "class", "category", "class_index", "class index", "label_id", "target", "topic")
ID_CHOICES = ("id", "idx")

ONE_BASED = {"class_index", "class index"}
"""Label columns, by name, whose integers count from 1: the official AG News files and their copies with a header."""


@dataclass(frozen=True)
class Columns:
    """Which columns to read; what is left out is found by name.

    Attributes:
        text: Text columns in reading order.
        label: The label column.
        id: The id column.
    """

    text: tuple[str, ...] = ()
    label: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Selection:
    """Columns that were found in one table, by their names there; positions follow from the names."""

    text: tuple[str, ...]
    label: str | None
    id: str | None

    @property
    def is_one_based(self) -> bool:
        """Whether integer labels count from 1."""
        return self.label is not None and self.label.lower() in ONE_BASED


def select_columns(table: Table, columns: Columns, path: Path) -> Selection:
    """Find the wanted columns in a table.

    Raises:
        DataError: A column that was asked for is not there, a name stands twice, or no text column is found.
    """
    repeated = sorted({name for name in table.names if table.names.count(name) > 1})
    if repeated:
        raise DataError(
            f"column names stand twice: {', '.join(map(repr, repeated))}",
            where=f"{path}:1",
            hint="Give every column a name of its own.",
        )
    text = tuple(_find_given(name, table, path, "text") for name in columns.text) or _find_text(table, path)
    label = _find_given(columns.label, table, path, "label") if columns.label else _find_any(LABEL_CHOICES, table, text)
    record_id = _find_given(columns.id, table, path, "id") if columns.id else _find_any(ID_CHOICES, table, text)
    return Selection(text, label, record_id)


def describe_selection(selection: Selection, table: Table) -> str:
    """Return which columns are read as what, and which are not read."""
    parts = [f"text from {' + '.join(map(repr, selection.text))}"]
    if selection.label is not None:
        parts.append(f"label from {selection.label!r}")
    parts.append(f"id from {selection.id!r}" if selection.id is not None else "ids are row numbers")
    rest = [name for name in table.names if name not in {*selection.text, selection.label, selection.id}]
    shown = ", ".join(map(repr, rest[:8])) + (f" and {len(rest) - 8:,} more" if len(rest) > 8 else "")
    return ", ".join(parts) + (f"; not read: {shown}" if rest else "")


def _find_given(name: str, table: Table, path: Path, role: str) -> str:
    if name in table.names:
        return name
    by_lower = {present.lower(): present for present in table.names}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    suggestion = f"Did you mean {by_lower[close[0]]!r}? " if close else ""
    raise DataError(
        f"there is no column {name!r}; the file has {_list_names(table)}",
        where=str(path),
        hint=f"{suggestion}Choose the {role} column with --{role}.",
    )


def _find_text(table: Table, path: Path) -> tuple[str, ...]:
    by_lower = {present.lower(): present for present in table.names}
    for choice in TEXT_CHOICES:
        if all(name in by_lower for name in choice):
            return tuple(by_lower[name] for name in choice)
    raise DataError(
        f"found no text column; the file has {_list_names(table)}",
        where=str(path),
        hint="Choose it with --text NAME. A file without a header is read only in the official format: "
        "class 1..C, title, description.",
    )


def _find_any(choices: Sequence[str], table: Table, taken: Sequence[str]) -> str | None:
    by_lower = {present.lower(): present for present in table.names if present not in taken}
    return next((by_lower[choice] for choice in choices if choice in by_lower), None)


def _list_names(table: Table) -> str:
    return ", ".join(repr(name) for name in table.names[:30])


def iter_labelled(
    path: Path, table: Table, selection: Selection, *, first_row: int = 0
) -> Iterator[tuple[Record, object]]:
    """Yield every row as a record without label, together with its raw label (None where there is no column).

    Args:
        path: The file, for places.
        table: The opened file.
        selection: Its columns.
        first_row: Number of the file's first row, where a split has several files.

    Raises:
        DataError: A value that is no text, an empty or repeated id.
    """
    wanted = [*selection.text, *(name for name in (selection.label, selection.id) if name is not None)]
    num_text = len(selection.text)
    name = path.name
    seen = _SeenIds()
    with closed_after(table.iter_rows([table.names.index(name) for name in wanted])) as rows:
        for number, (place, values) in enumerate(rows, start=first_row):
            source = f"{name}:{place}"
            # Nearly all values are short ASCII strings, for which nothing remains to be done.
            texts = tuple(
                [
                    value
                    if type(value) is str and value.isascii() and len(value) <= MAX_FIELD_CHARS
                    else _to_text(value, source)
                    for value in values[:num_text]
                ]
            )
            record_id = str(number)
            if selection.id is not None:
                record_id = _to_text(values[-1], source).strip()
                is_new = seen.add(record_id) or not _stands_earlier(path, table, selection, record_id, place)
                if not record_id or not is_new:
                    problem = f"the id {record_id!r} stands in an earlier row too" if record_id else "the id is empty"
                    raise DataError(
                        problem,
                        where=f"{path}:{place}",
                        hint=f"Ids in column {selection.id!r} must be unique; rename the column to use row numbers.",
                    )
            raw = values[num_text] if selection.label is not None else None
            if raw is not None and not isinstance(raw, (str, int, float)):
                raise DataError(
                    f"the label is a value of type {type(raw).__name__}, neither a name nor a number",
                    where=f"{path}:{place}",
                    hint="Choose the label column with --label.",
                )
            yield Record(record_id, texts, None, source), raw


def _stands_earlier(path: Path, table: Table, selection: Selection, record_id: str, place: int) -> bool:
    """Read the file again up to a place, and return whether a row before it has an id."""
    assert selection.id is not None
    with closed_after(table.iter_rows([table.names.index(selection.id)])) as rows:
        for earlier, (value,) in rows:
            if earlier >= place:
                break
            if _to_text(value, f"{path.name}:{earlier}").strip() == record_id:
                return True
    return False


class _SeenIds:
    """Remembers ids by 64 bits of their hash, 16 to 32 bytes each: a set of a million strings takes 100 MB.

    A table of open addressing with linear probing; 0 stands for a free place.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 1024))
        self._num_ids = 0

    def add(self, record_id: str) -> bool:
        """Remember an id; return False where it, or one with the same hash, was there before."""
        code = (hash(record_id) & 0xFFFF_FFFF_FFFF_FFFF) or 1
        table = self._table
        mask = len(table) - 1
        place = code & mask
        while table[place]:
            if table[place] == code:
                return False
            place = (place + 1) & mask
        table[place] = code
        self._num_ids += 1
        if 2 * self._num_ids > len(table):
            self._grow()
        return True

    def _grow(self) -> None:
        codes = [code for code in self._table if code]
        self._table = table = array("Q", bytes(16 * len(self._table)))
        mask = len(table) - 1
        for code in codes:
            place = code & mask
            while table[place]:
                place = (place + 1) & mask
            table[place] = code


def _to_text(value: object, source: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        if isinstance(value, (int, float)):
            return "" if isinstance(value, float) and math.isnan(value) else str(value)
        raise DataError(
            f"expected text, found a value of type {type(value).__name__}",
            where=source,
            hint="Choose the text columns with --text.",
        )
    if len(value) > MAX_FIELD_CHARS:
        raise DataError(f"a field is longer than {MAX_FIELD_CHARS:,} characters", where=source, hint="Shorten it.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"the text holds half a character (surrogate {value[error.start]!r})",
                where=source,
                hint="The file was written from damaged text; remove the character.",
            ) from None
    return value
