"""What the runs of a budget say together: a mean and an interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from submillion.metrics import stats


def describe_point(right: NDArray[np.bool_]) -> dict[str, object]:
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
