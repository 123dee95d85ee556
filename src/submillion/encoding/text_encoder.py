"""From texts to token ids: the one place that encodes. It imports neither torch nor transformers."""

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

from submillion.config.run import LongTexts
from submillion.data.legibility import TokenCounts
from submillion.data.long_texts import count_chunks, find_places
from submillion.data.vocabulary import Vocabulary, read_vocabulary
from submillion.encoding.tokenizer_files import load_tokenizer
from submillion.errors import ModelError
from submillion.records import Record

_CHUNK_TEXTS = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Token ids of one record.

    Attributes:
        id: Id of the record.
        input_ids: Token ids, shape (T,), int32, special tokens included; the first chunk of a text read in chunks.
        label: Label id, or None.
        truncated: Whether a part of the text is not read.
        key: 64-bit hash of the record's id, the key of its dropout masks and of the chunks drawn from it.
        weight: Weight of the record in the training loss, above 0.
        chunks: Token ids of each chunk, the first one included, as `input_ids`; empty if there is one piece.
    """

    id: str
    input_ids: NDArray[np.int32]
    label: int | None
    truncated: bool
    key: int
    weight: float = 1.0
    chunks: tuple[NDArray[np.int32], ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Token ids of many texts, end to end.

    Attributes:
        input_ids: Token ids that are read of every text, special tokens included; shape (N,), int32.
        offsets: Borders of the pieces, shape (m + 1,), int64; piece j owns ``input_ids[offsets[j]:offsets[j + 1]]``.
        firsts: First piece of each text, shape (n + 1,), int64; text i owns the pieces ``firsts[i]`` to
            ``firsts[i + 1] - 1``, which are several if it is read in chunks.
        counts: Counts of the n texts before they were cut.
    """

    input_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    firsts: NDArray[np.int64]
    counts: TokenCounts

    def __len__(self) -> int:
        return len(self.counts.lengths)


