from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from submillion.errors import DataError
from submillion.metrics import stats


def test_wilson_interval_agrees_with_the_roots_of_its_definition() -> None:
    # The ends solve |share - p| = z * sqrt(p (1 - p) / n).
    low, high = stats.wilson_interval(7182, 7600)
    for end in (low, high):
        assert abs(7182 / 7600 - end) == pytest.approx(stats.Z_95 * math.sqrt(end * (1 - end) / 7600))
    assert low < 7182 / 7600 < high


def test_wilson_interval_ends_stay_inside_for_all_right_and_all_wrong() -> None:
    low, high = stats.wilson_interval(10, 10)
    assert high == 1.0
    assert 0.6 < low < 0.75
    lowest, highest = stats.wilson_interval(0, 10)
    assert lowest == 0.0
    assert highest == pytest.approx(1 - low)


@pytest.mark.parametrize(("right", "total"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_interval_refuses_impossible_counts(right: int, total: int) -> None:
    with pytest.raises(DataError):
        stats.wilson_interval(right, total)


def test_confusion_has_true_classes_in_rows() -> None:
    labels, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    assert stats.count_confusion(labels, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


def test_confusion_refuses_ids_outside_the_classes_and_nothing() -> None:
    with pytest.raises(DataError, match=r"label 3 is outside 0\.\.2"):
        stats.count_confusion(np.array([3]), np.array([0]), 3)
    with pytest.raises(DataError, match="prediction -1"):
        stats.count_confusion(np.array([0]), np.array([-1]), 3)
    with pytest.raises(DataError, match="no records"):
        stats.count_confusion(np.array([], dtype=int), np.array([], dtype=int), 3)
    with pytest.raises(DataError, match="2 labels but 1"):
        stats.count_confusion(np.array([0, 1]), np.array([0]), 3)


def test_class_figures_of_a_small_matrix_by_hand() -> None:
    figures = stats.count_classes(np.array([[3, 1], [2, 4]]))
    assert figures.precision == pytest.approx([3 / 5, 4 / 5])
    assert figures.recall == pytest.approx([3 / 4, 4 / 6])
    assert figures.f1 == pytest.approx([2 * 3 / 9, 2 * 4 / 11])
    assert figures.num_records.tolist() == [4, 6]


def test_a_class_that_occurs_nowhere_counts_in_no_average() -> None:
    figures = stats.count_classes(np.array([[5, 0, 0], [0, 5, 0], [0, 0, 0]]))
    assert figures.f1.tolist() == [1.0, 1.0, 0.0]
    assert figures.average(figures.f1) == 1.0


def test_a_class_that_is_only_predicted_counts_in_the_average() -> None:
    figures = stats.count_classes(np.array([[4, 0, 1], [0, 5, 0], [0, 0, 0]]))
    assert figures.average(figures.f1) == pytest.approx((8 / 9 + 1 + 0) / 3)


def test_macro_f1_bootstrap_covers_the_figure_narrows_with_rows_and_repeats() -> None:
    small = np.array([[40, 5, 5], [4, 44, 2], [6, 1, 43]])
    value = stats.count_classes(small).average(stats.count_classes(small).f1)
    low, high = stats.bootstrap_macro_f1(small, seed=1)
    assert low < value < high
    wide = high - low
    low, high = stats.bootstrap_macro_f1(small * 100, seed=1)
    assert (high - low) == pytest.approx(wide / 10, rel=0.1)  # widths shrink with the root of the rows
    assert stats.bootstrap_macro_f1(small, seed=3) == stats.bootstrap_macro_f1(small, seed=3)
    assert stats.bootstrap_macro_f1(small, seed=3) != stats.bootstrap_macro_f1(small, seed=4)


def test_macro_f1_bootstrap_agrees_with_resampling_rows() -> None:
    confusion = np.array([[30, 6], [3, 61]])
    labels = np.repeat([0, 0, 1, 1], confusion.reshape(-1))
    predicted = np.repeat([0, 1, 0, 1], confusion.reshape(-1))
    random = np.random.default_rng(0)
    values = []
    for _ in range(3000):
        rows = random.integers(0, len(labels), len(labels))
        figures = stats.count_classes(stats.count_confusion(labels[rows], predicted[rows], 2))
        values.append(figures.average(figures.f1))
    assert stats.bootstrap_macro_f1(confusion, seed=0) == pytest.approx(
        tuple(np.quantile(values, [0.025, 0.975])), abs=0.01
    )


def test_bootstrap_of_all_right_is_a_point_and_of_nothing_an_error() -> None:
    assert stats.bootstrap_macro_f1(np.diag([5, 5]), seed=0) == (1.0, 1.0)
    assert stats.bootstrap_macro_f1(np.array([[0, 5], [5, 0]]), seed=0) == (0.0, 0.0)
    with pytest.raises(DataError, match="no records"):
        stats.bootstrap_macro_f1(np.zeros((2, 2), dtype=np.int64), seed=0)


def test_bootstrap_leaves_out_a_class_that_occurs_nowhere() -> None:
    pair, absent = np.array([[40, 5], [4, 44]]), np.zeros((3, 3), dtype=np.int64)
    absent[:2, :2] = pair
    assert stats.bootstrap_macro_f1(absent, seed=1) == stats.bootstrap_macro_f1(pair, seed=1)


def test_bootstrap_of_many_classes_works_in_parts() -> None:
    random = np.random.default_rng(0)
    confusion = np.diag(random.integers(5, 20, 300)) + (random.random((300, 300)) < 0.01)
    low, high = stats.bootstrap_macro_f1(confusion.astype(np.int64), seed=0, num_resamples=100)
    assert 0.5 < low < high < 1.0


@pytest.mark.parametrize(("first", "second"), [(0, 1), (5, 0), (10, 3), (40, 61), (500, 430)])
def test_mcnemar_equals_the_exact_rational_sum(first: int, second: int) -> None:
    total = first + second
    tail = sum(Fraction(math.comb(total, k), 2**total) for k in range(min(first, second) + 1))
    assert stats.find_mcnemar_p(first, second) == pytest.approx(min(1.0, float(2 * tail)), rel=1e-9)


def test_mcnemar_holds_for_thousands_of_rows_and_is_symmetric() -> None:
    # 5,000 against 5,200: the normal approximation with continuity correction is accurate here.
    approximate = math.erfc((200 - 1) / math.sqrt(10_200) / math.sqrt(2))
    assert stats.find_mcnemar_p(5_000, 5_200) == pytest.approx(approximate, rel=1e-3)
    assert stats.find_mcnemar_p(5_200, 5_000) == stats.find_mcnemar_p(5_000, 5_200)
    assert stats.find_mcnemar_p(0, 100_000) == 0.0
    assert stats.find_mcnemar_p(0, 0) == 1.0
    assert stats.find_mcnemar_p(7, 7) == 1.0


def test_paired_difference_interval() -> None:
    low, high = stats.bootstrap_difference(150, 100, 7600, seed=0)
    spread = 1.96 * math.sqrt(250 - 50**2 / 7600) / 7600  # normal approximation of a paired difference
    assert (low, high) == pytest.approx((50 / 7600 - spread, 50 / 7600 + spread), abs=4e-4)
    assert stats.bootstrap_difference(0, 0, 10, seed=0) == (0.0, 0.0)
    with pytest.raises(DataError, match="impossible"):
        stats.bootstrap_difference(6, 5, 10, seed=0)


def test_softmax_is_stable_and_divides_by_the_temperature() -> None:
    logits = np.array([[1000.0, 1001.0], [-1000.0, -1000.0]], dtype=np.float32)
    assert stats.softmax(logits)[0, 1] == pytest.approx(1 / (1 + math.exp(-1)))
    assert stats.softmax(logits, 2.0)[0, 1] == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert stats.softmax(logits)[1].tolist() == [0.5, 0.5]


def test_log_loss_and_brier_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    labels = np.array([0, 1])
    assert stats.measure_log_loss(np.log(probabilities), labels) == pytest.approx(-(math.log(0.7) + math.log(0.1)) / 2)
    first, second = 0.3**2 + 0.2**2 + 0.1**2, 0.1**2 + 0.9**2 + 0.8**2
    assert stats.measure_brier(probabilities, labels) == pytest.approx((first + second) / 2)
    assert stats.measure_brier(np.eye(2), np.array([1, 0])) == pytest.approx(2.0)


def test_reliability_bins_have_equal_mass_and_give_the_error_by_hand() -> None:
    confidence = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    right = np.array([False, True, True, True, True, True])
    bins = stats.bin_reliability(confidence, right, num_bins=3)
    assert [part.num_records for part in bins] == [2, 2, 2]
    assert [part.confidence for part in bins] == pytest.approx([0.55, 0.75, 0.95])
    assert [part.accuracy for part in bins] == pytest.approx([0.5, 1.0, 1.0])
    assert stats.measure_calibration_error(bins) == pytest.approx((0.05 + 0.25 + 0.05) / 3)


def test_reliability_bins_do_not_depend_on_the_order_of_tied_rows() -> None:
    confidence = np.repeat([0.6, 0.9], 20)
    right = np.tile([True, False], 20)
    straight = stats.bin_reliability(confidence, right)
    assert straight == stats.bin_reliability(confidence[::-1], right[::-1])
    assert straight == stats.bin_reliability(confidence, np.sort(right.reshape(2, 20), axis=1).reshape(-1))


def test_fewer_rows_than_bins_and_no_rows() -> None:
    assert len(stats.bin_reliability(np.array([0.4, 0.9]), np.array([True, False]))) == 2
    with pytest.raises(DataError, match="no records"):
        stats.bin_reliability(np.array([]), np.array([], dtype=bool))


def test_difference_of_two_shares_is_newcombes() -> None:
    # Newcombe (1998), table II, example (a), method 10: 56 of 70 against 48 of 80.
    first, second = (56 / 70, stats.wilson_interval(56, 70)), (48 / 80, stats.wilson_interval(48, 80))
    difference, interval = stats.subtract_shares(first, second)
    assert difference == pytest.approx(0.2)
    assert interval == pytest.approx((0.0524, 0.3339), abs=5e-5)
    turned, (low, high) = stats.subtract_shares(second, first)
    assert (turned, low, high) == pytest.approx((-0.2, -interval[1], -interval[0]))
