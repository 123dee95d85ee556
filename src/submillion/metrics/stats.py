"""Statistics of classifiers: figures, their intervals and paired tests, in plain numpy.

Every function is pure. Random ones take a seed and give the same numbers for it on every machine.
Confusion matrices have shape (C, C): rows are true classes, columns predicted ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from submillion.errors import DataError

NUM_RESAMPLES = 4000
NUM_BINS = 15
Z_95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution
_MAX_DRAWN_CELLS = 4_000_000  # cells drawn at once, which keeps many-class bootstraps under 32 MB

Interval = tuple[float, float]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of every class, each of shape (C,).

    Attributes:
        precision: Share of the predictions of a class that are right; 0 if it was never predicted.
        recall: Share of the rows of a class that were found; 0 if it has no rows.
        f1: Harmonic mean of the two; 0 if the divisor is 0.
        num_records: Number of true rows of each class.
        present: Whether the class appears in the labels or the predictions; macro averages run over these classes.
    """

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    num_records: NDArray[np.int64]
    present: NDArray[np.bool_]

    def average(self, values: FloatArray) -> float:
        """Return the unweighted mean of one of the figures over the classes present (the macro average)."""
        return float(values[self.present].mean())


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin of a reliability diagram.

    Attributes:
        confidence: Mean probability of the predicted class, 0..1.
        accuracy: Share of right predictions, 0..1.
        num_records: Number of rows in the bin.
    """

    confidence: float
    accuracy: float
    num_records: int


def wilson_interval(num_right: int, num_records: int, *, z: float = Z_95) -> Interval:
    """Return the score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Args:
        num_right: Number of successes, ``0..num_records``.
        num_records: Number of trials, at least 1.
        z: Point of the standard normal distribution; the default gives 95 %.

    Raises:
        DataError: There are no trials, or the successes are out of range.
    """
    if num_records < 1:
        raise DataError("an interval needs at least one record, got 0", hint="Check that the split has rows.")
    if not 0 <= num_right <= num_records:
        raise DataError(f"{num_right} right of {num_records} records is impossible")
    share = num_right / num_records
    spread = z * z / num_records
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / num_records + spread / (4 * num_records))
    # Rounding must not move the certain ends (all right, all wrong) away from 1 and 0.
    low = 0.0 if num_right == 0 else max(0.0, centre - half)
    high = 1.0 if num_right == num_records else min(1.0, centre + half)
    return low, high


def subtract_shares(first: tuple[float, Interval], second: tuple[float, Interval]) -> tuple[float, Interval]:
    """Return the difference of two proportions of different rows, first minus second, with its 95 % interval.

    The distances to the ends of the two score intervals are joined as a hypotenuse. Source: R. G. Newcombe, "Interval
    estimation for the difference between independent proportions: comparison of eleven methods", Statistics in Medicine
    17 (1998), method 10.

    Args:
        first: Proportion and its interval from `wilson_interval`.
        second: Proportion of other rows and its interval.
    """
    (one, (one_low, one_high)), (two, (two_low, two_high)) = first, second
    low = one - two - math.hypot(one - one_low, two_high - two)
    high = one - two + math.hypot(one_high - one, two - two_low)
    return one - two, (max(-1.0, low), min(1.0, high))


def count_confusion(labels: NDArray[np.integer], predicted: NDArray[np.integer], num_labels: int) -> NDArray[np.int64]:
    """Count the rows of every pair (true class, predicted class).

    Args:
        labels: True label ids, shape (n,), ``0..num_labels-1``.
        predicted: Predicted label ids, shape (n,), in the same range.
        num_labels: Number of classes C.

    Returns:
        Counts, shape (C, C), int64.

    Raises:
        DataError: There are no rows, the lengths differ, or an id is out of range.
    """
    if len(labels) == 0:
        raise DataError("no records to count", hint="Check that the split has rows.")
    if len(labels) != len(predicted):
        raise DataError(f"{len(labels)} labels but {len(predicted)} predictions")
    for name, ids in (("label", labels), ("prediction", predicted)):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= num_labels:
            raise DataError(f"{name} {low if low < 0 else high} is outside 0..{num_labels - 1}")
    cells = labels.astype(np.int64) * num_labels + predicted.astype(np.int64)
    return np.bincount(cells, minlength=num_labels * num_labels).reshape(num_labels, num_labels).astype(np.int64)


def _divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def count_classes(confusion: NDArray[np.int64]) -> ClassFigures:
    """Return precision, recall and F1 of every class of a confusion matrix of shape (C, C)."""
    right = np.diagonal(confusion).astype(np.float64)
    found, true = confusion.sum(axis=0), confusion.sum(axis=1)
    return ClassFigures(
        precision=_divide(right, found.astype(np.float64)),
        recall=_divide(right, true.astype(np.float64)),
        f1=_divide(2 * right, (found + true).astype(np.float64)),
        num_records=true.astype(np.int64),
        present=(found + true) > 0,
    )


def _macro_f1_of(confusions: NDArray[np.int64]) -> FloatArray:
    # (S, C, C) -> (S,): F1 = 2 * right / (predicted + true) is averaged over the classes present in each resample.
    right = np.diagonal(confusions, axis1=1, axis2=2).astype(np.float64)
    rows = (confusions.sum(axis=1) + confusions.sum(axis=2)).astype(np.float64)
    averages: FloatArray = _divide(2 * right, rows).sum(axis=1) / (rows > 0).sum(axis=1)
    return averages


def bootstrap_confusion(
    confusion: NDArray[np.int64],
    statistic: Callable[[NDArray[np.int64]], FloatArray],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return the 95 % percentile interval of a figure that depends only on the confusion matrix.

    Drawing n rows with replacement and counting them is the same as one multinomial draw of the counts, so
    the cost does not grow with the number of rows. Source: B. Efron and R. J. Tibshirani, "An Introduction to
    the Bootstrap" (1993), chapter 13.

    Args:
        confusion: Confusion matrix, shape (C, C), with at least one row counted.
        statistic: Function from resampled matrices of shape (S, C, C) to figures of shape (S,).
        seed: Seed for the draws.
        num_resamples: Number of resamples.

    Raises:
        DataError: The confusion matrix is empty.
    """
    num_records = int(confusion.sum())
    if num_records == 0:
        raise DataError("no records to resample", hint="Check that the split has rows.")
    random = np.random.default_rng(seed)
    flat = confusion.reshape(-1)
    cells = np.flatnonzero(flat)
    shares = flat[cells] / num_records
    chunk = max(1, min(num_resamples, _MAX_DRAWN_CELLS // flat.size))
    figures: list[FloatArray] = []
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        drawn = np.zeros((size, flat.size), dtype=np.int64)
        drawn[:, cells] = random.multinomial(num_records, shares, size=size)
        figures.append(statistic(drawn.reshape(size, *confusion.shape)))
    low, high = np.quantile(np.concatenate(figures), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_macro_f1(confusion: NDArray[np.int64], *, seed: int, num_resamples: int = NUM_RESAMPLES) -> Interval:
    """Return the 95 % bootstrap interval of macro-F1; see `bootstrap_confusion`."""
    return bootstrap_confusion(confusion, _macro_f1_of, seed=seed, num_resamples=num_resamples)


def find_mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p value that two classifiers are right equally often.

    Under that hypothesis each row that only one of them got right is a fair coin. The sum is taken in log space, so
    it works for any number of rows. Source: Q. McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages", Psychometrika 12 (1947); exact form after T. G. Dietterich,
    "Approximate statistical tests for comparing supervised classification learning algorithms" (1998).

    Args:
        only_first: Number of rows that only the first got right.
        only_second: Number of rows that only the second got right.

    Returns:
        The p value in ``[0, 1]``; 1 if they never differ.
    """
    total, smaller = only_first + only_second, min(only_first, only_second)
    if total == 0:
        return 1.0
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(smaller + 1)
    ]
    largest = max(logs)
    tail = math.exp(largest) * math.fsum(math.exp(value - largest) for value in logs)
    return min(1.0, 2 * tail)


def bootstrap_difference(
    only_first: int, only_second: int, num_records: int, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """Return the 95 % paired bootstrap interval of the difference of two accuracies, first minus second.

    Rows are resampled together with both outcomes, so three counts describe them fully.

    Args:
        only_first: Number of rows that only the first got right.
        only_second: Number of rows that only the second got right.
        num_records: Number of all rows, at least 1.
        seed: Seed for the draws.
        num_resamples: Number of resamples.

    Raises:
        DataError: There are no records, or more differing rows than rows.
    """
    same = num_records - only_first - only_second
    if num_records < 1 or same < 0:
        raise DataError(f"{only_first} + {only_second} differing rows of {num_records} records is impossible")
    shares = np.array([only_first, only_second, same], dtype=np.float64) / num_records
    drawn = np.random.default_rng(seed).multinomial(num_records, shares, size=num_resamples)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / num_records, [0.025, 0.975])
    return float(low), float(high)


def find_flip_p(differences: NDArray[np.integer]) -> float:
    """Return the two-sided exact p value that paired whole-numbered differences have either sign equally often.

    This is the sign-flip (Fisher-Pitman permutation) test of their sum. Under the hypothesis each difference has either
    sign with probability 1/2, independently, so the sum's distribution is a convolution of scaled binomial ones. With
    differences of -1, 0 and 1 it is McNemar's exact test. Source: E. J. G. Pitman, "Significance tests which may be
    applied to samples from any populations", Supplement to the JRSS 4 (1937).

    Args:
        differences: Whole numbers, shape (n,).

    Returns:
        The p value in ``[0, 1]``; 1 if all differences are 0.
    """
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    distribution = np.ones(1)  # of (sum + largest sum) / 2, from all signs negative to all positive
    for size, count in zip(sizes, counts, strict=True):
        if size == 0:
            continue
        ways = np.arange(count + 1)
        logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in ways]
        one = np.zeros(int(size) * int(count) + 1)
        one[:: int(size)] = np.exp(np.array(logs) - count * math.log(2))
        distribution = np.convolve(distribution, one)
    largest = len(distribution) - 1
    observed = abs(int(differences.sum()))
    # The sum must be at least the observed one, with either sign; k positive units give the sum 2 k - `largest`.
    ends = (largest - observed) // 2
    tail = distribution[: ends + 1].sum()
    return 1.0 if observed == 0 else float(min(1.0, 2 * tail))


def bootstrap_runs(
    first: NDArray[np.bool_], second: NDArray[np.bool_], *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """Return the 95 % interval of the mean difference of accuracy between paired runs, over runs and records.

    Both are drawn with replacement. A record keeps its outcomes in all runs, and a pair of runs keeps its outcomes on
    all records. So one record in several runs does not count as several records, and the differences between seeds are
    included. Source: A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007).

    Args:
        first: Whether each run of the first kind was right on each record, shape (S, n).
        second: Whether each run of the second kind was right, paired by row, shape (S, n).
        seed: Seed for the draws.
        num_resamples: Number of resamples.

    Raises:
        DataError: There are no runs or records, or the shapes differ.
    """
    if first.shape != second.shape or first.ndim != 2 or 0 in first.shape:
        raise DataError(f"outcomes of shape {first.shape} cannot be paired with those of shape {second.shape}")
    num_runs, num_records = first.shape
    # Records with the same differences in all runs are exchangeable, so their counts are drawn together.
    kinds, counts = np.unique(first.astype(np.int64) - second.astype(np.int64), axis=1, return_counts=True)
    random = np.random.default_rng(seed)
    records = random.multinomial(num_records, counts / num_records, size=num_resamples)
    runs = random.multinomial(num_runs, np.full(num_runs, 1 / num_runs), size=num_resamples)
    means = np.einsum("sr,rk,sk->s", runs, kinds, records) / (num_runs * num_records)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def log_softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> FloatArray:
    """Return log probabilities of logits of shape (n, C), divided by a temperature first; float64."""
    scaled = logits.astype(np.float64) / temperature
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> FloatArray:
    """Return probabilities of logits of shape (n, C), divided by a temperature first; float64, rows sum to 1."""
    return np.exp(log_softmax(logits, temperature))


def measure_log_loss(log_probabilities: FloatArray, labels: NDArray[np.integer]) -> float:
    """Return the mean negative log probability, in nats, of the true classes; shapes (n, C) and (n,)."""
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def measure_brier(probabilities: FloatArray, labels: NDArray[np.integer]) -> float:
    """Return the Brier score in its sum form, 0 (perfect) to 2.

    Squared distances to the one-hot truth are summed over classes and averaged over rows. Source: G. W. Brier,
    "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950).

    Args:
        probabilities: Probabilities, shape (n, C).
        labels: True label ids, shape (n,).
    """
    true = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities**2).sum(axis=1) - 2 * true + 1).mean())


def bin_reliability(
    confidence: FloatArray, right: NDArray[np.bool_], *, num_bins: int = NUM_BINS
) -> tuple[ReliabilityBin, ...]:
    """Sort rows by confidence into bins of equal mass.

    Source: K. Nguyen and B. O'Connor, "Posterior calibration and exploratory analysis for natural language
    processing models", EMNLP 2015, section 3 (adaptive bins). Rows of equal confidence share their
    mean correctness, so the bins do not depend on the order of the rows.

    Args:
        confidence: Probability of the predicted class, shape (n,).
        right: Whether the prediction is right, shape (n,).
        num_bins: Number of bins; fewer if there are fewer rows.

    Raises:
        DataError: There are no rows.
    """
    if len(confidence) == 0:
        raise DataError("no records to bin", hint="Check that the split has rows.")
    values, position, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    shared = np.bincount(position, weights=right.astype(np.float64)) / counts
    ordered, outcome = np.repeat(values, counts), np.repeat(shared, counts)
    parts = np.array_split(np.arange(len(ordered)), min(num_bins, len(ordered)))
    return tuple(ReliabilityBin(float(ordered[p].mean()), float(outcome[p].mean()), len(p)) for p in parts)


def measure_calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Return the expected calibration error, 0..1: the mean gap between confidence and accuracy over the rows.

    Source: M. P. Naeini, G. F. Cooper and M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015; C. Guo et al., "On calibration of modern neural networks", ICML 2017, section 2.
    """
    total = sum(part.num_records for part in bins)
    return sum(abs(part.accuracy - part.confidence) * part.num_records for part in bins) / total
