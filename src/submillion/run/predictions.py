"""The predictions that a run keeps of every set it has scored: one Parquet file a set, read whole and checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import parquet

from submillion.errors import RunError
from submillion.run.folder import RunDir
from submillion.storage.files import read_plain

MAX_PREDICTIONS_BYTES = 4 << 30
MAX_PREDICTIONS = 20_000_000

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Per-record outcomes of one split, in the order of its rows.

    Attributes:
        ids: Record ids, n of them.
        labels: True label ids, shape (n,).
        predicted: Predicted label ids, shape (n,).
        confidence: Probability of the prediction, shape (n,).
        probabilities: Probability of every class, shape (n, C).
        texts: Texts as the model read them.
        sources: Place of each row, as ``file:line``.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: FloatArray
    probabilities: FloatArray
    texts: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, shape (n,)."""
        return np.asarray(self.labels == self.predicted)


def read_predictions(path: Path, split: str) -> Predictions | None:
    """Read the per-record predictions of one split, or None where the run has none.

    Args:
        path: The run folder.
        split: Split or watched set.

    Raises:
        RunError: The file is damaged or lacks a column.
    """
    file = RunDir(path).predictions(split)
    if not os.path.lexists(file):
        return None
    try:
        content = _read_table(file)
        probabilities = sorted(
            (name for name in content.column_names if name.startswith("probability_")), key=lambda n: int(n[12:])
        )
        scores = np.stack([content[name].to_numpy().astype(np.float64) for name in probabilities], axis=1)
        labels, predicted = (content[name].to_numpy().astype(np.int64) for name in ("label_id", "predicted_id"))
        for name, values in (("label_id", labels), ("predicted_id", predicted)):
            if len(values) and not 0 <= values.min() <= values.max() < scores.shape[1]:
                raise ValueError(f"{name} holds ids outside of its {scores.shape[1]} classes")
        if not ((scores >= 0) & (scores <= 1 + 1e-6)).all():
            raise ValueError("probabilities are not all between 0 and 1")
        ids, texts, sources = (tuple(content[name].to_pylist()) for name in ("id", "text", "source"))
        if not all(isinstance(text, str) for text in (*ids, *texts, *sources)):
            raise ValueError("id, text or source holds something else than text")
    except (KeyError, ValueError, IndexError, OSError, TypeError, OverflowError, pyarrow.ArrowException) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"is damaged: {error}", where=str(file), hint="Evaluate the run again to rewrite it.") from None
    return Predictions(
        ids=ids,
        labels=labels,
        predicted=predicted,
        confidence=scores[np.arange(len(predicted)), predicted],
        probabilities=scores,
        texts=texts,
        sources=sources,
    )


def _read_table(file: Path) -> pyarrow.Table:
    content = parquet.ParquetFile(pyarrow.BufferReader(read_plain(file, MAX_PREDICTIONS_BYTES)))
    size = sum(content.metadata.row_group(number).total_byte_size for number in range(content.num_row_groups))
    if size > MAX_PREDICTIONS_BYTES or content.metadata.num_rows > MAX_PREDICTIONS:
        raise ValueError(f"{content.metadata.num_rows:,} rows of {size:,} bytes are more than a report takes")
    table = content.read()
    table.validate(full=True)
    return table


def read_scored_texts(run: RunDir, split: str) -> list[str]:
    """Return the texts of a split that was scored, in order, as the model read them.

    Args:
        run: The run folder.
        split: Name of the set.

    Raises:
        RunError: The split has not been scored, or the file is damaged.
    """
    path = run.predictions(split)
    hint = f"Continue the run to its end: submillion train --resume {run.path}"
    if not path.exists():
        raise RunError(f"has no scored {split} rows to compare the export on", where=str(path), hint=hint)
    try:
        texts: list[str] = _read_table(path).column("text").to_pylist()
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError("its column text holds no texts")
    except (pyarrow.ArrowException, KeyError, OSError, ValueError) as error:
        raise RunError(f"is damaged: {str(error).splitlines()[0][:200]}", where=str(path), hint=hint) from None
    return texts
