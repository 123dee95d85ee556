"""Rows to measure on are distinct, and the same in every process."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.row_source import Row, RowSource, load_rows, perturb_text, read_rows, take_rows, write_rows
from submillion.errors import DataError

WORDS = ("river", "council", "dawn")


def test_the_shipped_items_serve_where_no_data_is_given() -> None:
    source = read_rows(None)
    assert source.num_labels == 4
    assert len({row.text for row in source.rows}) == len(source.rows) == 460
    assert "the shipped news items" in source.about


def test_files_are_read_shuffled_and_once_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {n},{'ab'[n > 19]}\n" for n in range(40)) + "text 3,a\n")
    source = read_rows(str(path))
    assert [row.label for row in source.rows] != sorted(row.label for row in source.rows)
    assert len(source.rows) == 40
    assert source.rows == read_rows(str(path)).rows


def test_rows_without_labels_serve_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("one line\nanother line\n")
    assert read_rows(str(path)).num_labels == 2
    path.write_text("\n")
    with pytest.raises(DataError):
        read_rows(str(path))


def test_too_few_rows_are_filled_up_with_changed_ones_not_with_copies() -> None:
    source = read_rows(None)
    rows, about = take_rows(source, 2000)
    assert len({row.text for row in rows}) == 2000
    assert rows[: len(source.rows)] == list(source.rows)
    assert rows == take_rows(source, 2000)[0]
    assert about == "460 of 460 rows of the shipped news items, 1,540 changed copies of them; all distinct"
    lengths = [[len(row.text.split()) for row in part] for part in (source.rows, rows[460:])]
    assert statistics.mean(lengths[1]) == pytest.approx(statistics.mean(lengths[0]), rel=0.1)


def test_changed_rows_differ_from_each_other_where_there_is_little_to_change() -> None:
    rows, _ = take_rows(RowSource((Row("7", 0),), 2, "one row"), 40)
    assert len({row.text for row in rows}) == 40


def test_enough_rows_are_taken_as_they_are() -> None:
    source = read_rows(None)
    rows, about = take_rows(source, 100)
    assert rows == list(source.rows[:100])
    assert "changed" not in about


def test_a_change_keeps_most_words_and_no_number() -> None:
    text = "On day 17 of the talks the envoys of 3 countries met for 90 minutes and agreed on nothing at all"
    changed = [perturb_text(text, WORDS, random.Random(seed)) for seed in range(200)]
    kept = [len(set(text.split()) & set(other.split())) / len(set(text.split())) for other in changed]
    assert text not in changed
    assert statistics.mean(kept) > 0.6
    assert min(kept) < 0.75
    assert max(kept) > 0.85


@pytest.mark.parametrize("text", ["x", "", "7", "two words"])
def test_the_shortest_texts_can_be_changed(text: str) -> None:
    assert len({perturb_text(text, WORDS, random.Random(seed)) for seed in range(20)}) > 1


def test_rows_are_written_and_read_back(tmp_path: Path) -> None:
    rows = [Row('a "quoted" line\u2028', 1), Row("b", 0)]
    write_rows(rows, tmp_path / "rows.jsonl")
    assert load_rows(tmp_path / "rows.jsonl") == rows


def test_written_rows_are_data_for_every_command(tmp_path: Path, news_rows: Callable[[], list[Row]]) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(news_rows(), path)
    assert len(read_rows(str(path)).rows) == len(news_rows())


@pytest.fixture
def news_rows() -> Callable[[], list[Row]]:
    return lambda: list(read_rows(None).rows[:20])
