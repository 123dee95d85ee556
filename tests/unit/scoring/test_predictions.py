from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from submillion.data.label_files import Spelling
from submillion.errors import ConfigError, RunError
from submillion.records import LabelSet, Prediction, Record
from submillion.scoring.predictions import ROW_GROUP, check_out, defuse, write_predictions

LABELS = LabelSet(("no", "=yes"))
POSITIONS = Spelling((0, 1))


def predict(records: Iterable[Record]) -> Iterator[Prediction]:
    for record in records:
        label_id = int(record.id) % 2
        yield Prediction(record.id, label_id, LABELS.names[label_id], (1.0 - label_id, float(label_id)))


def make_records(num_rows: int) -> Iterator[Record]:
    return (Record(str(row), ("text",)) for row in range(num_rows))


def write(
    path: Path, num_rows: int = 3, *, names: bool = False, probabilities: bool = False, quote: bool = False
) -> int:
    records = make_records(num_rows)
    spelling = Spelling(LABELS.names) if names else POSITIONS
    written = write_predictions(
        path, records, predict, LABELS, spelling=spelling, probabilities=probabilities, defuse_formulas=quote
    )
    return written.num_rows


def test_csv_is_what_the_competition_wants(tmp_path: Path) -> None:
    assert write(tmp_path / "a.csv") == 3
    assert (tmp_path / "a.csv").read_bytes() == b"ID,Label\n0,0\n1,1\n2,0\n"


def test_names_probabilities_and_quotes(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", names=True, probabilities=True, quote=True)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "ID,Label,probability_no,probability_=yes"
    assert lines[2] == "1,'=yes,0.0,1.0"
    assert [defuse(cell) for cell in ("=a", "+a", "-1", "@a", "\ta", "\ra")] == [
        *("'=a", "'+a", "'-1", "'@a", "'\ta", "'\ra")
    ]
    assert [defuse(cell) for cell in ("a=b", "", 5, 0.5)] == ["a=b", "", 5, 0.5]


def test_jsonl_has_one_object_a_line(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", names=True)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows[1] == {"ID": "1", "Label": "=yes"}


def test_parquet_is_written_in_groups(tmp_path: Path) -> None:
    num_rows = ROW_GROUP + 5
    assert write(tmp_path / "a.parquet", num_rows, probabilities=True) == num_rows
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert file.metadata.num_row_groups == 2
    table = file.read()
    assert table["ID"].to_pylist() == [str(row) for row in range(num_rows)]
    assert table["Label"].to_pylist()[:3] == [0, 1, 0]
    assert table["probability_=yes"].to_pylist()[:2] == [0.0, 1.0]


def test_rows_stream(tmp_path: Path) -> None:
    """No more records are read than predictions were taken."""
    read = 0

    def count() -> Iterator[Record]:
        nonlocal read
        for record in make_records(100):
            read += 1
            yield record

    def check(records: Iterable[Record]) -> Iterator[Prediction]:
        for number, prediction in enumerate(predict(records), start=1):
            assert read == number
            yield prediction

    write_predictions(
        tmp_path / "a.csv", count(), check, LABELS, spelling=POSITIONS, probabilities=False, defuse_formulas=False
    )


@pytest.mark.parametrize("broken", ["dropped", "swapped", "invented"])
def test_rows_that_do_not_match_are_refused(tmp_path: Path, broken: str) -> None:
    def wrong(records: Iterable[Record]) -> Iterator[Prediction]:
        predictions = list(predict(records))
        if broken == "dropped":
            predictions.pop()
        elif broken == "swapped":
            predictions[0], predictions[1] = predictions[1], predictions[0]
        else:
            predictions.append(predictions[-1])
        yield from predictions

    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(RunError, match=r"out of order|no prediction"):
        write_predictions(
            tmp_path / "a.csv",
            make_records(4),
            wrong,
            LABELS,
            spelling=POSITIONS,
            probabilities=False,
            defuse_formulas=False,
        )
    assert (tmp_path / "a.csv").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a.csv").write_text("old")
    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(RunError, match="No space left") as caught:
        write(tmp_path / "a.csv")
    assert "run the command again" in caught.value.hint
    assert os.listdir(tmp_path) == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "old"


def test_an_output_that_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    for path in (tmp_path / "a.xlsx", tmp_path / "a", tmp_path / "none" / "a.csv"):
        with pytest.raises(ConfigError):
            check_out(path, defuse_formulas=False)
    with pytest.raises(ConfigError, match="no effect"):
        check_out(tmp_path / "a.parquet", defuse_formulas=True)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_out(tmp_path / "folder.csv", defuse_formulas=False)
    check_out(tmp_path / "a.csv", defuse_formulas=True)
