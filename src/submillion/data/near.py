"""Find nearly equal texts: MinHash proposes pairs, and the exact Jaccard similarity of word 3-shingles decides.

The resemblance of shingle sets and its estimate by minima of random orders are from Broder, "On the resemblance and
containment of documents" (1997), sections 2 and 3. Keeping the lowest bits of the minima is from Li and Koenig, "b-Bit
Minwise Hashing" (2010). Banding is from Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", 3rd edition,
section 3.4: with b bands of r rows, a pair of similarity s meets in a bucket with probability 1 - (1 - s^r)^b.

A group of m nearly equal texts has m(m-1)/2 pairs, so listing all would take quadratic time. Fewer links answer the
doctor's questions (see `find_near_links`): once a link is known, pairs that could only repeat its answer are skipped,
and the number of successful comparisons stays proportional to the number of texts.
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SHINGLE_WORDS = 3
NUM_BANDS, BAND_ROWS = 30, 5
"""Recall at similarity 0.8 is 1 - (1 - 0.8^5)^30 = 99.999 %; at 0.3 only 7 % of pairs become candidates."""

NUM_HASHES = NUM_BANDS * BAND_ROWS
# At 0.8 the estimate has a standard deviation of sqrt(0.8 * 0.2 / 150) = 0.033; this bound is six of them lower.
MIN_ESTIMATE = 0.6
WHOLE_BUCKET = 33
"""Largest bucket whose texts are all compared with each other."""

MAX_MISSES = 64
"""Failed comparisons in larger buckets after which a text is compared in no more of them."""

_WORD = re.compile(r"[^\W_]+")
# For ASCII text this table does the same as the pattern, many times faster: it makes letters lower case and replaces
# all other signs but digits by blanks.
_ASCII = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
_VOCABULARY_BITS = 21
_CHUNK_SHINGLES = 1 << 15
_CHUNK_PAIRS = 1 << 12

Progress = Callable[[str], None]
_Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def normalise_text(text: str) -> str:
    """Return the words of a text in lower case, joined by one space, without punctuation."""
    if text.isascii():
        return " ".join(text.translate(_ASCII).split())
    return " ".join(_WORD.findall(text.casefold()))


def is_near_enough(common: int, first: int, second: int) -> bool:
    """Return whether sets of two sizes with `common` members in both have a Jaccard similarity of at least 0.8."""
    # Whole numbers express common / union >= 4 / 5 without rounding.
    return 5 * common >= 4 * (first + second - common)


def find_near_links(
    texts: Sequence[str], is_in: NDArray[np.bool_] | None = None, on_progress: Progress | None = None
) -> NDArray[np.int64]:
    """Return enough pairs of distinct texts whose 3-shingles have a Jaccard similarity of at least 0.8.

    Every returned pair is verified exactly, and the pairs answer two questions as all near pairs would. Which texts of
    a part are linked, directly or through others of that part? And which texts have a near text in a part? A text of
    fewer than three words is its own single shingle, so it is near to no other text.

    More than 33 texts can share a bucket, as when thousands of rows follow one template. Then a text is compared with
    one text of each part, its neighbour by the next band, and those whose next band is equal too. It gives up after 64
    misses. Time stays linear. Nearly equal texts are still found, since any of them will do. In a crowd whose
    similarities are around 0.8, links can be missed (docs/data.md has a figure).

    Args:
        texts: Distinct texts from `normalise_text`.
        is_in: Whether each part holds each text, shape (texts, parts); one part holds all if absent.
        on_progress: Called with a description of each step.

    Returns:
        Positions in `texts`, shape (pairs, 2), the lower one first, in ascending order.
    """
    shingles, starts, members = _make_shingles(texts)
    if len(members) < 2:
        return np.empty((0, 2), np.int64)
    if on_progress:
        on_progress(f"hashing {len(members):,} texts")
    signatures = _sign(shingles, starts)
    if on_progress:
        on_progress("comparing similar texts")
    holds = np.ones((len(members), 1), np.bool_) if is_in is None else is_in[members]
    search = _Search(shingles, starts, signatures, holds)
    for band in range(NUM_BANDS):
        search.compare_band(band)
    links = members[np.concatenate(search.links)] if search.links else np.empty((0, 2), np.int64)
    return np.unique(np.sort(links, axis=1), axis=0)


def _make_shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Return all shingles in one array, the start of each text's shingles, and the positions of texts that have any."""
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__  # a new word gets the next number
    number = vocabulary.__getitem__
    counts = np.zeros(len(texts), np.int64)
    flat = array("I")
    for position, text in enumerate(texts):
        parts = text.split()
        if len(parts) >= SHINGLE_WORDS:
            counts[position] = len(parts)
            flat.extend(map(number, parts))
    members = np.flatnonzero(counts)
    if not len(members):
        return np.empty(0, np.uint64), np.empty(0, np.int64), members
    words = np.array(flat, np.uint64)
    ends = np.cumsum(counts[members])
    is_first = np.ones(len(words), np.bool_)  # every word but a text's last two begins a shingle
    is_first[ends - 1] = is_first[ends - 2] = False
    if len(vocabulary) >> _VOCABULARY_BITS:
        # Three such numbers do not fit 64 bits, so the pairs that occur are numbered. This is exact for any vocabulary.
        pairs = np.unique((words[:-1] << np.uint64(32)) | words[1:], return_inverse=True)[1].astype(np.uint64)
        shingles = (pairs[:-1] << np.uint64(32)) | words[2:]
    else:
        shingles = words[:-2] << np.uint64(_VOCABULARY_BITS)
        shingles |= words[1:-1]
        shingles <<= np.uint64(_VOCABULARY_BITS)
        shingles |= words[2:]
    lengths = counts[members] - (SHINGLE_WORDS - 1)
    return shingles[is_first[:-2]], np.cumsum(lengths) - lengths, members


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread the bits (the finaliser of SplitMix64: Steele, Lea and Flood, OOPSLA 2014, figure 16)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _sign(shingles: NDArray[np.uint64], starts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return the MinHash signatures, the lower 16 bits of each minimum, shape (texts, NUM_HASHES)."""
    generator = np.random.default_rng(0)
    factors = generator.integers(0, 1 << 63, NUM_HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = generator.integers(0, 1 << 63, NUM_HASHES, np.uint64)
    result = np.empty((len(starts), NUM_HASHES), np.uint16)
    ends = np.append(starts[1:], len(shingles))
    low = 0
    while low < len(starts):
        # Chunks fit into the cache, since the same numbers are read once for every hash function.
        high = max(low + 1, int(np.searchsorted(ends, starts[low] + _CHUNK_SHINGLES, "right")))
        begin = int(starts[low])
        mixed = _mix(shingles[begin : ends[high - 1]])
        borders = starts[low:high] - begin
        for k in range(NUM_HASHES):
            hashed = ((mixed * factors[k] + offsets[k]) >> np.uint64(32)).astype(np.uint32)
            result[low:high, k] = np.minimum.reduceat(hashed, borders) & np.uint32(0xFFFF)
        low = high
    return result


class _Search:
    """Texts under comparison and the links found so far.

    Args:
        shingles: Shingles of all texts, end to end.
        starts: Start of each text's shingles.
        signatures: MinHash signatures, shape (texts, NUM_HASHES).
        holds: Whether a part holds a text, shape (texts, parts).
    """

    def __init__(
        self,
        shingles: NDArray[np.uint64],
        starts: NDArray[np.int64],
        signatures: NDArray[np.uint16],
        holds: NDArray[np.bool_],
    ) -> None:
        self.links: list[NDArray[np.int64]] = []
        self._shingles = shingles
        self._borders = np.append(starts, len(shingles))
        self._signatures = signatures
        self._holds = holds
        # A text is near to itself, so a text in a part needs no other near text there.
        self._is_near = holds.copy()
        self._roots = np.tile(np.arange(len(starts)), (holds.shape[1], 1))
        self._misses = np.zeros(len(starts), np.int64)
        self._hashes, self._hash_borders = self._hash_shingles()

    def _hash_shingles(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return each text's distinct shingles as 32-bit hashes in ascending order, and the start of each text's."""
        num_texts = len(self._borders) - 1
        texts = np.repeat(np.arange(num_texts, dtype=np.uint64), np.diff(self._borders))
        keys = np.sort((texts << np.uint64(32)) | (_mix(self._shingles) >> np.uint64(32)), kind="stable")
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
        borders = np.searchsorted(keys, np.arange(num_texts + 1, dtype=np.uint64) << np.uint64(32))
        return keys.astype(np.uint32), borders

    def compare_band(self, band: int) -> None:
        """Compare the texts that share a bucket of a band."""
        texts, buckets = _sort_into_buckets(self._hash_band(band))
        is_crowded = np.bincount(buckets) > WHOLE_BUCKET if len(buckets) else np.empty(0, np.bool_)
        small = ~is_crowded[buckets]
        for pairs in _pair_within(texts[small], buckets[small]):
            self._compare(*pairs)
        if is_crowded.any():
            self._compare_crowd(texts[~small], buckets[~small], self._hash_band((band + 1) % NUM_BANDS))

    def _compare_crowd(
        self, texts: NDArray[np.int64], buckets: NDArray[np.int64], next_keys: NDArray[np.uint64]
    ) -> None:
        order = np.lexsort((texts, next_keys[texts], buckets))
        texts, buckets = texts[order], buckets[order]
        self._compare_with_leaders(texts, buckets)
        is_same = buckets[1:] == buckets[:-1]
        self._compare(texts[:-1][is_same], texts[1:][is_same], limited=True)
        is_same &= next_keys[texts[1:]] == next_keys[texts[:-1]]
        groups = np.append(0, np.cumsum(~is_same))
        is_crowded = (np.bincount(groups) > WHOLE_BUCKET)[groups]
        for pairs in _pair_within(texts[~is_crowded], groups[~is_crowded]):
            self._compare(*pairs, limited=True)
        self._compare_with_leaders(texts[is_crowded], groups[is_crowded])

    def _compare_with_leaders(self, texts: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
        """Compare every text with the first text of each part in its group; groups ascend."""
        for part in range(self._holds.shape[1]):
            inside = np.flatnonzero(self._holds[texts, part])
            led, first = np.unique(groups[inside], return_index=True)
            leaders = np.full(int(groups[-1]) + 1 if len(groups) else 0, -1)
            leaders[led] = texts[inside[first]]
            leader = leaders[groups]
            has_leader = (leader >= 0) & (leader != texts)
            self._compare(texts[has_leader], leader[has_leader], limited=True)

    def _compare(self, left: NDArray[np.int64], right: NDArray[np.int64], *, limited: bool = False) -> None:
        """Keep the near pairs among those that could add something new as links."""
        chosen = self._is_telling(left, right)
        if limited:
            chosen &= self._misses[left] < MAX_MISSES
        left, right = left[chosen], right[chosen]
        is_near = np.zeros(len(left), np.bool_)
        for begin in range(0, len(left), _CHUNK_PAIRS):
            part = slice(begin, begin + _CHUNK_PAIRS)
            is_near[part] = self._check_pairs(left[part], right[part])
        if limited:
            np.add.at(self._misses, left[~is_near], 1)
        left, right = left[is_near], right[is_near]
        if len(left):
            self.links.append(np.stack([left, right], axis=1))
            self._note_links(left, right)

    def _is_telling(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a pair, if near, would link two groups of a part or be a text's first near one in a part."""
        telling = np.zeros(len(left), np.bool_)
        for part, roots in enumerate(self._roots):
            holds, is_near = self._holds[:, part], self._is_near[:, part]
            left_in, right_in = holds[left], holds[right]
            telling |= left_in & right_in & (roots[left] != roots[right])
            telling |= (left_in & ~is_near[right]) | (right_in & ~is_near[left])
        return telling

    def _check_pairs(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        agreement = np.count_nonzero(self._signatures[left] == self._signatures[right], axis=1)
        is_near: NDArray[np.bool_] = agreement >= MIN_ESTIMATE * NUM_HASHES
        is_near[is_near] = self._can_be_near(left[is_near], right[is_near])
        sets: dict[int, frozenset[int]] = {}
        near = zip(left[is_near].tolist(), right[is_near].tolist(), strict=True)
        is_near[is_near] = [self._is_near_exactly(pair, sets) for pair in near]
        return is_near

    def _can_be_near(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Compare all pairs at once by hashes of the shingles; two in ten million shingles may share a hash."""
        sizes = np.diff(self._hash_borders)
        sides = [_gather(self._hashes, self._hash_borders, side) for side in (left, right)]
        keys = [
            np.repeat(np.arange(len(side), dtype=np.uint64) << np.uint64(32), sizes[side]) | hashes
            for side, hashes in zip((left, right), sides, strict=True)
        ]
        both = np.sort(np.concatenate(keys), kind="stable")  # a stable sort merges the two ascending runs
        common = np.bincount((both[1:][both[1:] == both[:-1]] >> np.uint64(32)).astype(np.int64), minlength=len(left))
        possible: NDArray[np.bool_] = 5 * common >= 4 * (sizes[left] + sizes[right] - common)
        return possible

    def _is_near_exactly(self, pair: tuple[int, int], sets: dict[int, frozenset[int]]) -> bool:
        for text in pair:
            if text not in sets:
                sets[text] = frozenset(self._shingles[self._borders[text] : self._borders[text + 1]].tolist())
        a, b = sets[pair[0]], sets[pair[1]]
        return is_near_enough(len(a & b), len(a), len(b))

    def _note_links(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        np.logical_or.at(self._is_near, left, self._holds[right])
        np.logical_or.at(self._is_near, right, self._holds[left])
        for part, roots in enumerate(self._roots):
            inside = self._holds[left, part] & self._holds[right, part]
            unite(roots, left[inside], right[inside])

    def _hash_band(self, band: int) -> NDArray[np.uint64]:
        key = np.zeros(len(self._signatures), np.uint64)
        for row in range(band * BAND_ROWS, (band + 1) * BAND_ROWS):
            key = _mix(key + self._signatures[:, row] + np.uint64(0x9E3779B97F4A7C15))
        return key


def _sort_into_buckets(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the texts that share their key with others, bucket by bucket, and the bucket number of each."""
    # The position is in the lower bits and the key in the others, since sorting numbers is far faster than sorting
    # positions by key. Two keys that differ only in the lower bits count as one, which costs a comparison.
    bits = np.uint64(len(keys).bit_length())
    packed = np.sort((keys >> bits << bits) | np.arange(len(keys), dtype=np.uint64))
    buckets = packed >> bits
    is_new = np.append(True, buckets[1:] != buckets[:-1])
    is_shared = ~(is_new & np.append(is_new[1:], True))
    texts = (packed[is_shared] & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    return texts, np.cumsum(is_new[is_shared]) - 1


def _pair_within(texts: NDArray[np.int64], groups: NDArray[np.int64]) -> Iterator[_Pairs]:
    """Yield all pairs inside the groups, a few distances at a time, since links found early save later comparisons."""
    distance, num_distances = 1, 1
    while True:
        pairs = []
        for reach in range(distance, min(distance + num_distances, WHOLE_BUCKET)):
            same = np.flatnonzero(groups[reach:] == groups[:-reach])
            pairs.append((texts[same], texts[same + reach]))
        if not pairs or not len(pairs[0][0]):
            return
        left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
        yield left, right
        distance, num_distances = distance + num_distances, 2 * num_distances


def _gather(values: NDArray[np.uint32], borders: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the values of some texts, end to end."""
    sizes = borders[texts + 1] - borders[texts]
    begins = np.cumsum(sizes) - sizes
    gathered: NDArray[np.uint32] = values[np.arange(sizes.sum()) + np.repeat(borders[texts] - begins, sizes)]
    return gathered


def unite(roots: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
    """Join the groups of each pair.

    Args:
        roots: Root of each member, shape (n,), changed in place. A group's root is its lowest member.
        left: First members of the pairs, shape (pairs,).
        right: Second members, likewise.
    """
    while True:
        a, b = roots[left], roots[right]
        if (a == b).all():
            return
        np.minimum.at(roots, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(above := roots[roots], roots):
            roots[:] = above
