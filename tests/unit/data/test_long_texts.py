"""The parts of long texts that are read: places, pieces and counts agree with each other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from submillion.config.run import LongTexts
from submillion.data.long_texts import count_chunks, count_kept, find_places

RULES: tuple[LongTexts, ...] = ("head", "head_tail", "chunks")


def test_head_and_tail_share_the_room_as_published() -> None:
    (places,) = find_places(2000, 510, "head_tail")
    assert places[:128].tolist() == list(range(128))
    assert places[128:].tolist() == list(range(2000 - 382, 2000))


@given(st.integers(1, 80), st.integers(1, 500))
def test_chunks_cover_a_text_once_in_order_and_are_alike(room: int, more: int) -> None:
    pieces = find_places(room + more, room, "chunks")
    assert np.concatenate(pieces).tolist() == list(range(room + more))
    sizes = {len(piece) for piece in pieces}
    assert max(sizes) <= room
    assert max(sizes) - min(sizes) <= 1
    # The number of chunks is the smallest that holds the text.
    assert (len(pieces) - 1) * room < room + more


@given(st.sampled_from(RULES), st.integers(3, 60), st.integers(1, 2), st.lists(st.integers(1, 400), max_size=20))
def test_counts_are_those_of_the_places(rule: LongTexts, limit: int, num_special: int, own: list[int]) -> None:
    lengths = np.array(own, np.int32) + num_special
    pieces, kept = count_chunks(lengths, limit, num_special, rule), count_kept(lengths, limit, num_special, rule)
    for length, number, count in zip(lengths.tolist(), pieces.tolist(), kept.tolist(), strict=True):
        if length <= limit:
            assert (number, count) == (1, length)
            continue
        places = find_places(length - num_special, limit - num_special, rule)
        assert number == len(places)
        assert count == sum(len(part) + num_special for part in places)


@pytest.mark.parametrize("rule", RULES)
def test_places_ascend(rule: LongTexts) -> None:
    for piece in find_places(100, 30, rule):
        assert all(left < right for left, right in pairwise(piece.tolist()))
