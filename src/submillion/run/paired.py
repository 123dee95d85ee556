"""Runs that are paired by seed and have scored the same records: what each got right, and how two kinds differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from submillion.errors import RunError
from submillion.metrics import stats
from submillion.run.predictions import read_predictions


def read_outcomes(runs: Sequence[Path], split: str) -> NDArray[np.bool_]:
    """Return whether each run was right on each record of a split, shape (runs, n).

    Args:
        runs: Run folders.
        split: Split or name of a watched set.

    Raises:
        RunError: A run has no predictions of the split, or of other records.
    """
    rows, ids = [], None
    for run in runs:
        predictions = read_predictions(run, split)
        if predictions is None or (ids is not None and predictions.ids != ids):
            raise RunError(f"has not scored the {split} records that the other runs have", where=str(run))
        ids = predictions.ids
        rows.append(predictions.right)
    return np.stack(rows)


def compare_outcomes(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, object]:
    """Compare two kinds of runs that are paired by seed.

    A record scored by three runs is one record and not three: the test is of each record's difference of right
    answers over all seeds (`stats.find_flip_p`; with one seed it is McNemar's). Its p value is about these trained
    models and all records like these; the interval is wider, since it is about other seeds as well
    (`stats.bootstrap_runs`).

    Args:
        first: Whether each run of the first kind was right on each record, shape (S, n).
        second: Those of the second kind, shape (S, n).

    Returns:
        ``difference`` of the mean accuracies, first minus second, its 95 % ``interval``, ``p`` and ``num_records``.
    """
    differences = first.sum(axis=0).astype(np.int64) - second.sum(axis=0).astype(np.int64)
    return {
        "difference": float(first.mean() - second.mean()),
        "interval": list(stats.bootstrap_runs(first, second, seed=0)),
        "p": stats.find_flip_p(differences),
        "num_records": first.shape[1],
    }
