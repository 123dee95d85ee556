"""The result of every reader of rows: the names of the columns, and the rows as a stream."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from submillion.errors import DataError

MAX_FIELD_CHARS = 1 << 20
"""Longest field that is accepted, in characters; it has about 200,000 words, far more than any news item."""

Row = tuple[int, Sequence[object]]

Tell = Callable[[str], None]
"""Function that takes one sentence on a guess or an omission in reading."""


def ignore_note(note: str) -> None:
    """Ignore a note."""


@dataclass(frozen=True)
class Table:
    """One file of rows.

    Attributes:
        names: Column names in file order; empty for a column without a name.
        read: Function that reads the rows; see `iter_rows`.
        place: Unit of the places, ``line`` or ``row``.
        class_names: Class names in label order, by column, if the file has them.
        strings: Positions of the columns that can hold texts; None if every column can.
        has_names: Whether the file itself names its columns; a file of lines does not.
        notes: Guesses in opening the file, one sentence each.
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
            on_note: Called at the end with one sentence on each omission.
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
    """Yield every row with only the wanted fields."""
    with closed_after(rows):
        for place, values in rows:
            yield place, [values[position] for position in wanted]


def count_things(number: int, one: str, many: str) -> str:
    """Return a number with its noun, such as ``1 row`` and ``2 rows``."""
    return f"{number:,} {one if number == 1 else many}"


def shorten(value: object, size: int = 60) -> str:
    """Return a value for messages, in quotation marks, and cut if it is long."""
    text = str(value)
    return repr(text if len(text) <= size else f"{text[: size - 1]}\N{HORIZONTAL ELLIPSIS}")


def field_too_long(where: str) -> DataError:
    """Return the error for a field beyond `MAX_FIELD_CHARS`."""
    return DataError(
        f"a field is longer than {MAX_FIELD_CHARS:,} characters",
        where=where,
        hint="Look for a quotation mark that is never closed, or shorten the text.",
    )
