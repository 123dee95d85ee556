"""Synthetic rows on disk: written rows are read again, and other rows are errors that name their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from submillion.data.read import read_dataset
from submillion.data.synthetic import (
    SyntheticRow,
    describe_origin,
    digest_settings,
    digest_text,
    format_row,
    read_rows,
    write_rows,
)
from submillion.errors import DataError
from submillion.records import Record

ORIGIN = describe_origin("synonyms", {"rate": 0.2}, seed=3)


def make_row(number: int, **changes: Any) -> SyntheticRow:
    values = {"id": f"s-{number}", "text": f"text {number}", "label": "ab"[number % 2], "provenance": ORIGIN}
    return SyntheticRow(**(values | changes))


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    source = Record("7", ("A title", "caf\u00e9 \u2028 end"), 1, "train.csv:9")
    rows = [
        make_row(0, text='quotes " and\nlines'),
        make_row(1, provenance=describe_origin("synonyms", {}, seed=0, source=source, words=[["a", "b"]])),
    ]
    assert write_rows(tmp_path / "rows.jsonl", rows) == 2
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert rows[1].provenance == {
        "method": "synonyms",
        "settings_sha256": digest_settings({}),
        "seed": 0,
        "source_id": "7",
        "source_place": "train.csv:9",
        "source_sha256": digest_text(source.text),
        "words": [["a", "b"]],
    }


def test_every_reader_of_data_reads_them(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [make_row(number) for number in range(4)])
    dataset = read_dataset(str(tmp_path / "rows.jsonl"))
    assert dataset.labels is not None
    assert dataset.labels.names == ("a", "b")
    read = [(record.id, record.text, record.label) for record in dataset.splits["all"]]
    assert read == [(f"s-{n}", f"text {n}", n % 2) for n in range(4)]


def test_digests_fold_what_comparisons_fold_and_nothing_else() -> None:
    assert digest_text("Rain stops  play!") == digest_text("rain, stops play")
    assert digest_text("Rain stops play") != digest_text("Rain stops plays")
    assert digest_text("?!") != digest_text("...")
    assert digest_settings({"a": 1, "b": 2}) == digest_settings({"b": 2, "a": 1}) != digest_settings({"a": 2, "b": 1})


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ORIGIN.items() if name != key}


BROKEN: dict[str, tuple[Any, str]] = {
    "a list": (["x"], "found list"),
    "no provenance": ({"id": "1", "text": "t", "label": "a"}, "found id, text, label"),
    "one key more": ({"id": "1", "text": "t", "label": "a", "provenance": ORIGIN, "split": "x"}, "split"),
    "blank text": ({"id": "1", "text": " ", "label": "a", "provenance": ORIGIN}, "text must be"),
    "number as label": ({"id": "1", "text": "t", "label": 2, "provenance": ORIGIN}, "label must be"),
    "surrogate": ({"id": "1", "text": "\ud800", "label": "a", "provenance": ORIGIN}, "half a character"),
    "no method": ({"id": "1", "text": "t", "label": "a", "provenance": without("method")}, "provenance.method"),
    "no digest": (
        {"id": "1", "text": "t", "label": "a", "provenance": ORIGIN | {"settings_sha256": "12"}},
        "settings_sha256",
    ),
    "seed yes": ({"id": "1", "text": "t", "label": "a", "provenance": ORIGIN | {"seed": True}}, "provenance.seed"),
    "half a source": (
        {"id": "1", "text": "t", "label": "a", "provenance": ORIGIN | {"source_id": "4"}},
        "source_place",
    ),
    "source number": (
        {
            "id": "1",
            "text": "t",
            "label": "a",
            "provenance": ORIGIN | {"source_id": 4, "source_place": "", "source_sha256": ""},
        },
        "provenance.source_id must",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_row_is_told_with_its_place(case: str, tmp_path: Path) -> None:
    values, message = BROKEN[case]
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{format_row(make_row(0))}\n{json.dumps(values)}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path)
    assert f"{path}:3" in caught.value.message


def test_broken_files_are_data_errors(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(DataError, match="no such file"):
        read_rows(path)
    path.write_text("")
    with pytest.raises(DataError, match="no rows"):
        read_rows(path)
    for line in ("{", "NaN", "[" * 100_000):
        path.write_text(line + "\n")
        with pytest.raises(DataError, match="not valid JSON"):
            read_rows(path)
    path.write_text(format_row(make_row(0)) * 2)
    with pytest.raises(DataError, match="'s-0' appears in an earlier row"):
        read_rows(path)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for rows in ([make_row(0), make_row(0)], [make_row(0), make_row(1, text="")]):
        with pytest.raises(DataError):
            write_rows(path, rows)
        assert list(tmp_path.iterdir()) == []
