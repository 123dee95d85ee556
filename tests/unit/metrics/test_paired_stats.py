"""Tests across several runs of the same records: exact p values against all sign patterns, intervals that widen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from submillion.errors import DataError
from submillion.metrics.stats import bootstrap_runs, find_flip_p, find_mcnemar_p


@pytest.mark.parametrize("seed", range(6))
def test_the_flip_test_is_that_of_all_sign_patterns(seed: int) -> None:
    differences = np.random.default_rng(seed).integers(-3, 4, size=11)
    sums = [abs(int(np.dot(differences, signs))) for signs in itertools.product((-1, 1), repeat=len(differences))]
    expected = np.mean(np.array(sums) >= abs(differences.sum()))
    assert find_flip_p(differences) == pytest.approx(expected)


@pytest.mark.parametrize(("only_first", "only_second"), [(30, 12), (1, 0), (0, 0), (7, 7), (700, 560)])
def test_with_one_run_the_flip_test_is_mcnemars(only_first: int, only_second: int) -> None:
    differences = np.array([1] * only_first + [-1] * only_second + [0] * 50)
    assert find_flip_p(differences) == pytest.approx(find_mcnemar_p(only_first, only_second), rel=1e-9)


def test_three_copies_of_a_run_are_no_more_evidence_than_one() -> None:
    random = np.random.default_rng(5)
    first, second = random.random(400) < 0.9, random.random(400) < 0.87
    one = find_flip_p(first.astype(int) - second.astype(int))
    three = find_flip_p(3 * first.astype(int) - 3 * second.astype(int))
    assert three == pytest.approx(one)
    alone = bootstrap_runs(first[None], second[None], seed=1)
    copied = bootstrap_runs(np.stack([first] * 3), np.stack([second] * 3), seed=1)
    assert copied == pytest.approx(alone, abs=0.01)


def test_runs_that_differ_by_their_seed_widen_the_interval() -> None:
    random = np.random.default_rng(6)
    base = random.random(2000) < 0.8
    steady = np.stack([base ^ (random.random(2000) < 0.02) for _ in range(3)])
    shaky = np.stack([base ^ (random.random(2000) < rate) for rate in (0.0, 0.1, 0.2)])
    reference = np.stack([base] * 3)
    low, high = bootstrap_runs(steady, reference, seed=2)
    wide_low, wide_high = bootstrap_runs(shaky, reference, seed=2)
    assert wide_high - wide_low > 3 * (high - low)
    assert low < (steady.mean() - base.mean()) < high


def test_the_interval_covers_what_it_should() -> None:
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(60):
        hard = random.random(300)
        first = np.stack([hard + 0.2 * random.random(300) < 0.95 for _ in range(3)])
        second = np.stack([hard + 0.2 * random.random(300) < 0.95 for _ in range(3)])
        low, high = bootstrap_runs(first, second, seed=3, num_resamples=400)
        covered += low <= 0.0 <= high
    assert covered >= 54


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_nothing_cannot_be_compared(shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="cannot be paired"):
        bootstrap_runs(np.zeros(shape, bool), np.zeros(shape, bool), seed=0)
