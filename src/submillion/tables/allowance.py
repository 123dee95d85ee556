"""The limits on unpacking a binary file: rows and texts in proportion to its bytes, with room for honest repetition."""

from __future__ import annotations

from pathlib import Path

from submillion.errors import DataError

FREE_ROWS = 2 << 20
"""Number of rows that any file may have, since columns that repeat a few values take very few bytes."""

ROWS_PER_BYTE = 8
"""Most rows for each byte of a larger file: a label of two classes takes one bit a row."""

FREE_BYTES = 512 << 20
"""Bytes of texts that any file may unpack to."""

MAX_RATIO = 60
"""Largest ratio of texts to file size in a larger file. Prose compresses by 3 to 5, and machines' logs by 20."""

MAX_COLUMNS = 10_000


class Allowance:
    """Counts the unpacked rows and bytes of a file, and refuses it before it fills the memory.

    Args:
        path: Path of the file, for messages.
        size: Size of the file in bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._max_rows = max(FREE_ROWS, ROWS_PER_BYTE * size)
        self._max_bytes = max(FREE_BYTES, MAX_RATIO * size)
        self._size = size
        self.num_rows = 0
        self.num_bytes = 0

    def charge_rows(self, count: int) -> None:
        """Count rows that are about to be read.

        Raises:
            DataError: A file of this size may not have so many rows.
        """
        self.num_rows += count
        self.check_rows(self.num_rows)

    def check_rows(self, count: int) -> None:
        """Check a number of rows as `charge_rows` does, without counting them."""
        if count > self._max_rows:
            self._refuse(f"{count:,} rows in {self._size:,} bytes, more than the {self._max_rows:,} allowed")

    def charge_bytes(self, count: int) -> None:
        """Count bytes that are about to be unpacked.

        Raises:
            DataError: A file of this size may not unpack to so many bytes.
        """
        self.num_bytes += count
        if self.num_bytes > self._max_bytes:
            allowed = f"the {self._max_bytes >> 20:,} MiB allowed"
            self._refuse(f"{self._size:,} bytes that unpack to {self.num_bytes >> 20:,} MiB or more, beyond {allowed}")

    def _refuse(self, found: str) -> None:
        raise DataError(
            f"the file holds {found}: it would fill the memory",
            where=str(self._path),
            hint="If the file is intact, split it, or save its rows as CSV.",
        )


def check_num_columns(path: Path, count: int) -> None:
    """Refuse a file of more than `MAX_COLUMNS` columns.

    Raises:
        DataError: The file has more.
    """
    if count > MAX_COLUMNS:
        raise DataError(
            f"the file has {count:,} columns, more than {MAX_COLUMNS:,}",
            where=str(path),
            hint="Save only the columns of texts, labels and ids.",
        )
