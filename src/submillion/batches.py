"""From records to features to packed batches: the one place that encodes and the one that packs.

Shape letters: B records, N tokens of a packed batch, T longest record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from submillion.errors import ModelError
from submillion.records import Record

_ENCODE_CHUNK = 2048

# Matrix libraries generate and cache code per shape: with a new N in every pass they would generate it anew each
# time (a fifth of the step, and memory that never comes back). Passes are filled up to a multiple of this.
TOKEN_MULTIPLE = 128


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Token ids of one record.

    Attributes:
        id: The record's id.
        input_ids: Shape (T,), int32, special tokens included.
        label: Label id, or None.
        truncated: Whether the text was longer than the maximum length.
        key: 64-bit hash of the record's id; keys its dropout masks.
    """

    id: str
    input_ids: NDArray[np.int32]
    label: int | None
    truncated: bool
    key: int

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class LengthGroup:
    """A run of neighbouring records of equal length in a packed batch.

    Attributes:
        start: First token of the run, in ``0..N``.
        count: Number of records.
        length: Tokens of each record.
    """

    start: int
    count: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Records laid end to end, ordered by length so that equal lengths are neighbours.

    Attributes:
        input_ids: Shape (N,), int64; after the last record at most TOKEN_MULTIPLE - 1 filler tokens, which belong
            to no record, are attended by none and have no gradient.
        positions: Shape (N,), int64, from 0 within each record; 0 for filler.
        offsets: Shape (B+1,), int64; record b owns tokens ``offsets[b]:offsets[b+1]``.
        labels: Shape (B,), int64; -1 where a record has none.
        groups: Runs of equal length, in order; they cover the records' tokens.
        order: Shape (B,); the b-th packed record was the ``order[b]``-th given.
        keys: Shape (B,), uint64, the records' dropout keys.
        ids: The records' ids, in packed order.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    offsets: torch.Tensor
    labels: torch.Tensor
    groups: tuple[LengthGroup, ...]
    order: NDArray[np.int64]
    keys: NDArray[np.uint64]
    ids: tuple[str, ...]

    @property
    def num_records(self) -> int:
        """Number of records B."""
        return len(self.ids)

    @property
    def num_tokens(self) -> int:
        """Number of the records' tokens, without filler."""
        return sum(group.count * group.length for group in self.groups)

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device; the batch itself where they are there already."""
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
        )


class TextEncoder:
    """The one way from text to token ids.

    Args:
        folder: Folder with ``tokenizer.json``.
        max_length: Tokens kept of a text, special tokens included.

    Raises:
        ModelError: The folder has no readable ``tokenizer.json``.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        self.folder = folder
        self.max_length = max_length
        self._tokenizer = load_tokenizer(folder)
        # A published tokenizer.json may carry its own truncation and fixed padding (MiniLM's: 128 and 128);
        # both would change what the model reads without a word.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._num_special = self._tokenizer.num_special_tokens_to_add(False)

    def to_json(self) -> str:
        """Return the tokenizer as the content of a ``tokenizer.json`` without padding or truncation."""
        text: str = self._tokenizer.to_str(pretty=True)
        return text

    def encode(self, records: Sequence[Record], on_progress: Callable[[int], None] | None = None) -> list[Features]:
        """Return one Features per record, in order.

        Args:
            records: Records to encode.
            on_progress: Called with the number of records done so far.
        """
        features: list[Features] = []
        for chunk in _chunks(records):
            # Texts are tokenised whole, then cut: the tokenizer's own truncation would hide how many were too long.
            for record, encoding in zip(chunk, self._tokenizer.encode_batch([r.text for r in chunk]), strict=True):
                ids = np.asarray(encoding.ids, dtype=np.int32)
                truncated = len(ids) > self.max_length
                if truncated:
                    ids = self._cut(ids, np.asarray(encoding.special_tokens_mask, dtype=bool))
                features.append(Features(record.id, ids, record.label, truncated, hash_id(record.id)))
            if on_progress is not None:
                on_progress(len(features))
        return features

    def _cut(self, ids: NDArray[np.int32], special: NDArray[np.bool_]) -> NDArray[np.int32]:
        # Special tokens stay, whatever their place; the text's last tokens go.
        keep = special.copy()
        text_positions = np.flatnonzero(~special)[: self.max_length - self._num_special]
        keep[text_positions] = True
        return ids[keep]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return each text's length in tokens, special tokens included, uncut."""
        counts: list[int] = []
        for chunk in _chunks(texts):
            counts.extend(len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(chunk)))
        return counts


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load a fast tokenizer from ``tokenizer.json``, or build one from a slow tokenizer's files.

    Raises:
        ModelError: Neither works.
    """
    path = folder / "tokenizer.json"
    try:
        if path.exists():
            return Tokenizer.from_file(str(path))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    except Exception as error:  # tokenizers raises plain Exception for every fault of a file
        raise ModelError(
            f"no tokenizer can be loaded: {error}",
            where=str(folder),
            hint="The folder needs a tokenizer.json, or the vocabulary files of its family.",
        ) from None


def hash_id(record_id: str) -> int:
    """Return a 64-bit hash of a record's id that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "little")


_T = TypeVar("_T")


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _ENCODE_CHUNK):
        yield items[start : start + _ENCODE_CHUNK]


def pack(features: Sequence[Features]) -> Batch:
    """Lay records end to end, shortest first; equal lengths keep their given order.

    The order inside a batch does not matter to the mathematics and lets attention work on runs of equal length
    without copies. `Batch.order` leads back.
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
    )


def split_micro_batches(features: Sequence[Features], max_tokens: int) -> list[list[Features]]:
    """Divide one step's records into forward passes of at most `max_tokens` tokens, as even as possible.

    Records are sorted by length first, so that each pass has long runs of equal length. A record longer than
    `max_tokens` is a pass of its own.
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