class TextEncoder:
    """The one way from text to token ids.

    Args:
        folder: Folder with ``tokenizer.json``.
        max_length: Number of tokens read at once, special tokens included.
        long_texts: Part of a longer text that is read.

    Raises:
        ModelError: The folder has no readable ``tokenizer.json``.
    """

    def __init__(self, folder: Path, max_length: int, long_texts: LongTexts = "head") -> None:
        self.folder = folder
        self.max_length = max_length
        self.long_texts = long_texts
        self._tokenizer = load_tokenizer(folder)
        # A published tokenizer.json may have its own truncation and fixed padding (MiniLM's has 128 and 128).
        # Both would silently change the input of the model.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.num_special = self._tokenizer.num_special_tokens_to_add(False)
        """Number of special tokens that every piece of a text gets."""

    def limited_to(self, max_length: int) -> TextEncoder:
        """Return an encoder like this one that keeps another number of tokens."""
        return TextEncoder(self.folder, max_length, self.long_texts)

    def to_json(self) -> str:
        """Return the tokenizer as the content of a ``tokenizer.json`` without padding or truncation."""
        text: str = self._tokenizer.to_str(pretty=True)
        return text

    @cached_property
    def sha256(self) -> str:
        """Digest of the tokenizer as returned by `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The unknown tokens and the single letters of the tokenizer."""
        return read_vocabulary(self.to_json())

    def encode(self, records: Sequence[Record], on_progress: Callable[[int], None] | None = None) -> list[Features]:
        """Return one Features per record, in order.

        Args:
            records: Records to encode.
            on_progress: Called with the number of records done so far.
        """
        return make_features(records, self.tokenise([record.text for record in records], on_progress))

    def tokenise(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> Tokens:
        """Return the token ids of texts, in order.

        The library spreads a chunk over all cores, unless TOKENIZERS_PARALLELISM forbids it, and does not hold the
        interpreter lock meanwhile. So the ids of one chunk are processed here while the next chunk is tokenised.

        Args:
            texts: Any number of texts.
            on_progress: Called with the number of texts done so far.
        """
        ids: list[NDArray[np.int32]] = []
        sizes: list[NDArray[np.int64]] = []
        counts: list[TokenCounts] = []
        done = 0
        for encodings in self._iter_encodings(texts):
            # Whole texts are tokenised and then cut, since the tokenizer's truncation would hide which texts are long.
            whole, counted = self._count(encodings)
            cut, cut_sizes = self._cut_long(encodings, whole, counted.lengths)
            ids.append(cut)
            sizes.append(cut_sizes)
            counts.append(counted)
            done += len(encodings)
            if on_progress is not None:
                on_progress(done)
        joined = self._join(counts)
        pieces = count_chunks(joined.lengths, self.max_length, self.num_special, self.long_texts)
        flat = np.concatenate(ids) if ids else np.empty(0, np.int32)
        return Tokens(flat, sum_up(np.concatenate(sizes) if sizes else []), sum_up(pieces), joined)

    def count_tokens(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> TokenCounts:
        """Return the counts of `tokenise` without the ids.

        Args:
            texts: Any number of texts.
            on_progress: Called with the number of texts done so far.
        """
        counts: list[TokenCounts] = []
        done = 0
        for encodings in self._iter_encodings(texts):
            counts.append(self._count(encodings)[1])
            done += len(encodings)
            if on_progress is not None:
                on_progress(done)
        return self._join(counts)

    def _count(self, encodings: Sequence[Any]) -> tuple[NDArray[np.int32], TokenCounts]:
        """Return the ids of texts end to end, uncut, and their counts."""
        lengths = np.fromiter(map(len, encodings), np.int32, len(encodings))
        flat = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32, int(lengths.sum()))
        ends = np.cumsum(lengths, dtype=np.int64)
        known = self.vocabulary
        unknown, spelled = (_count_true(table[flat], ends) for table in (known.is_unknown, known.is_letter))
        return flat, TokenCounts(lengths, unknown, spelled, self.num_special, known.unknown_kind)

    def _join(self, counts: Sequence[TokenCounts]) -> TokenCounts:
        nothing = np.empty(0, np.int32)
        lengths, unknown, spelled = (
            np.concatenate([nothing, *columns])
            for columns in (
                [part.lengths for part in counts],
                [part.unknown for part in counts],
                [part.spelled for part in counts],
            )
        )
        return TokenCounts(lengths, unknown, spelled, self.num_special, self.vocabulary.unknown_kind)

    def _iter_encodings(self, texts: Sequence[str]) -> Iterator[list[object]]:
        chunks = [texts[start : start + _CHUNK_TEXTS] for start in range(0, len(texts), _CHUNK_TEXTS)]
        if len(chunks) < 2:
            yield from (self._encode_chunk(chunk) for chunk in chunks)
            return
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(self._encode_chunk, chunks[0])
            for chunk in chunks[1:]:
                encodings = waiting.result()
                waiting = ahead.submit(self._encode_chunk, chunk)
                yield encodings
            yield waiting.result()

    def _encode_chunk(self, texts: Sequence[str]) -> list[object]:
        try:
            encodings: list[Any] = self._tokenizer.encode_batch_fast(list(texts))
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:
            # A stranger's tokenizer can fail on single texts, and a panic of the library is not an Exception.
            raise ModelError(
                f"the tokenizer fails on these texts: {str(error) or type(error).__name__:.300}",
                where=str(self.folder),
                hint="Its tokenizer.json is damaged or crafted; get the files of the base model again.",
            ) from None
        return encodings

    def _cut_long(
        self, encodings: Sequence[Any], whole: NDArray[np.int32], lengths: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of all pieces end to end, and the size of each piece."""
        long_rows = np.flatnonzero(lengths > self.max_length).tolist()
        if not long_rows:
            return whole, lengths.astype(np.int64)
        starts = sum_up(lengths)
        ids: list[NDArray[np.int32]] = []
        sizes: list[NDArray[np.int64]] = []
        after = 0
        for row in long_rows:
            start, end = int(starts[row]), int(starts[row + 1])
            pieces = self.cut(whole[start:end], np.asarray(encodings[row].special_tokens_mask, dtype=np.bool_))
            ids += [whole[starts[after] : start], *pieces]
            sizes += [lengths[after:row].astype(np.int64), np.array([len(piece) for piece in pieces], np.int64)]
            after = row + 1
        ids.append(whole[starts[after] :])
        sizes.append(lengths[after:].astype(np.int64))
        return np.concatenate(ids), np.concatenate(sizes)

    def cut(self, ids: NDArray[np.int32], is_special: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
        """Return the ids that are read of one text: one array for each pass, each with all special tokens.

        Args:
            ids: Token ids of the whole text, special tokens included; shape (T,).
            is_special: Whether the tokenizer added each of them; shape (T,).
        """
        if len(ids) <= self.max_length:
            return [ids]
        own = np.flatnonzero(~is_special)
        pieces = []
        for places in find_places(len(own), self.max_length - self.num_special, self.long_texts):
            # Special tokens stay at any place.
            keep = is_special.copy()
            keep[own[places]] = True
            pieces.append(ids[keep])
        return pieces


def make_features(records: Sequence[Record], tokens: Tokens) -> list[Features]:
    """Join records with the token ids of their texts, in the same order."""
    assert len(records) == len(tokens)
    borders, firsts = tokens.offsets.tolist(), tokens.firsts.tolist()
    num_kept = tokens.offsets[tokens.firsts[1:]] - tokens.offsets[tokens.firsts[:-1]]
    truncated = (tokens.counts.lengths > num_kept).tolist()
    ids = tokens.input_ids
    features = []
    for row, record in enumerate(records):
        first, last = firsts[row], firsts[row + 1]
        chunks = tuple(ids[borders[piece] : borders[piece + 1]] for piece in range(first, last))
        others = chunks if len(chunks) > 1 else ()
        key = hash_id(record.id)
        features.append(Features(record.id, chunks[0], record.label, truncated[row], key, chunks=others))
    return features


def sum_up(sizes: Sequence[int] | NDArray[np.integer[Any] | np.bool_]) -> NDArray[np.int64]:
    """Return the starts of parts of given sizes laid end to end, and the end of the last; shape (n + 1,), int64."""
    sums = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=sums[1:])
    return sums


def _count_true(values: NDArray[np.bool_], ends: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the number of true values in each of the parts that end at `ends`; shape (n,), int32."""
    sums = sum_up(values)[ends]
    return np.diff(sums, prepend=0).astype(np.int32)


def hash_id(record_id: str) -> int:
    """Return a 64-bit hash of a record's id that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "little")


_Result = TypeVar("_Result")


@contextmanager
def started_beside(
    jobs: Mapping[str, Callable[[Callable[[int], None]], _Result]],
) -> Iterator[dict[str, Callable[[], _Result]]]:
    """Run jobs one after the other on one thread beside the block; a tokenizer needs no more than that.

    Args:
        jobs: Functions that take a function to call between chunks, like `on_progress`. It ends a job if the block has
            been left.

    Yields:
        Functions that wait for each job's result, or raise its error.
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
