"""Results of a run on one set of records: figures, per-record predictions, and the baseline beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from submillion.data.legibility import Legibility
from submillion.encoding.text_encoder import Features
from submillion.metrics import stats
from submillion.metrics.evaluate import compare_correct, evaluate_logits
from submillion.records import LabelSet, Record, labels_of
from submillion.run.folder import RunDir
from submillion.storage.files import write_atomically, write_json
from submillion.storage.json_shapes import JsonObject

NUM_TRAIN_SAMPLE = 1000
"""Training rows scored at the end of a run: enough for 1.5 points on either side of 94 %, in a second or two."""


def write_results(
    run: RunDir,
    split: str,
    records: Sequence[Record],
    logits: NDArray[np.float32],
    label_set: LabelSet,
    *,
    temperature: float,
    num_truncated: int,
    legibility: Legibility,
) -> JsonObject:
    """Evaluate scored records; write ``evaluation/<split>.json`` and the predictions; return the figures.

    Args:
        run: The run folder.
        split: Name of the set.
        records: Labelled records.
        logits: Shape (n, C), row i for record i.
        label_set: The classes.
        temperature: Fitted on validation.
        num_truncated: Number of records cut to the model's length.
        legibility: How much of their texts reached the model.
    """
    labels = labels_of(records)
    evaluation = evaluate_logits(
        logits,
        labels,
        label_set,
        temperature=temperature,
        num_truncated=num_truncated,
        legibility=legibility.to_json(),
        seed=0,
    )
    probabilities = stats.softmax(logits, temperature)
    digest = _write_predictions(run, split, records, label_set, probabilities=probabilities)
    figures = {"split": split, **evaluation.to_json(), "predictions_sha256": digest}
    write_json(run.evaluation(split), figures)
    return figures


def choose_train_sample(features: Sequence[Features], *, seed: int) -> list[Features]:
    """Return the training rows that are scored at the end, `NUM_TRAIN_SAMPLE` or all where there are no more.

    Args:
        features: Training rows of the run's own data; synthetic ones say nothing of how well its data is known.
        seed: Seed for the choice.
    """
    if len(features) <= NUM_TRAIN_SAMPLE:
        return list(features)
    chosen = np.random.default_rng(seed).choice(len(features), NUM_TRAIN_SAMPLE, replace=False)
    return [features[place] for place in np.sort(chosen)]


def write_train_sample(
    run: RunDir, sample: Sequence[Features], logits: NDArray[np.float32], *, num_train: int, seed: int
) -> JsonObject:
    """Write ``evaluation/train.sample.json``: how well rows are known that were trained on; return the figures.

    It does not measure quality. It is shown beside the validation figure, so that neither is taken for the other.

    Args:
        run: The run folder.
        sample: Rows from `choose_train_sample`.
        logits: Shape (n, C), row i for record i.
        num_train: Rows that the sample was chosen from.
        seed: Seed for the choice.
    """
    labels = np.array([item.label for item in sample], dtype=np.int64)
    right = logits.argmax(axis=1) == labels
    figures = {
        "split": "train",
        "num_records": len(sample),
        "num_train": num_train,
        "seed": seed,
        "accuracy": float(right.mean()),
        "accuracy_interval": list(stats.wilson_interval(int(right.sum()), len(right))),
        "loss": stats.measure_log_loss(stats.log_softmax(logits), labels),
    }
    write_json(run.evaluation("train.sample"), figures)
    return figures


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
    columns: JsonObject = {
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
) -> JsonObject:
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
