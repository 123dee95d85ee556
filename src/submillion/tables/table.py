"""What every reader of rows gives: the names of the columns, and the rows as a stream."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from submillion.errors import DataError

MAX_FIELD_CHARS = 1 << 20
"""Longest field that is accepted, in characters: some 200,000 words, far beyond any news item."""

Row = tuple[int, Sequence[object]]

Tell = Callable[[str], None]
"""Takes one sentence on what was guessed or left out in reading."""


def ignore_note(note: str) -> None:
    """Take a note and say nothing."""


@dataclass(frozen=True)
class Table:
    """One file of rows.

    Attributes:
        names: Column names in file order; the name of a column that has none is empty.
        read: Reads the rows; see `iter_rows`.
        place: What a place counts: ``line`` or ``row``.
        class_names: Class names in label order, by column, where the file carries them.
        strings: Positions of the columns that can hold texts; None where every column can.
        has_names: Whether the file itself names its columns; a file of lines does not.
        notes: What was guessed in opening the file, one sentence each.
    """

    names: tuple[str, ...]
    read: Callable[[Sequence[int], Tell], Iterator[Row]]
    place: str = "line"
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strings: tuple[int, ...] | None = None
    has_names: bool = True
    notes: tuple[str, ...] = ()

    def iter_rows(self, wanted: Sequence[int], on_note: Tell = ignore_note) -> Iterator[Row]:
        """Yield (place, values of the wanted columns) of every row, from the first one on at every call.

        Args:
            wanted: Positions of the wanted columns.
            on_note: Called at the end with what was left out, as one sentence each.
        """
        return self.read(wanted, on_note)


_T = TypeVar("_T")


@contextmanager
def closed_after(rows: Iterator[_T]) -> Iterator[Iterator[_T]]:
    """Close a generator of rows when the block ends, so that an error inside does not leave its file open."""
    try:
        yield rows
    finally:
        if isinstance(rows, Generator):
            rows.close()


def pick_fields(wanted: Sequence[int], rows: Iterator[Row]) -> Iterator[Row]:
    """Yield every row with the wanted fields alone."""
    with closed_after(rows):
        for place, values in rows:
            yield place, [values[position] for position in wanted]


def count_things(number: int, one: str, many: str) -> str:
    """Return a number with its noun, such as ``1 row`` and ``2 rows``."""
    return f"{number:,} {one if number == 1 else many}"


def shorten(value: object, size: int = 60) -> str:
    """Return a value as it is shown in messages: in quotation marks, and cut where it is long."""
    text = str(value)
    return repr(text if len(text) <= size else f"{text[: size - 1]}\N{HORIZONTAL ELLIPSIS}")


def field_too_long(where: str) -> DataError:
    """Return the error for a field beyond `MAX_FIELD_CHARS`."""
    return DataError(
        f"a field is longer than {MAX_FIELD_CHARS:,} characters",
        where=where,
        hint="Look for a quotation mark that is never closed, or shorten the text.",
    )
