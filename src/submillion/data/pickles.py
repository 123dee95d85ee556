"""Load rows from pickles without running any code in them."""

from __future__ import annotations

from pathlib import Path

from submillion.data.arrow import BinaryTable
from submillion.errors import DataError


def open_pickle(path: Path) -> BinaryTable:
    """Open a pickle of rows.

    Raises:
        DataError: Always, for now.
    """
    raise DataError("pickles cannot be read yet", where=str(path), hint="Save the rows as CSV or parquet.")
