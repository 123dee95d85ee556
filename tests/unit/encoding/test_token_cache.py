from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from submillion.cache import Cache
from submillion.config.run import LongTexts
from submillion.data.legibility import TokenCounts
from submillion.encoding import token_cache
from submillion.encoding.text_encoder import TextEncoder, Tokens
from submillion.encoding.token_cache import recall_tokens

Base = Callable[[str], Path]

TEXTS = ["the river met", "", "a striker of nineteen scored twice in the derby of the year", "rate 4.5%"]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, notes: list[str]) -> Cache:
    return Cache(tmp_path / "kept", on_note=notes.append)


@pytest.fixture
def encoder(tiny_base: Base) -> TextEncoder:
    return TextEncoder(tiny_base("bert"), 16)


class Counting(TextEncoder):
    """Counts the texts that are really tokenised."""

    num_texts = 0

    def tokenise(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> Tokens:
        self.num_texts += len(texts)
        return super().tokenise(texts, on_progress)


def assert_equal(left: Tokens, right: Tokens) -> None:
    for one, other in (
        (left.input_ids, right.input_ids),
        (left.offsets, right.offsets),
        (left.firsts, right.firsts),
        (left.counts.lengths, right.counts.lengths),
        (left.counts.unknown, right.counts.unknown),
        (left.counts.spelled, right.counts.spelled),
    ):
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("texts", [TEXTS, [], [""]])
def test_a_second_call_tokenises_nothing_and_gives_the_same(
    tiny_base: Base, cache: Cache, notes: list[str], texts: list[str]
) -> None:
    encoder = Counting(tiny_base("bert"), 16)
    first, second = (recall_tokens(encoder, texts, cache) for _ in range(2))
    assert encoder.num_texts == len(texts)
    assert_equal(first, TextEncoder(tiny_base("bert"), 16).tokenise(texts))
    assert_equal(second, first)
    assert second.input_ids.dtype == np.int32
    assert notes == []


def test_ids_beyond_two_bytes_come_back(encoder: TextEncoder, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    one, borders = np.array([3], np.int32), np.array([0, 3], np.int64)
    counts = TokenCounts(one, one - 2, one - 3, 2, "token")
    large = Tokens(np.array([1, 70_000, 65_536], np.int32), borders, np.array([0, 1], np.int64), counts)
    monkeypatch.setattr(TextEncoder, "tokenise", lambda *_: large)
    assert_equal(recall_tokens(encoder, ["x"], cache), large)
    monkeypatch.undo()
    assert_equal(recall_tokens(encoder, ["x"], cache), large)


@pytest.mark.parametrize("change", ["text", "order", "border", "length", "rule", "tokenizer"])
def test_whatever_the_ids_follow_from_is_part_of_the_key(tiny_base: Base, cache: Cache, change: str) -> None:
    recall_tokens(TextEncoder(tiny_base("bert"), 16), TEXTS, cache)
    changed = {
        "text": [*TEXTS[:-1], "rate 4.6%"],
        "order": TEXTS[::-1],
        "border": ["the river meta", "", " striker of nineteen scored twice in the derby of the year", "rate 4.5%"],
    }.get(change, TEXTS)
    base = tiny_base("roberta" if change == "tokenizer" else "bert")
    encoder = Counting(base, 12 if change == "length" else 16, "chunks" if change == "rule" else "head")
    fresh = TextEncoder(base, encoder.max_length, encoder.long_texts)
    assert_equal(recall_tokens(encoder, changed, cache), fresh.tokenise(changed))
    assert encoder.num_texts == len(TEXTS)


@pytest.mark.parametrize("rule", ["head", "head_tail", "chunks"])
def test_arrays_that_cannot_be_these_texts_tokens_are_not_used(tiny_base: Base, rule: LongTexts) -> None:
    encoder = TextEncoder(tiny_base("bert"), 8, rule)
    tokens = encoder.tokenise(TEXTS)
    good = token_cache._pack(tokens)
    assert token_cache._unpack(good, len(TEXTS), encoder) is not None
    assert token_cache._unpack(good, len(TEXTS) + 1, encoder) is None
    assert token_cache._unpack(good, len(TEXTS), encoder.limited_to(10)) is None
    for damage in (
        {"input_ids": good["input_ids"][:-1]},
        {"offsets": good["offsets"] + 1},
        {"offsets": np.sort(good["offsets"])[::-1]},
        {"lengths": good["lengths"][::-1].copy()},
        {"unknown": good["unknown"][1:]},
        {"other": good["lengths"]},
    ):
        assert token_cache._unpack({**good, **damage}, len(TEXTS), encoder) is None


def test_a_damaged_file_is_made_anew(encoder: TextEncoder, cache: Cache, notes: list[str]) -> None:
    expected = recall_tokens(encoder, TEXTS, cache)
    assert cache.folder is not None
    (path,) = cache.folder.iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert_equal(recall_tokens(encoder, TEXTS, cache), expected)
    assert len(notes) == 1
    assert_equal(recall_tokens(encoder, TEXTS, cache), expected)
    assert len(notes) == 1
