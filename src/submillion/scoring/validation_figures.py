"""Figures of one validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from submillion.config.run import CLASS_F1, TrainConfig
from submillion.encoding.text_encoder import Features
from submillion.errors import ConfigError
from submillion.metrics import stats
from submillion.model.encoder import Classifier
from submillion.records import LabelSet
from submillion.scoring.score import SCORE_TOKENS_FACTOR, score
from submillion.training.collective import ALONE, Processes


def measure(
    classifier: Classifier,
    features: Sequence[Features],
    config: TrainConfig,
    *,
    on_progress: Callable[[int], None],
    processes: Processes = ALONE,
    label_id: int | None = None,
) -> dict[str, float]:
    """Score labelled rows, return their figures for the log, and report the rows scored so far.

    The figures come from the raw logits, before any temperature. They include the F1 of the class `label_id` if the
    metric names that class.
    """
    max_tokens = SCORE_TOKENS_FACTOR * config.micro_batch_tokens
    logits = score(classifier, features, max_tokens=max_tokens, on_progress=on_progress, processes=processes)
    labels = np.array([item.label for item in features], dtype=np.int64)
    predicted = logits.argmax(axis=1)
    confusion = stats.count_confusion(labels, predicted, logits.shape[1])
    classes = stats.count_classes(confusion)
    probabilities = stats.softmax(logits)
    bins = stats.bin_reliability(probabilities.max(axis=1), predicted == labels)
    figures = {
        "loss": stats.measure_log_loss(stats.log_softmax(logits), labels),
        "brier_raw": stats.measure_brier(probabilities, labels),
        "ece_raw": stats.measure_calibration_error(bins),
        "accuracy": float((predicted == labels).mean()),
        "macro_precision": classes.average(classes.precision),
        "macro_recall": classes.average(classes.recall),
        "macro_f1": classes.average(classes.f1),
    }
    if label_id is not None:
        figures[config.metric] = float(classes.f1[label_id])
    return figures


def find_metric_class(metric: str, labels: LabelSet) -> int | None:
    """Return the label id of the class that a metric names, or None if it names none.

    Raises:
        ConfigError: There is no such class.
    """
    if not metric.startswith(CLASS_F1):
        return None
    name = metric.removeprefix(CLASS_F1)
    if name not in labels.names:
        raise ConfigError(
            f"there is no class {name!r}",
            where="train.metric",
            hint=f"The classes are {', '.join(map(repr, labels.names))}.",
        )
    return labels.names.index(name)
