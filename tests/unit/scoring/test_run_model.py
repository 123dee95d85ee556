"""A stream of predictions: in order, with one window of records in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from submillion.data.clean import is_without_text
from submillion.data.legibility import Legibility, TextFigures
from submillion.data.reading import recover_reading
from submillion.errors import DataError
from submillion.progress import Silent
from submillion.records import LabelSet, Record
from submillion.scoring import run_model
from submillion.scoring.run_model import RunModel, ScoredRecords

LABELS = LabelSet(("zero", "one", "two"))
WINDOW = 5


def read_one(num_records: int) -> Legibility:
    return Legibility(8, "head", "token", TextFigures(num_records=num_records, num_tokens=3 * num_records), {})


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> RunModel:
    """Return a model that says the row number modulo three."""

    def score(_: RunModel, records: Sequence[Record], **__: Any) -> ScoredRecords:
        assert 0 < len(records) <= WINDOW
        labels = np.array([int(record.text) % 3 for record in records])
        is_blank = np.zeros(len(records), np.bool_)
        return ScoredRecords(np.eye(3, dtype=np.float32)[labels] * 9, 0, read_one(len(records)), is_blank)

    monkeypatch.setattr(run_model, "STREAM_WINDOW", WINDOW)
    monkeypatch.setattr(RunModel, "score_records", score)
    unused: Any = None
    reading = recover_reading(LABELS)
    return RunModel(unused, unused, unused, LABELS, 1.0, unused, unused, reading)


@pytest.mark.parametrize("num_rows", [0, 1, 5, 6, 23])
def test_the_reader_is_never_more_than_a_window_ahead(model: RunModel, num_rows: int) -> None:
    num_read = num_taken = 0

    def read() -> Iterator[Record]:
        nonlocal num_read
        for row in range(num_rows):
            num_read += 1
            yield Record(f"id{row}", (str(row),))

    for prediction in model.predict(read()):
        assert (prediction.id, prediction.label_id) == (f"id{num_taken}", num_taken % 3)
        assert num_taken < num_read <= num_taken + WINDOW
        num_taken += 1
    assert num_read == num_taken == num_rows


def test_a_file_is_read_by_the_columns_of_the_run(model: RunModel, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,text\na,4\nb,5\n")
    assert [(said.id, said.label) for said in model.predict(path)] == [("a", "one"), ("b", "two")]
    path.write_text("id,number\na,4\n")
    with pytest.raises(DataError, match="found no text column"):
        model.predict(path)


def test_texts_are_no_records(model: RunModel) -> None:
    odd: Any = ["4", "5"]
    with pytest.raises(DataError, match="'4' is not a record"):
        list(model.predict(odd))


def test_progress_counts_rows(model: RunModel) -> None:
    seen: list[int] = []

    class Counts(Silent):
        def advance(self, done: int, **_: float) -> None:
            seen.append(done)

    list(model.predict((Record(str(row), (str(row),)) for row in range(12)), progress=Counts()))
    assert seen == [5, 10, 12]


def test_what_was_read_adds_up_over_the_windows(model: RunModel) -> None:
    parts: list[Legibility] = []
    list(model.predict((Record(str(row), (str(row),)) for row in range(12)), on_read=parts.append))
    assert [part.whole.num_records for part in parts] == [5, 5, 2]
    assert (parts[0] + parts[1] + parts[2]).whole.num_tokens == 36


def test_rows_of_markup_alone_hold_no_text() -> None:
    assert [is_without_text(text) for text in ("", " \t", "<p><br></p>", "&nbsp; <br>")] == [True] * 4
    assert [is_without_text(text) for text in ("<p>a</p>", "!", "< 3", "a & b", "&amp;")] == [False] * 5
