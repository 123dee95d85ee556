"""Digests of the rows that weights were trained on, which a run must not be judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from submillion.data.similar import fold_columns
from submillion.errors import RunError
from submillion.records import Record

_MAGIC = b"submillion rows\n"
_HEADER_BYTES = len(_MAGIC) + 16

Digests = NDArray[np.uint64]
NONE: Digests = np.empty(0, np.uint64)


@dataclass(frozen=True)
class TrainedRows:
    """Rows by the digests of their folded texts; rows that differ only in case or punctuation count as one.

    Attributes:
        inherited: Digests of the rows of the starting run, in ascending order.
        own: Digests of the rows of this run, likewise.
    """

    inherited: Digests
    own: Digests

    @property
    def all(self) -> Digests:
        """All digests, in ascending order."""
        return np.union1d(self.inherited, self.own)

    def to_bytes(self) -> bytes:
        """Return the content of a file: a header with two counts, then 8 bytes a digest."""
        counts = np.array([len(self.inherited), len(self.own)], "<u8")
        return b"".join(
            [_MAGIC, counts.tobytes(), *(part.astype("<u8").tobytes() for part in (self.inherited, self.own))]
        )

    @staticmethod
    def from_bytes(content: bytes, *, where: str) -> TrainedRows:
        """Read the content that `to_bytes` returned.

        Raises:
            RunError: The content is something else.
        """
        counts = np.frombuffer(content[len(_MAGIC) : _HEADER_BYTES].ljust(16, b"\0"), "<u8").tolist()
        if not content.startswith(_MAGIC) or len(content) != _HEADER_BYTES + 8 * sum(counts):
            raise RunError("is damaged: it is not a list of trained rows", where=where, hint="Restore the run folder.")
        values = np.frombuffer(content[_HEADER_BYTES:], "<u8").astype(np.uint64)
        return TrainedRows(values[: counts[0]], values[counts[0] :])


def digest_rows(records: Iterable[Record]) -> Digests:
    """Return the distinct digests of some rows, in ascending order; rows without any text have none."""
    found = {_digest(text) for record in records if (text := fold_columns(record.columns))}
    return np.array(sorted(found), np.uint64)


def find_rows(records: Sequence[Record], digests: Digests) -> NDArray[np.bool_]:
    """Return whether the digest of each row is among some, shape (n,)."""
    if not len(digests):
        return np.zeros(len(records), np.bool_)
    known = frozenset(digests.tolist())
    texts = [fold_columns(record.columns) for record in records]
    return np.array([bool(text) and _digest(text) in known for text in texts], np.bool_)


def _digest(text: str) -> int:
    # With eight bytes and a million rows, one in 18 million million other rows would be mistaken for one of them.
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
