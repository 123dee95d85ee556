"""Figures of a scored split: accuracy and F1 with intervals, calibration, and paired comparisons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion.errors import DataError, ModelError
from submillion.metrics import stats
from submillion.metrics.stats import Interval, ReliabilityBin
from submillion.records import LabelSet
from submillion.storage.json_shapes import JsonObject, JsonView

TEMPERATURE_RANGE = (0.05, 20.0)  # beyond it the fit only says "certain" or "knows nothing"
COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True, slots=True)
class ClassResult:
    """Figures of one class; `num_records` counts its true rows. Intervals are Wilson's, 95 %."""

    label: str
    label_id: int
    precision: float
    recall: float
    f1: float
    num_records: int
    recall_interval: Interval | None


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """Accuracy if only the most confident share of the rows is answered.

    Attributes:
        coverage: Share of rows answered, 0..1.
        threshold: Smallest confidence among the answered rows.
        accuracy: Share of right predictions among the answered rows.
    """

    coverage: float
    threshold: float
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """All figures of one scored split; every interval is a 95 % one.

    Attributes:
        num_records: Number of rows scored.
        num_truncated: Number of rows whose text was cut to the model's length.
        accuracy: Share of right predictions, with Wilson's interval.
        macro_f1: Unweighted mean over the classes that occur in labels or predictions, with a bootstrap interval.
        per_class: Figures of each class, in label order.
        confusion: Counts, shape (C, C); rows are true classes.
        loss: Mean negative log probability in nats, before temperature, as in the training log.
        loss_calibrated: The same after temperature.
        temperature: Divisor of the logits; 1 leaves them unchanged.
        ece: Expected calibration error after temperature, 15 bins of equal mass.
        ece_raw: The same before temperature.
        brier: Brier score (0..2) after temperature.
        reliability: Bins from which `ece` is computed.
        reliability_raw: Bins from which `ece_raw` is computed.
        coverage: Accuracy of the most confident shares of the rows.
        legibility: Share of the texts that reached the model, from `Legibility.to_json`; None if not known.
    """

    num_records: int
    num_truncated: int
    accuracy: float
    accuracy_interval: Interval
    macro_precision: float
    macro_recall: float
    macro_f1: float
    macro_f1_interval: Interval
    per_class: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    loss: float
    loss_calibrated: float
    temperature: float
    ece: float
    ece_raw: float
    brier: float
    reliability: tuple[ReliabilityBin, ...]
    reliability_raw: tuple[ReliabilityBin, ...]
    coverage: tuple[CoveragePoint, ...]
    legibility: JsonView | None = None

    def to_json(self) -> JsonObject:
        """Return plain lists and numbers under the names of the attributes."""
        return {key: _to_plain(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired comparison of two classifiers on the same rows.

    Attributes:
        difference: Accuracy of the first minus that of the second.
        interval: 95 % paired bootstrap interval of the difference.
        mcnemar_p: Two-sided exact p value of no difference.
        only_first_right: Number of rows that only the first got right.
        only_second_right: Number of rows that only the second got right.
        num_records: Number of rows compared.
    """

    difference: float
    interval: Interval
    mcnemar_p: float
    only_first_right: int
    only_second_right: int
    num_records: int

    def to_json(self) -> JsonObject:
        """Return plain lists and numbers under the names of the attributes."""
        return {key: _to_plain(value) for key, value in asdict(self).items()}


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    return [_to_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _check_scores(logits: NDArray[np.floating], labels: NDArray[np.integer], num_labels: int) -> None:
    if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] != num_labels:
        raise DataError(f"logits of shape {logits.shape} do not fit {len(labels)} labels of {num_labels} classes")
    if len(labels) == 0:
        raise DataError("no records to evaluate", hint="Check that the split has rows.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_labels:
        raise DataError(f"label {low if low < 0 else high} is outside 0..{num_labels - 1}")
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise ModelError(
            f"{len(broken)} of {len(logits)} rows have logits that are not finite, the first is row {broken[0]}",
            hint="Run again with model.precision=fp32; if that does not help, the adapter is damaged.",
        )


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the temperature that minimises the log loss of held-out rows.

    The targets are one-hot except for a share of 1/(n + 2), which goes to the other classes. Otherwise rows that are
    all right would require a temperature of zero, which means certainty. The loss is convex in 1/temperature, so
    bisection on the sign of its slope, over the logarithm of the temperature, finds the one minimum within
    ``TEMPERATURE_RANGE``. Sources: C. Guo et al., "On calibration of modern neural networks", ICML 2017, section
    4.2, and for the targets J. Platt, "Probabilistic outputs for support vector machines", 1999, section 2.2.

    Args:
        logits: Logits, shape (n, C).
        labels: True label ids, shape (n,).

    Raises:
        DataError: There are no rows, or shapes and ids do not fit.
        ModelError: Some logits are not finite.
    """
    _check_scores(logits, labels, logits.shape[1] if logits.ndim == 2 else 0)
    scores = logits.astype(np.float64)
    if np.ptp(scores, axis=1).max() == 0:
        return 1.0  # equal logits stay equal at any temperature
    true = scores[np.arange(len(labels)), labels]
    doubt = 1.0 / (len(labels) + 2)
    others = (scores.sum(axis=1) - true) / (scores.shape[1] - 1)
    target = ((1.0 - doubt) * true + doubt * others).mean()
    low, high = np.log(TEMPERATURE_RANGE)
    for _ in range(60):
        middle = (low + high) / 2
        expected = (stats.softmax(scores, float(np.exp(middle))) * scores).sum(axis=1).mean()
        # expected - target is the slope in 1/temperature; a positive slope needs a higher temperature.
        low, high = (middle, high) if expected > target else (low, middle)
    return float(np.exp((low + high) / 2))


def evaluate_logits(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    label_set: LabelSet,
    *,
    temperature: float = 1.0,
    num_truncated: int = 0,
    legibility: JsonView | None = None,
    seed: int = 0,
) -> Evaluation:
    """Return all figures of scored rows.

    Args:
        logits: Logits, shape (n, C).
        labels: True label ids, shape (n,).
        label_set: Set of the C classes.
        temperature: Temperature from `fit_temperature` on the validation split, never fitted on the rows given here.
        num_truncated: Number of rows cut to the model's length; reported, not computed.
        legibility: Share of the texts that reached the model, from `Legibility.to_json`; likewise.
        seed: Seed for the bootstrap.

    Raises:
        DataError: There are no rows, or shapes and ids do not fit.
        ModelError: Some logits are not finite.
    """
    _check_scores(logits, labels, len(label_set))
    predicted = logits.argmax(axis=1)
    right = predicted == labels
    confusion = stats.count_confusion(labels, predicted, len(label_set))
    classes = stats.count_classes(confusion)
    raw_logs, logs = stats.log_softmax(logits), stats.log_softmax(logits, temperature)
    probabilities = np.exp(logs)
    confidence = probabilities.max(axis=1)
    reliability = stats.bin_reliability(confidence, right)
    reliability_raw = stats.bin_reliability(np.exp(raw_logs.max(axis=1)), right)
    return Evaluation(
        num_records=len(labels),
        num_truncated=num_truncated,
        accuracy=float(right.mean()),
        accuracy_interval=stats.wilson_interval(int(right.sum()), len(right)),
        macro_precision=classes.average(classes.precision),
        macro_recall=classes.average(classes.recall),
        macro_f1=classes.average(classes.f1),
        macro_f1_interval=stats.bootstrap_macro_f1(confusion, seed=seed),
        per_class=tuple(_describe_classes(label_set, confusion, classes)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        loss=stats.measure_log_loss(raw_logs, labels),
        loss_calibrated=stats.measure_log_loss(logs, labels),
        temperature=temperature,
        ece=stats.measure_calibration_error(reliability),
        ece_raw=stats.measure_calibration_error(reliability_raw),
        brier=stats.measure_brier(probabilities, labels),
        reliability=reliability,
        reliability_raw=reliability_raw,
        coverage=_cover(confidence, right),
        legibility=legibility,
    )


def _describe_classes(
    label_set: LabelSet, confusion: NDArray[np.int64], classes: stats.ClassFigures
) -> Iterable[ClassResult]:
    for label_id, name in enumerate(label_set):
        count = int(classes.num_records[label_id])
        yield ClassResult(
            label=name,
            label_id=label_id,
            precision=float(classes.precision[label_id]),
            recall=float(classes.recall[label_id]),
            f1=float(classes.f1[label_id]),
            num_records=count,
            recall_interval=stats.wilson_interval(int(confusion[label_id, label_id]), count) if count else None,
        )


def _cover(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[CoveragePoint, ...]:
    ordered = np.sort(confidence)[::-1]
    points = []
    for coverage in COVERAGES:
        threshold = ordered[max(1, round(coverage * len(ordered))) - 1]
        answered = confidence >= threshold  # ties are answered together, so the order of the rows does not matter
        points.append(CoveragePoint(float(answered.mean()), float(threshold), float(right[answered].mean())))
    return tuple(points)


def compare_correct(first: NDArray[np.bool_], second: NDArray[np.bool_], *, seed: int = 0) -> Comparison:
    """Compare two classifiers by their right answers on the same rows.

    Args:
        first: Whether the first was right, shape (n,).
        second: Whether the second was right, shape (n,), with rows in the same order.
        seed: Seed for the bootstrap.

    Raises:
        DataError: There are no rows, or the numbers of rows differ.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise DataError(f"outcomes of shapes {first.shape} and {second.shape} are not of the same rows")
    if len(first) == 0:
        raise DataError("no records to compare", hint="Check that the split has rows.")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return Comparison(
        difference=(only_first - only_second) / len(first),
        interval=stats.bootstrap_difference(only_first, only_second, len(first), seed=seed),
        mcnemar_p=stats.find_mcnemar_p(only_first, only_second),
        only_first_right=only_first,
        only_second_right=only_second,
        num_records=len(first),
    )
