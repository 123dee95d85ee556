"""Results of a run on one set of records: figures, per-record predictions, and the baseline beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion import stats
from submillion.evaluate import compare_correct, evaluate_logits
from submillion.records import LabelSet, Record
from submillion.rundir import RunDir, write_atomically, write_json


def write_results(
    run: RunDir,
    split: str,
    records: Sequence[Record],
    logits: NDArray[np.float32],
    label_set: LabelSet,
    *,
    temperature: float,
    num_truncated: int,
) -> dict[str, Any]:
    """Evaluate scored records; write ``evaluation/<split>.json`` and the predictions; return the figures.

    Args:
        run: The run folder.
        split: Name of the set.
        records: Labelled records.
        logits: Shape (n, C), row i for record i.
        label_set: The classes.
        temperature: Fitted on validation.
        num_truncated: Records cut to the model's length.
    """
    labels = labels_of(records)
    evaluation = evaluate_logits(
        logits, labels, label_set, temperature=temperature, num_truncated=num_truncated, seed=0
    )
    probabilities = stats.softmax(logits, temperature)
    digest = _write_predictions(run, split, records, label_set, probabilities=probabilities)
    figures = {"split": split, **evaluation.to_json(), "predictions_sha256": digest}
    write_json(run.evaluation(split), figures)
    return figures


def labels_of(records: Sequence[Record]) -> NDArray[np.int64]:
    """Return the label ids of labelled records, shape (n,)."""
    return np.array([record.label for record in records], dtype=np.int64)


def hash_records(records: Sequence[Record]) -> str:
    """Return a SHA-256 of cleaned texts and labels, by which the run knows its own test rows again."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.label}\x00{record.text}\x00".encode())
    return digest.hexdigest()


def _write_predictions(
    run: RunDir,
    split: str,
    records: Sequence[Record],
    label_set: LabelSet,
    *,
    probabilities: NDArray[np.float64],
) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = labels_of(records)
    predicted = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        "id": [record.id for record in records],
        "label": [label_set.names[label] for label in labels],
        "label_id": labels,
        "predicted_id": predicted,
        "predicted": [label_set.names[label] for label in predicted],
    }
    for index in range(len(label_set)):
        columns[f"probability_{index}"] = probabilities[:, index]
    columns["text"] = [record.text for record in records]
    columns["source"] = [record.source for record in records]
    table = pa.table(columns)
    write_atomically(run.predictions(split), lambda file: pq.write_table(table, file, compression="zstd"))
    return hashlib.sha256(run.predictions(split).read_bytes()).hexdigest()


def write_baseline_results(
    run: RunDir,
    split: str,
    records: Sequence[Record],
    label_set: LabelSet,
    *,
    model: NDArray[np.int64],
    baseline: NDArray[np.int64],
) -> dict[str, Any]:
    """Write ``evaluation/<split>.baseline.json``: the baseline's figures and the paired comparison with the model.

    Args:
        run: The run folder.
        split: Name of the set.
        records: Labelled records.
        label_set: The classes.
        model: The model's predicted label ids, shape (n,).
        baseline: The baseline's, likewise.
    """
    labels = labels_of(records)
    right = baseline == labels
    confusion = stats.count_confusion(labels, baseline, len(label_set))
    classes = stats.count_classes(confusion)
    figures = {
        "split": split,
        "num_records": len(records),
        "accuracy": float(right.mean()),
        "accuracy_interval": list(stats.wilson_interval(int(right.sum()), len(right))),
        "macro_f1": classes.average(classes.f1),
        "macro_f1_interval": list(stats.bootstrap_macro_f1(confusion, seed=0)),
        "confusion": confusion.tolist(),
        "comparison": compare_correct(model == labels, right).to_json(),
    }
    write_json(run.evaluation(f"{split}.baseline"), figures)
    return figures
