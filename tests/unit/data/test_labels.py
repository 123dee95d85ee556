"""The meaning of a label column is decided once, kept, and refused if another reading would be needed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import pytest

from submillion.data.labels import Numbering, NumbersChoice, RawLabels, apply_labels, decide_classes, normalise_label
from submillion.errors import DataError
from submillion.records import LabelSet, Record

NEWS = LabelSet(("World", "Sports", "Business", "Sci/Tech"))
STARS = LabelSet(("1", "2", "3", "4", "5"))
NAMES, IDS, FROM_ONE = Numbering("names"), Numbering("ids", 0), Numbering("ids", 1)


def column(values: Sequence[object], **more: Any) -> RawLabels:
    records = [Record(str(n), ("text",), None, f"a.csv:{n + 2}") for n in range(len(values))]
    settings: dict[str, Any] = {"one_based": False, "names": None, "folder": "", **more}
    return RawLabels([normalise_label(value) for value in values], records, **settings)


def ids_of(values: Sequence[object], labels: LabelSet, numbering: Numbering | None, **more: object) -> list[int | None]:
    return [record.label for record in apply_labels(column(values, **more), labels, numbering)]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        *[(spelled, 1) for spelled in (1, "1", 1.0, "1.0", " 1 ", "1.00", "\ufeff1", "1\u200b")],
        *[("01", "01"), ("1.", "1."), ("+1", "+1"), ("1e0", "1e0"), ("1.5", "1.5"), (1.5, "1.5"), ("\u0661", "\u0661")],
        *[(-1, -1), ("-1", -1), ("-1.0", -1), (0, 0), ("0.0", 0), (-0.0, 0)],
        *[(True, "True"), (False, "False"), ("true", "true")],
        *[(None, None), (math.nan, None), ("", None), (" \t", None), ("\u200b", None), ("nan", "nan")],
        *[(10**17, 10**17), (str(10**17), 10**17), (10**18, str(10**18)), (str(10**18), str(10**18))],
        *[(1e300, "1e+300"), (math.inf, "inf")],
        *[("caf\u00e9", "caf\u00e9"), ("cafe\u0301", "caf\u00e9"), ("a\u00a0 b", "a b"), ("sp\u00adort", "sport")],
    ],
)
def test_one_label_has_one_value_however_it_is_spelled(value: object, label: object) -> None:
    found = normalise_label(value)
    assert (found, type(found)) == (label, type(label))


def test_a_label_of_very_many_marks_takes_no_long_time() -> None:
    began = time.perf_counter()
    normalise_label("a" + "\u0301\u0323" * 250_000)
    assert time.perf_counter() - began < 5


def test_numbers_that_python_does_not_spell_are_names_all_the_same() -> None:
    assert normalise_label(10**6000) == hex(10**6000)


@pytest.mark.parametrize(
    ("values", "more", "names", "numbering", "official"),
    [
        (["b", "a"], {}, ("a", "b"), NAMES, False),
        (["0", "1", "2"], {}, ("0", "1", "2"), IDS, False),
        (["1", "2", "3"], {}, ("1", "2", "3"), NAMES, False),
        (["0", "1", "3"], {}, ("0", "1", "3"), NAMES, False),
        (["-1", "0", "1"], {}, ("-1", "0", "1"), NAMES, False),
        (["1", "1.0", "2"], {}, ("1", "2"), NAMES, False),
        (["1", "x"], {}, ("1", "x"), NAMES, False),
        (["1", "2"], {"one_based": True}, ("1", "2"), FROM_ONE, True),
        (["1", "3"], {"one_based": True}, ("1", "3"), NAMES, False),
        (["1", "4"], {"one_based": True, "names": NEWS.names}, NEWS.names, FROM_ONE, True),
        ([3, 0], {"names": NEWS.names, "is_encoded": True}, NEWS.names, IDS, False),
        ([True, False], {}, ("False", "True"), NAMES, False),
    ],
)
def test_classes_are_decided_by_the_training_rows(
    values: list[object], more: dict[str, object], names: tuple[str, ...], numbering: Numbering, official: bool
) -> None:
    classes = decide_classes(column(values, **more))
    assert (classes.labels.names, classes.numbering, classes.is_official) == (names, numbering, official)
    is_guess = numbering == NAMES and all(isinstance(normalise_label(value), int) for value in values)
    assert bool(classes.notes) == is_guess


@pytest.mark.parametrize(
    ("choice", "values", "names", "first"),
    [("ids", [0, 1], ("0", "1"), 0), ("ids-from-1", [1, 2], ("1", "2"), 1), ("names", [0, 1], ("0", "1"), 0)],
)
def test_a_setting_decides(choice: NumbersChoice, values: list[int], names: tuple[str, ...], first: int) -> None:
    numbering = Numbering.parse(choice)
    assert numbering is not None
    assert numbering.choice == choice
    classes = decide_classes(column(values), numbering=numbering)
    assert (classes.labels.names, classes.numbering.first_id) == (names, first)


def test_ids_that_are_asked_for_have_no_gap() -> None:
    with pytest.raises(DataError, match=r"a.csv:4: the label 3 lies outside 0..2(?s:.*)--numbers names"):
        decide_classes(column([0, 1, 3]), numbering=Numbering.parse("ids"))


def test_given_names_say_from_where_numbers_count() -> None:
    assert decide_classes(column([0, 1, 2]), labels=NEWS).numbering == IDS
    counted = decide_classes(column([1, 4]), labels=NEWS)
    assert counted.numbering == FROM_ONE
    assert "count from 1: 1 is World" in counted.notes[0]
    assert decide_classes(column([0, 1, 3]), labels=LabelSet(("0", "1", "3"))).numbering == NAMES
    with pytest.raises(DataError, match=r"two readings: counted from 0, 1 is 'Sports'; counted from 1, it is 'World'"):
        decide_classes(column([1, 2]), labels=NEWS)


def test_what_was_decided_is_not_guessed_again() -> None:
    # One 0 among stars made the others positions, each one class too high.
    assert ids_of(["1", "4", "5"], STARS, NAMES) == [0, 3, 4]
    with pytest.raises(DataError, match=r"a.csv:4: unknown label 0") as caught:
        ids_of(["1", "4", "0"], STARS, NAMES)
    assert "Numbers are names" in caught.value.hint
    assert "0 is 1, 1 is 2" in caught.value.hint
    assert "--numbers ids" in caught.value.hint
    assert ids_of(["1", "4", "0"], STARS, Numbering.parse("ids")) == [1, 4, 0]


def test_numbers_of_classes_that_were_words_are_refused() -> None:
    with pytest.raises(DataError, match="unknown label 1") as caught:
        ids_of([1, 2], NEWS, NAMES)
    assert "1 is Sports" in caught.value.hint
    assert ids_of([1, 2], NEWS, Numbering.parse("ids")) == [1, 2]
    assert ids_of([1, 2], NEWS, Numbering.parse("ids-from-1")) == [0, 1]


def test_ids_keep_their_first_number() -> None:
    assert ids_of([1, 4, "Sports"], NEWS, FROM_ONE) == [0, 3, 1]
    with pytest.raises(DataError, match="unknown label 0") as caught:
        ids_of([0, 1], NEWS, FROM_ONE)
    assert "1..4" in caught.value.hint
    assert "Counted from 0, 0 is World" in caught.value.hint
    with pytest.raises(DataError, match="unknown label 4"):
        ids_of([3, 4], NEWS, IDS)


def test_a_file_that_says_what_its_numbers_mean_is_believed() -> None:
    other = ("Sports", "World")
    assert ids_of([0, 1], NEWS, NAMES, names=other, is_encoded=True) == [1, 0]
    assert ids_of([1, 2], NEWS, NAMES, names=other, one_based=True) == [1, 0]
    assert ids_of([1, 2], NEWS, IDS, one_based=True) == [0, 1]
    assert ids_of([0, 1], STARS, NAMES, names=("5", "1"), is_encoded=True) == [4, 0]
    assert ids_of([1, 2], NEWS, Numbering.parse("ids"), one_based=True) == [1, 2]


def test_names_that_are_one_label_are_refused() -> None:
    with pytest.raises(DataError, match=r"'1' and '1\.0' are the same label"):
        ids_of([1], LabelSet(("1", "1.0")), NAMES)


def test_half_a_character_is_refused_with_its_place() -> None:
    with pytest.raises(DataError, match=r"a.csv:3: the label '\\ud800x' holds half a character"):
        decide_classes(column(["a", "\ud800x"]))
