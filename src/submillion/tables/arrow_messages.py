"""Walk the messages of an Arrow stream and check their declared sizes before anything is unpacked.

Arrow allocates as much as a message declares: compressed buffers grow a thousandfold, and columns without values can
declare any number of rows. The metadata of a message is a flatbuffer. Only the few fields with the size of its content
are read here (format: https://arrow.apache.org/docs/format/Columnar.html, Message.fbs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

_CONTINUATION = b"\xff\xff\xff\xff"
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_MAX_METADATA_BYTES = 64 << 20
_LENGTH = struct.Struct("<q")


@dataclass(frozen=True)
class Promise:
    """The sizes that one message declares.

    Attributes:
        is_batch: Whether the message holds rows; otherwise it holds values of a dictionary.
        num_rows: Number of rows or values.
        num_bytes: Bytes of its buffers after decompression.
    """

    is_batch: bool
    num_rows: int
    num_bytes: int


def iter_promises(file: IO[bytes], size: int) -> Iterator[Promise]:
    """Yield the declared sizes of each message with content, up to the end of the stream.

    Args:
        file: File opened for reading, at the beginning of a stream.
        size: Size of the file in bytes.

    Raises:
        ValueError: The stream is damaged, or ends without its end mark.
    """
    while True:
        prefix = file.read(4)
        # Arrow before 0.15 wrote no mark in front of the length.
        length = int.from_bytes(file.read(4) if prefix == _CONTINUATION else prefix, "little")
        if len(prefix) < 4:
            raise ValueError("it ends in the middle: its end mark is missing")
        if length == 0:
            return
        if length > min(_MAX_METADATA_BYTES, size):
            raise ValueError(f"a message has {length:,} bytes of metadata")
        metadata = file.read(length)
        try:
            message = _Fields(metadata, int.from_bytes(metadata[:4], "little"))
            body_bytes = message.read(3, "<q")
            body = file.tell()
            if not 0 <= body_bytes <= size - body:
                raise ValueError("it ends in the middle of a message")
            kind = message.read(1, "<B")
            if kind in {_DICTIONARY, _BATCH}:
                content = message.follow(2)
                batch = content.follow(1) if kind == _DICTIONARY else content
                yield _describe(batch, file, body, body_bytes, is_batch=kind == _BATCH)
            elif kind != _SCHEMA:
                raise ValueError(f"a message has the unknown kind {kind}")
        except struct.error as error:
            raise ValueError(f"damaged metadata: {error}") from None
        file.seek(body + body_bytes)


def _describe(batch: _Fields, file: IO[bytes], body: int, body_bytes: int, *, is_batch: bool) -> Promise:
    num_rows = batch.read(0, "<q")
    count, start = batch.find_vector(2)
    if count * 16 > len(batch.content):
        raise ValueError("it has more buffers than a message can name")
    is_compressed = batch.has(3)
    num_bytes = 0
    for number in range(count):
        offset, length = struct.unpack_from("<qq", batch.content, start + 16 * number)
        if not (offset >= 0 and length >= 0 and offset + length <= body_bytes):
            raise ValueError("a buffer lies outside of its message")
        if is_compressed and length >= _LENGTH.size:
            file.seek(body + offset)
            # A length of -1 means that this buffer is not compressed.
            (unpacked,) = _LENGTH.unpack(file.read(_LENGTH.size))
            length = length if unpacked == -1 else unpacked
        if num_rows < 0 or length < 0:
            raise ValueError("a length is negative")
        num_bytes += length
    return Promise(is_batch, num_rows, num_bytes)


@dataclass(frozen=True)
class _Fields:
    """A table of a flatbuffer that begins at `place` in `content`."""

    content: bytes
    place: int

    def _find(self, field: int) -> int:
        table = self.place - struct.unpack_from("<i", self.content, self.place)[0]
        if table < 0:
            raise ValueError("damaged metadata")
        (size,) = struct.unpack_from("<H", self.content, table)
        entry = 4 + 2 * field
        offset: int = struct.unpack_from("<H", self.content, table + entry)[0] if entry + 2 <= size else 0
        return self.place + offset if offset else 0

    def has(self, field: int) -> bool:
        """Return whether a field exists."""
        return self._find(field) != 0

    def read(self, field: int, format: str) -> int:
        """Return a number; 0 if it is absent."""
        place = self._find(field)
        return int(struct.unpack_from(format, self.content, place)[0]) if place else 0

    def follow(self, field: int) -> _Fields:
        """Return the table that a field points to."""
        place = self._find(field)
        if not place:
            raise ValueError("damaged metadata: a part is missing")
        return _Fields(self.content, place + struct.unpack_from("<I", self.content, place)[0])

    def find_vector(self, field: int) -> tuple[int, int]:
        """Return the length of a vector and the place of its first element."""
        place = self._find(field)
        if not place:
            return 0, 0
        start = place + struct.unpack_from("<I", self.content, place)[0]
        return struct.unpack_from("<I", self.content, start)[0], start + 4
