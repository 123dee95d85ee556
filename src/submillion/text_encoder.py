"""From texts to token ids: the one place that encodes. Imports neither torch nor transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from submillion.errors import ModelError
from submillion.records import Record

_CHUNK_TEXTS = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Token ids of one record.

    Attributes:
        id: The record's id.
        input_ids: Shape (T,), int32, special tokens included.
        label: Label id, or None.
        truncated: Whether the text was longer than the maximum length.
        key: 64-bit hash of the record's id; keys its dropout masks.
        weight: Of the record in the training loss, above 0.
    """

    id: str
    input_ids: NDArray[np.int32]
    label: int | None
    truncated: bool
    key: int
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Token ids of many texts, end to end.

    Attributes:
        input_ids: Shape (N,), int32; every text cut to the maximum length, special tokens included.
        offsets: Shape (n + 1,), int64; text i owns ``input_ids[offsets[i]:offsets[i + 1]]``.
        lengths: Shape (n,), int32; tokens of each text before it was cut.
    """

    input_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.lengths)


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

    def limited_to(self, max_length: int) -> TextEncoder:
        """Return an encoder like this one that keeps another number of tokens."""
        return TextEncoder(self.folder, max_length)

    def to_json(self) -> str:
        """Return the tokenizer as the content of a ``tokenizer.json`` without padding or truncation."""
        text: str = self._tokenizer.to_str(pretty=True)
        return text

    @cached_property
    def sha256(self) -> str:
        """Digest of the tokenizer, as `to_json` returns it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def encode(self, records: Sequence[Record], on_progress: Callable[[int], None] | None = None) -> list[Features]:
        """Return one Features per record, in order.

        Args:
            records: Records to encode.
            on_progress: Called with the number of records done so far.
        """
        return make_features(records, self.tokenise([record.text for record in records], on_progress))

    def tokenise(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> Tokens:
        """Return the token ids of texts, in order.

        The library spreads a chunk over all cores, unless TOKENIZERS_PARALLELISM forbids it, and needs no interpreter
        lock while it does; what the ids of one chunk cost here goes on beside the next chunk.

        Args:
            texts: Any number of texts.
            on_progress: Called with the number of texts done so far.
        """
        ids: list[NDArray[np.int32]] = []
        counts: list[int] = []
        lengths: list[int] = []
        for encodings in self._iter_encodings(texts):
            # Texts are tokenised whole, then cut: the tokenizer's own truncation would hide how many were too long.
            uncut = [len(encoding) for encoding in encodings]
            cut = [
                encoding.ids if length <= self.max_length else self._cut(encoding)
                for encoding, length in zip(encodings, uncut, strict=True)
            ]
            lengths += uncut
            counts += [len(part) for part in cut]
            ids.append(np.fromiter(chain.from_iterable(cut), np.int32))
            if on_progress is not None:
                on_progress(len(lengths))
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        flat = np.concatenate(ids) if ids else np.empty(0, np.int32)
        return Tokens(flat, offsets, np.array(lengths, np.int32))

    def _iter_encodings(self, texts: Sequence[str]) -> Iterator[list[Any]]:
        chunks = [texts[start : start + _CHUNK_TEXTS] for start in range(0, len(texts), _CHUNK_TEXTS)]
        if len(chunks) < 2:
            yield from (self._tokenizer.encode_batch_fast(list(chunk)) for chunk in chunks)
            return
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(self._tokenizer.encode_batch_fast, list(chunks[0]))
            for chunk in chunks[1:]:
                encodings = waiting.result()
                waiting = ahead.submit(self._tokenizer.encode_batch_fast, list(chunk))
                yield encodings
            yield waiting.result()

    def _cut(self, encoding: Any) -> list[int]:
        # Special tokens stay, whatever their place; the text's last tokens go.
        ids, special = np.asarray(encoding.ids), np.asarray(encoding.special_tokens_mask, dtype=bool)
        keep = special.copy()
        keep[np.flatnonzero(~special)[: self.max_length - self._num_special]] = True
        kept: list[int] = ids[keep].tolist()
        return kept

    def count_tokens(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> NDArray[np.int32]:
        """Return each text's length in tokens, special tokens included, uncut; shape (n,), int32."""
        lengths: list[int] = []
        for encodings in self._iter_encodings(texts):
            lengths += [len(encoding) for encoding in encodings]
            if on_progress is not None:
                on_progress(len(lengths))
        return np.array(lengths, np.int32)


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


def make_features(records: Sequence[Record], tokens: Tokens) -> list[Features]:
    """Join records with the token ids of their texts, in the same order."""
    assert len(records) == len(tokens)
    borders = tokens.offsets.tolist()
    truncated = (tokens.lengths > np.diff(tokens.offsets)).tolist()
    ids = tokens.input_ids
    return [
        Features(record.id, ids[borders[row] : borders[row + 1]], record.label, truncated[row], hash_id(record.id))
        for row, record in enumerate(records)
    ]


def hash_id(record_id: str) -> int:
    """Return a 64-bit hash of a record's id that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "little")


_Result = TypeVar("_Result")


@contextmanager
def started_beside(
    jobs: Mapping[str, Callable[[Callable[[int], None]], _Result]],
) -> Iterator[dict[str, Callable[[], _Result]]]:
    """Carry out jobs one after the other on a thread of their own, beside the block; a tokenizer needs no more.

    Args:
        jobs: Each gets a function to call between its chunks, as `on_progress` is; it ends the job where the block
            was left before it.

    Yields:
        For each job what waits for its result, or raises its error.
    """
    is_over = Event()

    def end_when_over(_: int) -> None:
        if is_over.is_set():
            raise CancelledError

    with ThreadPoolExecutor(1) as beside:
        waiting = {name: beside.submit(job, end_when_over) for name, job in jobs.items()}
        try:
            yield {name: future.result for name, future in waiting.items()}
        finally:
            is_over.set()
