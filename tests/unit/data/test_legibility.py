"""Unknown, spelled and cut tokens: sums, classes, and the sentences that follow from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from submillion.config.run import LongTexts
from submillion.data.legibility import (
    LOUD_CUT,
    LOUD_UNKNOWN,
    TokenCounts,
    describe_legibility,
    explain_unread,
    list_loud,
    measure_legibility,
)

TEXTS = ["a" * 40, "b" * 90, "c" * 10, "d" * 20]


def measure(
    lengths: list[int], unknown: list[int], spelled: list[int] | None = None, rule: LongTexts = "head"
) -> dict[str, Any]:
    counts = TokenCounts(
        np.array(lengths, np.int32),
        np.array(unknown, np.int32),
        np.array(spelled or [0] * len(lengths), np.int32),
        2,
        "token",
    )
    labels = [0, 1, 1, None]
    return measure_legibility(TEXTS, counts, labels, ("tea", "coffee"), max_length=10, long_texts=rule).to_json()


def test_sums_are_of_the_texts_own_tokens_and_by_class() -> None:
    figures = measure([12, 34, 4, 6], [1, 0, 2, 0])
    assert (figures["num_records"], figures["num_tokens"], figures["num_characters"]) == (4, 48, 160)
    assert (figures["num_long"], figures["num_cut"], figures["num_tokens_cut"]) == (2, 2, 26)
    assert figures["unknown_share"] == pytest.approx(3 / 48)
    assert figures["cut_tokens_share"] == pytest.approx(26 / 48)
    assert figures["tokens_per_character"] == pytest.approx(0.3)
    tea, coffee = figures["classes"]["tea"], figures["classes"]["coffee"]
    assert (tea["num_records"], tea["num_tokens"], tea["num_unknown_tokens"], tea["num_tokens_cut"]) == (1, 10, 1, 2)
    assert (coffee["num_records"], coffee["num_tokens"], coffee["num_cut"]) == (2, 34, 1)


def test_chunks_lose_nothing_and_say_that_they_are_read() -> None:
    figures = measure([12, 34, 4, 6], [0, 0, 0, 0], rule="chunks")
    assert (figures["num_long"], figures["num_cut"], figures["num_tokens_cut"]) == (2, 0, 0)
    assert list_loud(figures) == []
    (line,) = describe_legibility(figures, what="texts")
    assert "2 of 4 texts are longer than 10 tokens and are read in chunks" in line
    assert describe_legibility(figures, what="texts", loud_only=True) == []


def test_no_texts_give_no_figures_that_divide_by_nothing() -> None:
    none = np.empty(0, np.int32)
    nothing = TokenCounts(none, none, none, 2, "token")
    figures = measure_legibility([], nothing, [], ("a", "b"), max_length=8, long_texts="head").to_json()
    assert (figures["num_records"], figures["unknown_share"], figures["classes"]) == (0, 0.0, {})
    assert describe_legibility(figures, what="texts") == []


def test_small_shares_are_told_and_large_ones_are_warnings() -> None:
    quiet = measure([1002, 1002, 1002, 1002], [1, 0, 0, 0], rule="chunks")
    told = describe_legibility(quiet, what="texts")
    assert "(1 of 4,000) are unknown" in told[0]
    assert not any(line.startswith("warning") for line in told)
    loud = measure([12, 34, 4, 6], [1, 0, 2, 0])
    unknown, cut = describe_legibility(loud, what="training texts")
    assert unknown.startswith("warning: 6.25% of the tokens of training texts (3 of 48)")
    assert "xlm-roberta-base" in unknown
    assert "2 of 4 training texts (50.0%) are cut to their first 10 tokens; 54.2% of all tokens are not read" in cut
    assert "coffee 70.6%, tea 20.0%" in cut
    assert "model.long_texts=chunks" in cut
    known = list_loud(loud)
    assert describe_legibility(loud, what="test texts", loud_only=True, known=known) == []


def test_one_class_that_cannot_be_read_is_loud_among_many_that_can() -> None:
    figures = measure([102, 2_000_002, 4, 6], [50, 0, 0, 0], rule="chunks")
    assert figures["unknown_share"] < LOUD_UNKNOWN
    assert list_loud(figures) == ["unknown_share"]


def test_spelled_words_are_told_only_where_they_are_many() -> None:
    assert describe_legibility(measure([10, 10, 4, 6], [0] * 4, [2, 1, 0, 0]), what="texts") == []
    (line,) = describe_legibility(measure([10, 10, 4, 6], [0] * 4, [8, 0, 0, 0]), what="texts")
    assert "single letters" in line
    assert "tea 100.0%" in line


def test_the_reason_that_a_report_gives_follows_from_the_figures() -> None:
    cut = {"check": {"legibility": measure([12, 34, 4, 6], [0] * 4)}}
    assert cut["check"]["legibility"]["cut_tokens_share"] > LOUD_CUT
    assert "54.2% of all tokens are cut off" in explain_unread(cut)
    assert "unknown" in explain_unread({"check": {"legibility": measure([10, 10, 4, 6], [8, 0, 0, 0])}})
    assert explain_unread({"check": {"legibility": measure([10, 10, 4, 6], [0] * 4)}}) == ""
    of_old: list[dict[str, Any]] = [{}, {"check": {}}, {"check": {"legibility": None}}]
    for old in of_old:
        assert explain_unread(old) == ""
