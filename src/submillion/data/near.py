"""Find pairs of nearly equal texts: MinHash proposes, exact Jaccard similarity of word 3-shingles decides.

Broder, "On the resemblance and containment of documents" (1997), sections 2 and 3, for the resemblance of shingle sets
and its estimate by minima of random orders; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", 3rd edition,
section 3.4, for banding: with b bands of r rows a pair of similarity s becomes a candidate with probability
1 - (1 - s^r)^b.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

SHINGLE_WORDS = 3
NUM_BANDS, BAND_ROWS = 30, 5
"""Recall at similarity 0.8: 1 - (1 - 0.8^5)^30 = 99.999 %; at 0.3 only 7 % of pairs become candidates."""

NUM_HASHES = NUM_BANDS * BAND_ROWS
# The estimate of a pair at 0.8 has a standard deviation of sqrt(0.8 * 0.2 / 150) = 0.033: six of them below.
MIN_ESTIMATE = 0.6
WHOLE_BUCKET, CROWD_NEIGHBOURS = 33, 1
"""Largest bucket whose texts are all compared; in larger ones each meets this many on either side, in each band."""

_WORD = re.compile(r"[^\W_]+")
_VOCABULARY_BITS = 21
_CHUNK_SHINGLES = 1 << 15
_CHUNK_PAIRS = 1 << 12

Progress = Callable[[str], None]


def normalise_text(text: str) -> str:
    """Fold case, punctuation and whitespace: the words in lower case, joined by one space."""
    return " ".join(_WORD.findall(text.casefold()))


def find_near_pairs(texts: Sequence[str], on_progress: Progress | None = None) -> NDArray[np.int64]:
    """Return the pairs of distinct normalised texts whose 3-shingles have a Jaccard similarity of at least 0.8.

    A text of fewer than three words is its own single shingle, so it is near to no other text. Every returned pair is
    verified exactly. Where more than 33 texts fall into one bucket, each is compared with two neighbours in the order
    of their signatures, in every band anew: time stays linear where thousands of rows follow one template, at the cost
    of missing some of the pairs among them.

    Args:
        texts: Distinct texts from `normalise_text`.
        on_progress: Told what is being done.

    Returns:
        Shape (pairs, 2): positions in `texts`, the lower one first, in ascending order.
    """
    shingles, starts, members = _make_shingles(texts)
    if len(members) < 2:
        return np.empty((0, 2), np.int64)
    if on_progress:
        on_progress(f"hashing {len(members):,} texts")
    signatures = _sign(shingles, starts)
    if on_progress:
        on_progress("comparing similar texts")
    candidates = _find_candidates(signatures)
    return members[_verify(candidates, shingles, starts)]


def _make_shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Return all shingles in one array, where each text's begin, and the positions of the texts that have any."""
    vocabulary: dict[str, int] = {}
    counts = np.zeros(len(texts), np.int64)
    flat = array("Q")
    for position, text in enumerate(texts):
        parts = text.split()
        if len(parts) >= SHINGLE_WORDS:
            counts[position] = len(parts)
            flat.extend([vocabulary.setdefault(word, len(vocabulary)) for word in parts])
    words = np.array(flat, np.uint64)
    members = np.flatnonzero(counts)
    if not len(members):
        return np.empty(0, np.uint64), np.empty(0, np.int64), members
    lengths = counts[members] - (SHINGLE_WORDS - 1)
    starts = np.cumsum(lengths) - lengths
    # Position of each shingle's first word: its own position plus two skipped words for every text before its own.
    first = np.arange(lengths.sum()) + np.repeat(np.arange(len(members)) * (SHINGLE_WORDS - 1), lengths)
    pairs = (words[first] << np.uint64(_VOCABULARY_BITS)) | words[first + 1]
    if len(vocabulary) >> _VOCABULARY_BITS:
        # Too many words for three to fit 64 bits: number the pairs that occur, which is exact for any vocabulary.
        pairs = np.unique((words[first] << np.uint64(32)) | words[first + 1], return_inverse=True)[1].astype(np.uint64)
        return (pairs << np.uint64(32)) | words[first + 2], starts, members
    return (pairs << np.uint64(_VOCABULARY_BITS)) | words[first + 2], starts, members


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread the bits (the finaliser of SplitMix64: Steele, Lea and Flood, OOPSLA 2014, figure 16)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _sign(shingles: NDArray[np.uint64], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the MinHash signatures, shape (texts, NUM_HASHES)."""
    generator = np.random.default_rng(0)
    factors = generator.integers(0, 1 << 63, NUM_HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = generator.integers(0, 1 << 63, NUM_HASHES, np.uint64)
    result = np.empty((len(starts), NUM_HASHES), np.uint32)
    ends = np.append(starts[1:], len(shingles))
    low = 0
    while low < len(starts):
        # Chunks small enough for the cache: the same numbers are read once for every hash function.
        high = max(low + 1, int(np.searchsorted(ends, starts[low] + _CHUNK_SHINGLES, "right")))
        begin = int(starts[low])
        mixed = _mix(shingles[begin : ends[high - 1]])
        borders = starts[low:high] - begin
        for k in range(NUM_HASHES):
            hashed = ((mixed * factors[k] + offsets[k]) >> np.uint64(32)).astype(np.uint32)
            result[low:high, k] = np.minimum.reduceat(hashed, borders)
        low = high
    return result


def _find_candidates(signatures: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return pairs that share a band and whose signatures agree enough, shape (pairs, 2), sorted, without repeats."""
    num_texts = len(signatures)
    found: list[NDArray[np.int64]] = []
    for band in range(NUM_BANDS):
        first = band * BAND_ROWS
        key = np.zeros(num_texts, np.uint64)
        for row in range(first, first + BAND_ROWS):
            key = _mix(key + signatures[:, row] + np.uint64(0x9E3779B97F4A7C15))
        # Inside a bucket the rest of the signature orders, so that the most similar texts stand side by side.
        after = signatures[:, (first + BAND_ROWS) % NUM_HASHES].astype(np.uint64)
        beyond = signatures[:, (first + BAND_ROWS + 1) % NUM_HASHES].astype(np.uint64)
        order = np.lexsort((beyond, after, key))
        key = key[order]
        begins = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        sizes = np.diff(np.append(begins, num_texts))
        reach = np.repeat(np.where(sizes <= WHOLE_BUCKET, WHOLE_BUCKET, CROWD_NEIGHBOURS), sizes)
        for distance in range(1, min(int(sizes.max()), WHOLE_BUCKET)):
            same = np.flatnonzero((key[distance:] == key[:-distance]) & (reach[distance:] >= distance))
            if not len(same):
                break
            left, right = order[same], order[same + distance]
            found.append(np.minimum(left, right) * num_texts + np.maximum(left, right))
    codes = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    return _keep_likely(np.stack([codes // num_texts, codes % num_texts], axis=1), signatures)


def _keep_likely(pairs: NDArray[np.int64], signatures: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the pairs whose signatures agree in enough places."""
    likely = np.zeros(len(pairs), np.bool_)
    for begin in range(0, len(pairs), _CHUNK_PAIRS):
        left, right = pairs[begin : begin + _CHUNK_PAIRS].T
        agreement = np.count_nonzero(signatures[left] == signatures[right], axis=1)
        likely[begin : begin + _CHUNK_PAIRS] = agreement >= MIN_ESTIMATE * NUM_HASHES
    return pairs[likely]


def _verify(
    candidates: NDArray[np.int64], shingles: NDArray[np.uint64], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    ends = np.append(starts[1:], len(shingles))
    sets: dict[int, frozenset[int]] = {}

    def get_set(text: int) -> frozenset[int]:
        if text not in sets:
            sets[text] = frozenset(shingles[starts[text] : ends[text]].tolist())
        return sets[text]

    near = []
    for left, right in candidates.tolist():
        a, b = get_set(left), get_set(right)
        common = len(a & b)
        # Whole numbers: common / union >= 4 / 5 without rounding.
        if 5 * common >= 4 * (len(a) + len(b) - common):
            near.append((left, right))
    return np.array(near, np.int64).reshape(-1, 2)
