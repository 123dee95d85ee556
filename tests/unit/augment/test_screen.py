"""The rows that the filters drop, the reasons, and the order of the checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from submillion.augment.filter_rows import Draft, Score, Screen, name_defect
from submillion.config.generate import ScreenSettings
from submillion.errors import RunError

REAL = "The council closed the old bridge over the river on Monday after a storm had torn its railing away"
GOOD = "Farmers in the valley sold their last wheat of the season at a price that nobody had expected"
OTHER = "A striker of nineteen scored twice before the break and the visitors never recovered from it"


def make_screen(
    score: Score | None = None,
    *,
    needed: Sequence[int] = (5, 5),
    **settings: float,
) -> Screen:
    return Screen(ScreenSettings(**settings), [REAL], ["train.csv:7"], needed, score)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("The market fell to \N{REPLACEMENT CHARACTER} points on Friday, traders said", "garbage"),
        ("12 - 3, 4.5 % (17) 88 22 19 -- 7 abc", "garbage"),
        ("shares shares shares of the shares company shares fell shares on shares", "garbage"),
        ("a b a b a b a b a b a b", "garbage"),
        ("Rain stops play", "too_short"),
        ("word " * 3 + "and then " + "some more different things happened here today", "too_long"),
        (GOOD, None),
    ],
)
def test_a_text_is_judged_by_itself(text: str, reason: str | None) -> None:
    assert name_defect(text, ScreenSettings(max_words=11 if reason == "too_long" else 60)) == reason


def test_real_and_earlier_rows_are_not_repeated() -> None:
    screen = make_screen()
    drafts = [Draft(REAL.upper() + "!", 0), Draft(GOOD, 0), Draft(f"{GOOD} today", 0), Draft(OTHER, 1)]
    verdicts = screen.judge(drafts)
    assert [verdict.reason for verdict in verdicts] == ["near_real", None, "near_earlier", None]
    assert verdicts[0].near == "train.csv:7"
    assert screen.judge([Draft(OTHER, 1)])[0].reason == "near_earlier"


def test_a_dropped_row_does_not_stand_in_the_way_of_a_later_one() -> None:
    def score(texts: Sequence[str]) -> NDArray[np.floating]:
        return np.array([[0.9, 0.1]] * len(texts))

    screen = make_screen(score)
    assert [v.reason for v in screen.judge([Draft(GOOD, 1), Draft(GOOD, 0)])] == ["disagreed", None]


def test_the_classifier_is_asked_only_of_texts_that_passed_so_far() -> None:
    asked: list[str] = []

    def score(texts: Sequence[str]) -> NDArray[np.floating]:
        asked.extend(texts)
        return np.array([[0.4, 0.6]] * len(texts))

    screen = make_screen(score, min_probability=0.6)
    verdicts = screen.judge([Draft("", 0), Draft(REAL, 1), Draft(GOOD, 0), Draft(OTHER, 1)])
    assert asked == [GOOD, OTHER]
    assert [(v.reason, v.probability) for v in verdicts] == [
        ("empty", None),
        ("near_real", None),
        ("disagreed", 0.4),
        (None, 0.6),
    ]


def test_a_class_that_has_its_rows_needs_no_more() -> None:
    screen = make_screen(needed=(1, 1))
    assert [v.reason for v in screen.judge([Draft(GOOD, 0), Draft(OTHER, 0)])] == [None, "not_needed"]
    assert screen.needed == [0, 1]
    assert screen.judge([Draft(OTHER, 1)])[0].reason is None


def test_remembered_rows_count_as_kept() -> None:
    screen = make_screen(needed=(2, 2))
    screen.remember(Draft(GOOD, 0))
    assert screen.needed == [1, 2]
    assert screen.judge([Draft(GOOD, 0)])[0].reason == "near_earlier"


def test_probabilities_that_are_none_end_in_an_error() -> None:
    screen = make_screen(lambda texts: np.full((len(texts), 2), np.nan))
    with pytest.raises(RunError, match="not finite"):
        screen.judge([Draft(GOOD, 0)])
