from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from submillion.config import TrainConfig
from submillion.training.feed import StepInput, count_steps, deal_records, feed_steps, order_epoch, prepare_ahead
from submillion.training.processes import ALONE, Processes
from tiny_classifiers import make_features


@pytest.mark.parametrize(
    ("num_records", "settings", "expected"),
    [
        (100, {"batch_size": 32, "epochs": 3}, (4, 12)),
        (96, {"batch_size": 32, "epochs": 3}, (3, 9)),
        (100, {"batch_size": 32, "epochs": 0.5}, (4, 2)),
        (100, {"batch_size": 32, "epochs": 0.01}, (4, 1)),
        (100, {"batch_size": 32, "max_steps": 7, "epochs": 3}, (4, 7)),
        (5, {"batch_size": 32, "epochs": 2}, (1, 2)),
    ],
)
def test_count_steps(num_records: int, settings: dict[str, Any], expected: tuple[int, int]) -> None:
    assert count_steps(num_records, TrainConfig(**settings)) == expected


def test_the_order_of_an_epoch_is_a_permutation_of_its_own() -> None:
    orders = [order_epoch(500, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], order_epoch(500, seed=0, epoch=0))
    # Position and row are unrelated: |r| of 500 pairs stays below 5 / sqrt(500).
    assert all(abs(np.corrcoef(order, np.arange(500))[0, 1]) < 0.22 for order in orders)


# --------------------------------------------------------------------------------------------------------------- shares


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 6))
def test_shares_are_disjoint_complete_and_about_equal(lengths: list[int], num_shares: int) -> None:
    items = make_features(lengths)
    shares = deal_records(items, num_shares)
    assert len(shares) == num_shares
    assert sorted(item.id for share in shares for item in share) == sorted(item.id for item in items)
    for share in shares:
        places = [items.index(item) for item in share]
        assert places == sorted(places)
    sizes = [sum(map(len, share)) for share in shares]
    # What went last into the largest share was put on the smallest one of then.
    assert max(sizes) - min(sizes) <= max(lengths, default=0)


def test_processes_share_each_step_of_one_process() -> None:
    features = make_features([3 + (5 * row) % 23 for row in range(22)])
    config = TrainConfig(batch_size=6, epochs=2.0, micro_batch_tokens=20)
    fed = [
        list(feed_steps(features, config, seed=4, first_step=1, device=torch.device("cpu"), processes=processes))
        for processes in (ALONE, Processes(0, 3), Processes(1, 3), Processes(2, 3))
    ]
    alone, *shares = fed
    assert [step.step for step in alone] == [1, 2, 3, 4, 5, 6, 7]
    assert [len(step.items) for step in alone] == [6, 6, 4, 6, 6, 6, 4]
    for step, *others in zip(alone, *shares, strict=True):
        ids = sorted(item.id for item in step.items)
        assert sorted(name for batch in step.batches for name in batch.ids) == ids
        assert sorted(name for other in others for batch in other.batches for name in batch.ids) == ids
        assert all([item.id for item in other.items] == [item.id for item in step.items] for other in others)


# ----------------------------------------------------------------------------------------------------------- in advance


def test_steps_are_prepared_in_advance_by_one_thread_in_order() -> None:
    threads: list[str] = []
    started: list[int] = []

    def prepare(step: int) -> StepInput:
        threads.append(threading.current_thread().name)
        started.append(step)
        return StepInput(step, (), ())

    begun: list[str] = []
    steps = prepare_ahead(prepare, range(5, 12), begin=lambda: begun.append(threading.current_thread().name))
    assert next(steps).step == 5
    assert [step.step for step in steps] == [6, 7, 8, 9, 10, 11]
    assert started == [5, 6, 7, 8, 9, 10, 11]
    assert {*threads, *begun} == {begun[0]}
    assert begun[0] != threading.current_thread().name
    assert len(begun) == 1


def test_what_preparing_raises_is_raised_at_its_step() -> None:
    def prepare(step: int) -> StepInput:
        if step == 2:
            raise ValueError("no such row")
        return StepInput(step, (), ())

    steps = prepare_ahead(prepare, range(4), begin=lambda: None)
    assert [next(steps).step, next(steps).step] == [0, 1]
    with pytest.raises(ValueError, match="no such row"):
        next(steps)


def test_a_feed_that_is_left_early_ends_its_thread() -> None:
    steps: Any = prepare_ahead(lambda step: StepInput(step, (), ()), range(1000), begin=lambda: None)
    next(steps)
    steps.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]
