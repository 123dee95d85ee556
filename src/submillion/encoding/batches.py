"""From features to packed batches: the one place that packs.

Shape letters: B records, N tokens of a packed batch, T longest record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from submillion.encoding.text_encoder import Features

__all__ = ["TOKEN_MULTIPLE", "Batch", "Features", "LengthGroup", "list_chunks", "pack", "split_micro_batches"]

# Matrix libraries generate and cache code for each shape. With a new N in every pass they would generate code every
# time, which costs a fifth of the step and memory that is never freed. So passes are filled up to a multiple of this.
TOKEN_MULTIPLE = 128


@dataclass(frozen=True, slots=True)
class LengthGroup:
    """A run of neighbouring records of equal length in a packed batch.

    Attributes:
        start: First token of the run, in ``0..N``.
        count: Number of records.
        length: Number of tokens of each record.
    """

    start: int
    count: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Records laid end to end, ordered by length so that equal lengths are neighbours.

    Attributes:
        input_ids: Token ids, shape (N,), int64. After the last record there are at most TOKEN_MULTIPLE - 1 filler
            tokens, which belong to no record, are attended by none and have no gradient.
        positions: Position of each token in its record, from 0, shape (N,), int64; 0 for filler.
        offsets: Borders of the records, shape (B+1,), int64; record b owns tokens ``offsets[b]:offsets[b+1]``.
        labels: Label ids, shape (B,), int64; -1 for a record without label.
        groups: Runs of equal length, in order; they cover the records' tokens.
        order: Original places, shape (B,); the b-th packed record was the ``order[b]``-th given.
        keys: Dropout keys of the records, shape (B,), uint64.
        ids: Ids of the records, in packed order.
        weights: Weights of the records in the training loss, shape (B,), float32; None if all are 1.
        largest_id: Largest token id, kept so that it need not be read from a device.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    offsets: torch.Tensor
    labels: torch.Tensor
    groups: tuple[LengthGroup, ...]
    order: NDArray[np.int64]
    keys: NDArray[np.uint64]
    ids: tuple[str, ...]
    weights: torch.Tensor | None = None
    largest_id: int = 0

    @property
    def num_records(self) -> int:
        """Number of records B."""
        return len(self.ids)

    @property
    def num_tokens(self) -> int:
        """Number of the records' tokens, without filler."""
        return sum(group.count * group.length for group in self.groups)

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device; the batch itself if they are already there."""
        if self.input_ids.device == device:
            return self
        return Batch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            positions=self.positions.to(device, non_blocking=True),
            offsets=self.offsets.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            groups=self.groups,
            order=self.order,
            keys=self.keys,
            ids=self.ids,
            weights=None if self.weights is None else self.weights.to(device, non_blocking=True),
            largest_id=self.largest_id,
        )


def pack(features: Sequence[Features]) -> Batch:
    """Lay records end to end, shortest first; equal lengths keep their given order.

    The order inside a batch does not change the mathematics, and it lets attention work on runs of equal length
    without copies. `Batch.order` restores the given order.
    """
    lengths = np.fromiter((len(f) for f in features), dtype=np.int64, count=len(features))
    order = np.argsort(lengths, kind="stable")
    lengths = lengths[order]
    offsets = np.zeros(len(features) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    total = int(offsets[-1])
    ordered = [features[i] for i in order]
    groups: list[LengthGroup] = []
    start = 0
    for length, run in groupby(lengths.tolist()):
        count = sum(1 for _ in run)
        groups.append(LengthGroup(start, count, length))
        start += count * length
    filled = -(-total // TOKEN_MULTIPLE) * TOKEN_MULTIPLE
    input_ids, positions = np.zeros(filled, dtype=np.int64), np.zeros(filled, dtype=np.int64)
    np.concatenate([f.input_ids for f in ordered], out=input_ids[:total], casting="same_kind")
    positions[:total] = np.arange(total) - np.repeat(offsets[:-1], lengths)
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        positions=torch.from_numpy(positions),
        offsets=torch.from_numpy(offsets),
        labels=torch.tensor([-1 if f.label is None else f.label for f in ordered], dtype=torch.int64),
        groups=tuple(groups),
        order=order,
        keys=np.array([f.key for f in ordered], dtype=np.uint64),
        ids=tuple(f.id for f in ordered),
        weights=_pack_weights(ordered),
        largest_id=int(input_ids.max(initial=0)),
    )


def _pack_weights(features: Sequence[Features]) -> torch.Tensor | None:
    if all(item.weight == 1 for item in features):
        return None
    return torch.tensor([item.weight for item in features], dtype=torch.float32)


def list_chunks(item: Features) -> list[Features]:
    """Return each chunk of a record as separate features, or the features themselves if there is one piece."""
    if not item.chunks:
        return [item]
    return [replace(item, input_ids=ids, chunks=()) for ids in item.chunks]


def split_micro_batches(features: Sequence[Features], max_tokens: int) -> list[list[Features]]:
    """Divide one step's records into forward passes of at most `max_tokens` tokens, as even as possible.

    Records are sorted by length first, so that each pass has long runs of equal length. A record longer than
    `max_tokens` gets a separate pass.
    """
    ordered = sorted(features, key=len)
    total = sum(len(f) for f in ordered)
    target = total / -(-total // max_tokens) if ordered else 0
    parts: list[list[Features]] = []
    size = 0
    for item in ordered:
        full = size + len(item) > max_tokens or size >= target
        if not parts or full:
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += len(item)
    return parts
