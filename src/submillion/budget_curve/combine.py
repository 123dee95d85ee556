"""What the runs of a curve say together: a mean and an interval a budget, and a paired test between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion import stats
from submillion.errors import RunError
from submillion.report.load import read_predictions


def read_outcomes(runs: Sequence[Path], split: str) -> NDArray[np.bool_]:
    """Return whether each run was right on each record of a split, shape (runs, n).

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


def describe_point(right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return mean accuracy over seeds, its 95 % interval, and what each seed had.

    The interval draws runs and records with replacement (`stats.bootstrap_runs`), so it is about other seeds and other
    records at once; a record that three runs have scored counts as one record. With one seed it is about records alone.

    Args:
        right: Whether each run was right on each record, shape (S, n).
    """
    interval = stats.bootstrap_runs(right, np.zeros_like(right), seed=0)
    return {
        "accuracy": float(right.mean()),
        "accuracy_interval": list(interval),
        "accuracies": [float(run.mean()) for run in right],
    }


def compare_neighbours(smaller: NDArray[np.bool_], larger: NDArray[np.bool_]) -> dict[str, Any]:
    """Compare two budgets whose runs are paired by seed and have scored the same records.

    The p value is of each record's difference in right answers over all seeds (`stats.find_flip_p`); with one seed it
    is McNemar's. The interval is wider, since it is about other seeds as well.

    Args:
        smaller: Outcomes at the smaller budget, shape (S, n).
        larger: Outcomes at the larger one, shape (S, n).

    Returns:
        ``difference`` (larger minus smaller), ``interval``, ``p``, ``num_records``.
    """
    differences = larger.sum(axis=0).astype(np.int64) - smaller.sum(axis=0).astype(np.int64)
    return {
        "difference": float(larger.mean() - smaller.mean()),
        "interval": list(stats.bootstrap_runs(larger, smaller, seed=0)),
        "p": stats.find_flip_p(differences),
        "num_records": larger.shape[1],
    }
