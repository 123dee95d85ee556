from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from submillion.config.run import TrainConfig
from submillion.encoding.batches import Batch
from submillion.encoding.text_encoder import Features
from submillion.training.collective import ALONE, Processes
from submillion.training.feed import (
    StepInput,
    choose_chunk,
    count_steps,
    deal_records,
    feed_steps,
    order_epoch,
    prepare_ahead,
)
from tests.tiny_classifiers import make_features


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


# --------------------------------------------------------------------------------------------------------------- chunks


def make_long(num_chunks: int, key: int) -> Features:
    chunks = tuple(np.array([place], np.int32) for place in range(num_chunks))
    return Features(str(key), chunks[0], 0, False, key, chunks=chunks)


def test_every_chunk_is_read_once_before_any_is_read_again() -> None:
    orders = set()
    for key in (1, 2**63, 2**64 - 1):
        for seed in (0, 1):
            item = make_long(5, key)
            drawn = [int(choose_chunk(item, seed=seed, epoch=epoch).input_ids[0]) for epoch in range(15)]
            assert [sorted(drawn[start : start + 5]) for start in (0, 5, 10)] == [list(range(5))] * 3
            again = choose_chunk(item, seed=seed, epoch=7)
            assert (int(again.input_ids[0]), again.chunks, again.key) == (drawn[7], (), key)
            orders.add(tuple(drawn))
    assert len(orders) == 6


def test_a_text_of_one_piece_is_what_it_was() -> None:
    (item,) = make_features((7,))
    assert choose_chunk(item, seed=0, epoch=3) is item


def test_steps_read_the_chunks_of_their_epoch_wherever_they_begin_and_however_many_share_them() -> None:
    features = [make_long(3, key) for key in range(10)]
    config = TrainConfig(batch_size=4, epochs=4)

    def read(first: int = 0, processes: Processes = ALONE) -> list[StepInput]:
        device = torch.device("cpu")
        return list(feed_steps(features, config, seed=5, first_step=first, device=device, processes=processes))

    whole = read()
    drawn: list[list[int]] = [[] for _ in features]
    for step in whole:
        for item in step.items:
            drawn[item.key].append(int(item.input_ids[0]))
    assert all(sorted(chunks[:3]) == [0, 1, 2] and chunks[3] in (0, 1, 2) for chunks in drawn)
    for first in (1, 5, 11):
        for step, expected in zip(read(first), whole[first:], strict=True):
            assert [item.input_ids.tolist() for item in step.items] == [i.input_ids.tolist() for i in expected.items]
    for expected, *parts in zip(whole, *(read(processes=Processes(rank, 2)) for rank in (0, 1)), strict=True):
        packed = [pair for part in parts for batch in part.batches for pair in list_pairs(batch)]
        assert sorted(packed) == sorted((item.id, int(item.input_ids[0])) for item in expected.items)


def list_pairs(batch: Batch) -> list[tuple[str, int]]:
    """Return the id and the only token of each record."""
    return list(zip(batch.ids, batch.input_ids[batch.offsets[:-1]].tolist(), strict=True))


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
