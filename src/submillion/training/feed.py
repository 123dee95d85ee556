"""Input of each step: its records, this process's share of them, and their packed batches, prepared in advance."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from submillion.config.run import TrainConfig
from submillion.encoding.batches import Batch, list_chunks, pack, split_micro_batches
from submillion.encoding.text_encoder import Features
from submillion.training.collective import Processes

# Number of steps packed in advance for a GPU. One would be enough if packing always took the same time.
_NUM_AHEAD = 2


@dataclass(frozen=True, eq=False)
class StepInput:
    """The records of a step.

    Attributes:
        step: Number of the step, from 0.
        items: The step's records, over all processes.
        batches: This process's share of the records, one packed batch per forward pass; empty if it has no share.
    """

    step: int
    items: tuple[Features, ...]
    batches: tuple[Batch, ...]


def count_steps(num_records: int, config: TrainConfig) -> tuple[int, int]:
    """Return (steps per epoch, steps of the run); the last step of an epoch may hold fewer records."""
    per_epoch = math.ceil(num_records / config.batch_size)
    if config.max_steps is not None:
        return per_epoch, config.max_steps
    return per_epoch, max(1, round(config.epochs * per_epoch))


def order_epoch(num_records: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the records in an epoch: a permutation that does not depend on their lengths."""
    return np.random.default_rng([seed, epoch]).permutation(num_records)


def choose_chunk(item: Features, *, seed: int, epoch: int) -> Features:
    """Return the part of a record that an epoch trains on: one chunk if the text is read in chunks.

    The order of the chunks is drawn from (seed, record, round). Every chunk is read once before any is read again, and
    the choice is the same in every process and after every restart.

    Args:
        item: The record.
        seed: Seed for the order.
        epoch: Number of the epoch, from 0.
    """
    if not item.chunks:
        return item
    turn, place = divmod(epoch, len(item.chunks))
    order = np.random.default_rng([seed, item.key, turn]).permutation(len(item.chunks))
    return list_chunks(item)[int(order[place])]


def deal_records(items: Sequence[Features], num_shares: int) -> list[list[Features]]:
    """Divide records into disjoint shares with about the same number of tokens.

    Records are dealt from the longest to the shortest, each to the share with the fewest tokens (Graham's rule of
    1969). Ties are broken by position, so that every process computes the same shares.

    Args:
        items: The records.
        num_shares: Number of shares, which may exceed the number of records.

    Returns:
        The shares, each in the order of `items`.
    """
    sizes = [0] * num_shares
    places: list[list[int]] = [[] for _ in range(num_shares)]
    for place in sorted(range(len(items)), key=lambda place: -len(items[place])):
        share = sizes.index(min(sizes))
        sizes[share] += len(items[place])
        places[share].append(place)
    return [[items[place] for place in sorted(share)] for share in places]


def feed_steps(
    features: Sequence[Features],
    config: TrainConfig,
    *,
    seed: int,
    first_step: int,
    device: torch.device,
    processes: Processes,
) -> Iterator[StepInput]:
    """Yield the input of each step, from `first_step` to the end of the run.

    For a GPU, a thread packs the coming steps into pinned memory while the GPU computes.

    Args:
        features: Features of the training rows.
        config: Training settings.
        seed: Seed for the order.
        first_step: Number of steps made before, on resume.
        device: Device that computes the steps.
        processes: The processes that share each step's records.
    """
    per_epoch, num_steps = count_steps(len(features), config)
    order, order_of = np.empty(0, dtype=np.int64), -1

    def prepare(step: int) -> StepInput:
        nonlocal order, order_of
        epoch, place = divmod(step, per_epoch)
        if epoch != order_of:
            order, order_of = order_epoch(len(features), seed=seed, epoch=epoch), epoch
        rows = order[place * config.batch_size : (place + 1) * config.batch_size]
        items = [choose_chunk(features[row], seed=seed, epoch=epoch) for row in rows]
        share = items if processes.count == 1 else deal_records(items, processes.count)[processes.rank]
        batches = [pack(part) for part in split_micro_batches(share, config.micro_batch_tokens)]
        if device.type == "cuda":
            batches = [_pin(batch) for batch in batches]
        return StepInput(step, tuple(items), tuple(batches))

    steps = range(first_step, num_steps)
    if device.type == "cuda":
        # New threads use the first GPU, where pinning would open a needless context.
        return prepare_ahead(prepare, steps, begin=lambda: torch.cuda.set_device(device))
    return map(prepare, steps)


def prepare_ahead(
    prepare: Callable[[int], StepInput], steps: Iterable[int], *, begin: Callable[[], None]
) -> Iterator[StepInput]:
    """Yield `prepare(step)` for each step in order, computed in advance by one thread.

    Args:
        prepare: Function called in the thread, one step after the other. Its exceptions are raised here.
        steps: Numbers of the steps.
        begin: Function called once in the thread at the start.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="feed", initializer=begin) as pool:
        ahead: deque[Future[StepInput]] = deque()
        for step in steps:
            ahead.append(pool.submit(prepare, step))
            if len(ahead) > _NUM_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _pin(batch: Batch) -> Batch:
    return replace(
        batch,
        input_ids=batch.input_ids.pin_memory(),
        positions=batch.positions.pin_memory(),
        offsets=batch.offsets.pin_memory(),
        labels=batch.labels.pin_memory(),
        weights=None if batch.weights is None else batch.weights.pin_memory(),
    )
