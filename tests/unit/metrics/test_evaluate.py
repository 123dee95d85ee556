from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from submillion.errors import DataError, ModelError
from submillion.metrics import stats
from submillion.metrics.evaluate import TEMPERATURE_RANGE, compare_correct, evaluate_logits, fit_temperature
from submillion.records import LabelSet

LABELS = LabelSet(("World", "Sports", "Business"))


def draw_scored_rows(temperature: float, count: int = 20_000) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits whose best temperature is known: labels are drawn from softmax(logits / temperature)."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (count, 3))
    cumulative = stats.softmax(logits, temperature).cumsum(axis=1)
    labels = (random.random((count, 1)) > cumulative[:, :2]).sum(axis=1)
    return logits, labels.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_fit_temperature_finds_the_one_that_made_the_labels(temperature: float) -> None:
    assert fit_temperature(*draw_scored_rows(temperature)) == pytest.approx(temperature, rel=0.05)


def test_fit_temperature_is_the_minimum_of_the_loss() -> None:
    logits, labels = draw_scored_rows(1.7, count=500)
    best = fit_temperature(logits, labels)

    doubt = 1 / (len(labels) + 2)
    num_labels = logits.shape[1]
    targets = np.full(logits.shape, doubt / (num_labels - 1))
    targets[np.arange(len(labels)), labels] = 1 - doubt

    def loss(temperature: float) -> float:
        return float(-(targets * stats.log_softmax(logits, temperature)).sum(axis=1).mean())

    assert loss(best) <= min(loss(best * 1.001), loss(best / 1.001))


def test_fit_temperature_stays_in_its_range() -> None:
    logits = np.eye(3) * 4
    assert fit_temperature(logits, np.array([1, 2, 0])) == pytest.approx(TEMPERATURE_RANGE[1])
    assert fit_temperature(np.zeros((4, 3)), np.zeros(4, dtype=int)) == 1.0


def test_rows_that_are_all_right_give_no_certainty() -> None:
    logits = np.tile(np.eye(3) * 4, (10, 1))
    temperature = fit_temperature(logits, np.tile(np.arange(3), 10))
    assert stats.softmax(logits, temperature).max() == pytest.approx(1 - 1 / 32, abs=1e-6)


def test_evaluation_has_the_keys_of_the_contract_and_is_json() -> None:
    logits, labels = draw_scored_rows(1.0, count=300)
    values = evaluate_logits(logits, labels, LABELS, num_truncated=7).to_json()
    assert values == json.loads(json.dumps(values, allow_nan=False))
    assert set(values) >= {
        *("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval", "per_class", "confusion"),
        *("ece", "ece_raw", "brier", "num_records", "num_truncated", "temperature", "loss"),
    }
    assert (values["num_records"], values["num_truncated"]) == (300, 7)
    assert np.sum(values["confusion"]) == 300
    assert np.trace(values["confusion"]) / 300 == values["accuracy"]
    assert values["accuracy_interval"][0] < values["accuracy"] < values["accuracy_interval"][1]
    assert [entry["label"] for entry in values["per_class"]] == list(LABELS)


def test_temperature_mends_calibration_and_leaves_the_predictions() -> None:
    logits, labels = draw_scored_rows(3.0)
    raw = evaluate_logits(logits, labels, LABELS)
    mended = evaluate_logits(logits, labels, LABELS, temperature=3.0)
    assert mended.ece < 0.02 < raw.ece == mended.ece_raw
    assert mended.confusion == raw.confusion
    assert mended.brier < raw.brier
    assert mended.loss == raw.loss
    assert mended.loss_calibrated < raw.loss_calibrated == raw.loss


def test_a_class_without_rows_has_no_interval_and_counts_in_no_average() -> None:
    logits = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [4.0, 0.0, 0.0]])
    evaluation = evaluate_logits(logits, np.array([0, 1, 0]), LABELS)
    assert evaluation.macro_f1 == 1.0
    assert evaluation.per_class[2].recall_interval is None
    assert evaluation.per_class[2].num_records == 0


def test_all_wrong_is_zero_everywhere() -> None:
    evaluation = evaluate_logits(np.array([[0.0, 5.0, 0.0]] * 4), np.zeros(4, dtype=int), LABELS)
    assert (evaluation.accuracy, evaluation.macro_f1, evaluation.accuracy_interval[0]) == (0.0, 0.0, 0.0)


def test_coverage_answers_the_most_confident_rows_first() -> None:
    logits = np.array([[5.0, 0, 0], [4.0, 0, 0], [0.2, 0, 0], [0.1, 0, 0]])
    points = evaluate_logits(logits, np.array([0, 0, 1, 1]), LABELS).coverage
    assert (points[0].coverage, points[0].accuracy) == (0.5, 1.0)
    assert (points[-1].coverage, points[-1].accuracy) == (1.0, 0.5)


def test_bad_scores_end_in_clear_errors() -> None:
    with pytest.raises(DataError, match="no records"):
        evaluate_logits(np.zeros((0, 3)), np.zeros(0, dtype=int), LABELS)
    with pytest.raises(DataError, match="do not fit"):
        evaluate_logits(np.zeros((2, 2)), np.zeros(2, dtype=int), LABELS)
    with pytest.raises(DataError, match=r"label 3 is outside 0\.\.2"):
        evaluate_logits(np.zeros((2, 3)), np.array([0, 3]), LABELS)
    broken = np.zeros((3, 3))
    broken[1, 2] = np.nan
    with pytest.raises(ModelError, match="the first is row 1"):
        evaluate_logits(broken, np.zeros(3, dtype=int), LABELS)
    with pytest.raises(ModelError, match="not finite"):
        fit_temperature(broken, np.zeros(3, dtype=int))


def test_comparison_counts_both_sides() -> None:
    first = np.array([True, True, True, False, False, True])
    second = np.array([True, False, False, True, False, False])
    comparison = compare_correct(first, second)
    assert (comparison.only_first_right, comparison.only_second_right, comparison.num_records) == (3, 1, 6)
    assert comparison.difference == pytest.approx(2 / 6)
    assert comparison.mcnemar_p == pytest.approx(2 * 5 / 16)
    assert comparison.interval[0] < comparison.difference < comparison.interval[1]
    assert list(comparison.to_json()) == [
        *("difference", "interval", "mcnemar_p", "only_first_right", "only_second_right", "num_records")
    ]
    turned = compare_correct(second, first)
    assert (turned.difference, turned.mcnemar_p) == (-comparison.difference, comparison.mcnemar_p)


def test_comparison_refuses_other_rows_and_none() -> None:
    with pytest.raises(DataError, match="not of the same rows"):
        compare_correct(np.ones(3, dtype=bool), np.ones(4, dtype=bool))
    with pytest.raises(DataError, match="no records"):
        compare_correct(np.ones(0, dtype=bool), np.ones(0, dtype=bool))
