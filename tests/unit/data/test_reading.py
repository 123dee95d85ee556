"""How the data of a run was read: kept whole, refused where it is damaged, and the rule for other files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from submillion.config.run import CleanConfig, DataConfig, WatchConfig
from submillion.data.columns import Columns
from submillion.data.labels import Numbering
from submillion.data.read import read_dataset, read_split
from submillion.data.reading import Reading, read_labels, read_reading, read_temperature, recover_reading
from submillion.data.run_columns import fit_columns
from submillion.data.watched import read_watched
from submillion.errors import DataError, RunError
from submillion.records import LabelSet

NEWS = LabelSet(("World", "Sports"))
READING = Reading(("title", "description"), "queue", "key", Numbering("names"))
FULL = ("key", "queue", "title", "description", "text")


def fit(present: tuple[str, ...], asked: Columns = Columns(), **needs: bool) -> Columns:  # noqa: B008 - it is frozen
    needed = {"needs_label": False, "needs_id": False, **needs}
    return fit_columns(READING, present, asked, where="new.csv", **needed)[0]


def test_a_reading_is_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Key,Kind,Body,text\nx,1,a,no\ny,2,b,no\n")
    reading = read_dataset(str(path), Columns(("Body",), "Kind", "Key")).reading
    assert reading == Reading(("Body",), "Kind", "Key", Numbering("names"), "numbers")
    assert Reading.from_json(reading.to_json(), where="data.json") == reading
    assert reading.to_json()["numbers"] == "names"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("text", value) for value in ([], "text", [1], None)],
        *[("label", 5), ("id", ["a"]), ("numbers", "ids-from-1"), ("first_id", 2), ("first_id", True)],
        *[("first_id", 1.0), ("spelled", None), ("official", 0), ("official", "yes")],
    ],
)
def test_a_damaged_reading_is_refused(key: str, value: Any) -> None:
    with pytest.raises(RunError, match=rf"data.json: is damaged: its `reading` holds {key}"):
        Reading.from_json({**READING.to_json(), key: value}, where="data.json")
    with pytest.raises(RunError, match="is damaged"):
        Reading.from_json([], where="data.json")
    missing = {name: known for name, known in READING.to_json().items() if name != key}
    with pytest.raises(RunError, match="is damaged"):
        Reading.from_json(missing, where="data.json")


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "1", None, True, [1]])
def test_a_temperature_is_a_number_above_0(temperature: Any) -> None:
    with pytest.raises(RunError, match="its temperature is"):
        read_temperature({"temperature": temperature}, where="manifest.json")
    assert read_temperature({"temperature": 2}, where="manifest.json") == 2.0


@pytest.mark.parametrize("names", [None, "ab", ["a"], ["a", "a"], ["a", 1], ["a", "b", "c"]])
def test_classes_are_as_many_as_planned(names: Any) -> None:
    with pytest.raises(RunError, match="is damaged"):
        read_labels({"labels": names}, 2, where="data.json")


def test_an_older_run_says_that_it_does_not_know() -> None:
    reading, notes = read_reading({"column_names": ["title"]}, NEWS, DataConfig(label="kind"), where="data.json")
    assert reading == Reading(("title",), "kind", None, Numbering("ids"))
    assert "earlier version" in notes[0]
    assert recover_reading(LabelSet(("1", "2"))).numbering == Numbering("names")
    assert recover_reading(LabelSet(("0", "1"))).numbering == Numbering("ids")
    assert read_reading({"reading": READING.to_json()}, NEWS, DataConfig(), where="data.json") == (READING, ())


def test_a_run_reads_its_own_columns() -> None:
    assert fit(FULL) == Columns(("title", "description"), None, "key")
    assert fit(FULL, needs_label=True) == Columns(("title", "description"), "queue", "key")
    assert fit(FULL, Columns(("text",), "key", "queue"), needs_label=True) == Columns(("text",), "key", "queue")


@pytest.mark.parametrize(
    ("lacks", "flag", "needs"),
    [("title", "--text", {}), ("queue", "--label", {"needs_label": True}), ("key", "--id", {"needs_id": True})],
)
def test_a_missing_column_is_named_with_the_flag(lacks: str, flag: str, needs: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=rf"new.csv: there is no column '{lacks}', which this run reads") as caught:
        fit(tuple(name for name in FULL if name != lacks), **needs)
    assert "'text'" in caught.value.message
    assert flag in caught.value.hint


def test_what_only_predicts_needs_no_label_and_no_ids() -> None:
    columns, notes = fit_columns(
        READING, ("title", "description"), Columns(), where="new.csv", needs_label=False, needs_id=False
    )
    assert columns == Columns(("title", "description"))
    assert "has no column 'key'" in notes[0]
    assert "row numbers" in notes[0]


def test_files_without_names_have_none_to_miss() -> None:
    assert fit(()) == Columns()
    official = ("class_index", "title", "description")
    assert fit(official, needs_label=True).label is None
    mine = replace(READING, label="class_index", is_official=True, id=None)
    columns, _ = fit_columns(mine, FULL, Columns(), where="new.csv", needs_label=True, needs_id=True)
    assert columns.label is None


def test_row_numbers_that_were_asked_for_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text,label\n1,a,x\n1,b,y\n")
    reading = read_dataset(str(path), Columns(id="none")).reading
    assert reading is not None
    assert reading.id == "none"
    columns, notes = fit_columns(reading, ("id", "text"), Columns(), where="new.csv", needs_label=False, needs_id=True)
    assert (columns.id, notes) == ("none", ())


def test_one_split_is_read_alone(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("this,is,damaged\n1\n")
    (tmp_path / "test.csv").write_text("text,label\na,Sports\n")
    rows = read_split(str(tmp_path), "test", labels=NEWS, numbering=Numbering("names"))
    assert [(row.text, row.label) for row in rows] == [("a", 1)]
    assert read_split(str(tmp_path), "test")[0].label is None


def test_watched_sets_are_read_as_the_run_is(tmp_path: Path) -> None:
    path = tmp_path / "watch.csv"
    path.write_text("queue,text,title,description\nSports,no,a,b\n")
    notes: list[str] = []
    watch = WatchConfig(name="w", data=str(path))
    rows = read_watched(watch, CleanConfig(), NEWS, READING, on_note=notes.append)
    assert [(row.columns, row.label) for row in rows] == [(("a", "b"), 1)]
    path.write_text("queue,text\nSports,c\n")
    rows = read_watched(watch, CleanConfig(), NEWS, READING, on_note=notes.append)
    assert rows[0].text == "c"
    assert any("lacks the column 'title', 'description'" in note for note in notes)
    path.write_text("queue,title,description\n1,a,b\n")
    with pytest.raises(DataError, match="unknown label 1"):
        read_watched(watch, CleanConfig(), NEWS, READING, on_note=notes.append)
