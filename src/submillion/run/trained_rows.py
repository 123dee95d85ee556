"""The rows that a run was trained on, known by their digests."""

from __future__ import annotations

import os
from collections.abc import Sequence

from submillion.config.run import CleanConfig
from submillion.data.clean import clean_records
from submillion.data.trained_rows import NONE, TrainedRows, find_rows
from submillion.records import Record
from submillion.run.folder import RunDir
from submillion.storage.files import read_plain

MAX_ROWS_BYTES = 1 << 30
"""Largest list of trained rows that is read: that of 134 million rows."""


def count_trained_rows(run: RunDir, records: Sequence[Record], rules: CleanConfig) -> int | None:
    """Return how many records a run was trained on, equal but for case and punctuation; None where it does not say.

    Args:
        run: The run folder.
        records: Rows as they were read.
        rules: How the run cleans them.

    Raises:
        RunError: The run's list of rows is damaged.
    """
    if not os.path.lexists(run.trained_rows):
        return None
    return int(find_rows(list(clean_records(records, rules)), read_trained_rows(run).all).sum())


def describe_trained_rows(count: int | None, num_records: int, run: RunDir) -> str:
    """Return what has to be said of rows that a run was trained on; nothing where there are none."""
    if count is None:
        return f"{run.path} does not say which rows it was trained on: some of these may be among them"
    if not count:
        return ""
    return f"{run.path} was trained on {count:,} of these {num_records:,} rows: its figures on them are too good"


def read_trained_rows(run: RunDir) -> TrainedRows:
    """Read the digests of the rows that a run was trained on; none where the run does not say.

    Raises:
        RunError: The file is damaged.
    """
    if not os.path.lexists(run.trained_rows):
        return TrainedRows(NONE, NONE)
    return TrainedRows.from_bytes(read_plain(run.trained_rows, MAX_ROWS_BYTES), where=str(run.trained_rows))
