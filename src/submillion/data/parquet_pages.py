"""Walk the page headers of parquet columns and hold what they promise against limits, before anything is decoded.

The decoder allocates what a page's header says: a header of twenty bytes asks for gigabytes. Headers are structs of
Thrift's compact protocol; only the few numbers that say how large a page becomes are read here (format:
https://github.com/apache/parquet-format, parquet.thrift).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

_UNPACKED, _PACKED = 2, 3
# Fields of a page header whose struct begins with the number of values: data page, dictionary page, data page 2.
_KINDS = (5, 7, 8)
_MAX_HEADER_BYTES = 16 << 20
_MAX_DEPTH = 16


@dataclass(frozen=True)
class Page:
    """What one page says of itself.

    Attributes:
        is_dictionary: Whether it holds the values that other pages refer to.
        num_values: Values in it.
        num_bytes: Bytes after decompression.
        num_packed: Bytes in the file.
    """

    is_dictionary: bool
    num_values: int
    num_bytes: int
    num_packed: int


def iter_pages(file: IO[bytes], start: int, num_bytes: int) -> Iterator[Page]:
    """Yield what the pages of one column of one row group say of themselves.

    Args:
        file: Opened for reading.
        start: Where the first page begins.
        num_bytes: Bytes of all pages with their headers, as the file's footer says.

    Raises:
        ValueError: A header is damaged.
    """
    place, end = start, start + num_bytes
    while place < end:
        file.seek(place)
        header = _read_struct(_Compact(file), 0)
        kind = next((kind for kind in _KINDS if isinstance(header.get(kind), dict)), None)
        unpacked, packed = header.get(_UNPACKED), header.get(_PACKED)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or unpacked < 0 or packed < 0:
            raise ValueError("a page without its size")
        if file.tell() + packed > end:
            raise ValueError("a page goes beyond its column")
        if kind is not None:
            num_values = header[kind].get(1)
            if not isinstance(num_values, int) or num_values < 0:
                raise ValueError("a page without the number of its values")
            yield Page(kind == 7, num_values, unpacked, packed)
        else:
            yield Page(False, 0, unpacked, packed)
        place = file.tell() + packed


def read_columns(footer: bytes) -> list[list[tuple[str, int, int]]]:
    """Return the columns of each row group of a footer: dotted path, start of the first page, bytes of all pages.

    The library's own objects for this end the process where the statistics of a column are damaged.

    Raises:
        ValueError: The footer is damaged.
    """
    groups = _read_struct(_Compact(io.BytesIO(footer), len(footer)), 0).get(4, [])
    # Columns of no rows have no pages, which writers say by place 0, where no page can be.
    return [[_locate(column[3]) for column in group[1] if group[3] or column[3][9]] for group in groups]


def _locate(column: dict[int, Any]) -> tuple[str, int, int]:
    path = b".".join(column[3]).decode()
    start, dictionary = column[9], column.get(11) or 0
    return path, dictionary if 0 < dictionary < start else start, column[7]


class _Compact:
    """Reads values of the compact protocol, and no more bytes than a header may have."""

    def __init__(self, file: IO[bytes], limit: int = _MAX_HEADER_BYTES) -> None:
        self._file = file
        self._left = limit

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        self._left -= count
        content = self._file.read(count) if self._left >= 0 else b""
        if len(content) < count:
            raise ValueError("a page header is cut off")
        return content

    def take_varint(self) -> int:
        """Return the next unsigned number of up to 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number in a page header has no end")

    def take_integer(self) -> int:
        """Return the next signed number."""
        value = self.take_varint()
        return (value >> 1) ^ -(value & 1)


def _read_struct(source: _Compact, depth: int) -> dict[int, Any]:
    fields: dict[int, Any] = {}
    number = 0
    while (head := source.take(1)[0]) & 0x0F:
        number = number + (head >> 4) if head >> 4 else source.take_integer()
        kind = head & 0x0F
        # Of a struct's fields, a truth value is its type.
        fields[number] = kind == 1 if kind in {1, 2} else _read_value(source, kind, depth)
    return fields


def _read_value(source: _Compact, kind: int, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("a page header is nested too deeply")
    if kind in {1, 2, 3}:
        return source.take(1)[0]
    if kind in {4, 5, 6}:
        return source.take_integer()
    if kind == 7:
        return source.take(8)
    if kind == 8:
        return source.take(source.take_varint())
    if kind in {9, 10}:
        head = source.take(1)[0]
        count = head >> 4 if head >> 4 < 15 else source.take_varint()
        return [_read_value(source, head & 0x0F, depth + 1) for _ in range(min(count, _MAX_HEADER_BYTES))]
    if kind == 12:
        return _read_struct(source, depth + 1)
    raise ValueError(f"a page header holds a value of unknown type {kind}")
