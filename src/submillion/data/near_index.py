"""Find a known text that is equal or near to a new one, by the doctor's rule, one text at a time.

`data/near.py` finds the near pairs of a whole collection at once. Rows that are written one by one need the answer for
each of them, against all rows kept before. Here every 3-shingle lists its texts, so the Jaccard similarity with each
text that shares one is counted exactly. Nothing is estimated.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from submillion.data.near import SHINGLE_WORDS, is_near_enough, normalise_text

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class NearIndex:
    """Known texts to compare others with; more can be added.

    Two texts are near if the Jaccard similarity of their sets of word 3-shingles is at least 0.8. Shingles are
    compared by 64-bit hashes: among ten million, two different ones agree with a probability of 3 in a million.

    Args:
        texts: Known texts, as their rows have them.
    """

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._words: defaultdict[str, int] = defaultdict()
        self._words.default_factory = self._words.__len__  # a new word gets the next number
        self._numbers: dict[str, int] = {}
        self._sizes = array("I")
        self._added: dict[int, list[int]] = defaultdict(list)
        shingles, owners = [], []
        for number, text in enumerate(texts):
            codes = self._register(normalise_text(text), number)
            shingles.append(codes)
            owners.append(np.full(len(codes), number, np.uint32))
        flat = np.concatenate(shingles) if shingles else np.empty(0, np.uint64)
        order = np.argsort(flat, kind="stable")
        self._shingles = flat[order]
        self._owners = (np.concatenate(owners) if owners else np.empty(0, np.uint32))[order]

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, text: str) -> int:
        """Add a text and return its number, counted from the first text of the index."""
        number = len(self)
        for code in self._register(normalise_text(text), number).tolist():
            self._added[code].append(number)
        return number

    def find(self, text: str) -> int | None:
        """Return the number of a known text that is equal after normalisation or near, or None."""
        words = normalise_text(text)
        if words in self._numbers:
            return self._numbers[words]
        codes = self._hash_shingles(words)
        common: Counter[int] = Counter()
        left = np.searchsorted(self._shingles, codes, "left").tolist()
        right = np.searchsorted(self._shingles, codes, "right").tolist()
        for begin, end in zip(left, right, strict=True):
            common.update(self._owners[begin:end].tolist())
        for code in codes.tolist():
            common.update(self._added.get(code, ()))
        near = (n for n, count in common.items() if is_near_enough(count, len(codes), self._sizes[n]))
        return min(near, default=None)

    def _register(self, words: str, number: int) -> NDArray[np.uint64]:
        codes = self._hash_shingles(words)
        self._sizes.append(len(codes))
        self._numbers.setdefault(words, number)
        return codes

    def _hash_shingles(self, words: str) -> NDArray[np.uint64]:
        """Return the distinct shingles of a normalised text, ascending; texts of fewer than three words have none."""
        parts = words.split()
        if len(parts) < SHINGLE_WORDS:
            return np.empty(0, np.uint64)
        number = self._words.__getitem__
        numbers = np.fromiter(map(number, parts), np.uint64, len(parts))
        codes = numbers[:-2]
        for following in (numbers[1:-1], numbers[2:]):
            codes = (codes ^ (codes >> np.uint64(32))) * _MULTIPLIER
            codes = codes + following + np.uint64(1)
        return np.unique((codes ^ (codes >> np.uint64(29))) * _MULTIPLIER)
