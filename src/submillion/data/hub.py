"""Fetch a data set from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from submillion.errors import DataError


def fetch_dataset(name: str, revision: str | None) -> tuple[dict[str, Path], Mapping[str, tuple[str, ...]]]:
    """Fetch the data files of a hub data set.

    Returns:
        Local files by the names that sort them into splits, and class names by column.

    Raises:
        DataError: Always, for now.
    """
    raise DataError("hub data sets cannot be read yet", where=f"hf:{name}@{revision}", hint="Give a local path.")
