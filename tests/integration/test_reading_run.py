"""Runs on data of several spellings, and what later commands make of other files: never another reading."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import submillion

Cli = Callable[..., Any]
STARS = {"Business": "2", "Sci/Tech": "3", "Sports": "4", "World": "5"}


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path]) -> list[list[str]]:
    return read_csv(news_rows(tmp_path_factory.mktemp("rows") / "rows.csv", 120))[1:]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Callable[..., Path]:
    def start(data: Any, **columns: Any) -> Path:
        out = tmp_path_factory.mktemp("run") / "run"
        settings = {"model.max_length": 48, "train.epochs": 1, "adapter.rank": 2, "threads": 1, "baseline": False}
        settings |= {"final.proof": False, "final.report": False}
        return submillion.train("demo", data=data, base=tiny_bert, out=out, settings=settings, **columns).run

    return start


@pytest.fixture(scope="module")
def queue_run(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], train: Callable[..., Path]
) -> tuple[Path, Path]:
    """Return a run on the columns key, head, body and queue, and its data."""
    data = tmp_path_factory.mktemp("data") / "tickets.csv"
    keyed = [[f"k{n}", *row[1:], row[0]] for n, row in enumerate(rows)]
    write_csv(data, ("key", "head", "body", "queue"), keyed)
    return train(data, text=["head", "body"], label="queue", row_id="key"), data


@pytest.fixture(scope="module")
def stars_run(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], train: Callable[..., Path]
) -> tuple[Path, Path]:
    """Return a run whose classes are the numbers 2..5, and its data."""
    data = tmp_path_factory.mktemp("data") / "stars.csv"
    write_csv(data, ("text", "label"), [[" ".join(row[1:]), STARS[row[0]]] for row in rows])
    return train(data), data


def test_a_run_predicts_files_without_its_label_column(cli: Cli, queue_run: Any, tmp_path: Path) -> None:
    run, data = queue_run
    labelled = read_csv(data)[1:]
    # A decoy in every column that would be found by name.
    new = write_csv(
        tmp_path / "new.csv",
        ("text", "id", "head", "body", "key", "label"),
        [["decoy", "0", head, body, key, "Sports"] for key, head, body, _ in labelled],
    )
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    assert cli("predict", run, data, "--out", first).code == 0
    outcome = cli("predict", run, new, "--out", second)
    assert outcome.code == 0, outcome.err
    assert second.read_bytes() == first.read_bytes()
    assert [row[0] for row in read_csv(first)[1:]] == [row[0] for row in labelled]
    # Evaluated on its own predictions, the run is always right.
    assert cli("evaluate", run, new, "--labels", first, "--json").json["accuracy"] == 1.0
    assert cli("evaluate", run, data, "--json").json["num_records"] == 120


def test_a_column_that_is_missing_is_named(cli: Cli, queue_run: Any, tmp_path: Path) -> None:
    run, data = queue_run
    labelled = read_csv(data)[1:]
    new = write_csv(tmp_path / "new.csv", ("text", "body"), [[row[1], row[2]] for row in labelled])
    outcome = cli("predict", run, new, "--out", tmp_path / "out.csv")
    assert outcome.code == 3
    assert "there is no column 'head'" in outcome.err
    assert "'text', 'body'" in outcome.err
    assert "--text" in outcome.err
    outcome = cli("predict", run, new, "--text", "text,body", "--out", tmp_path / "out.csv")
    assert outcome.code == 0, outcome.err
    assert "has no column 'key'" in outcome.err
    assert [row[0] for row in read_csv(tmp_path / "out.csv")[1:3]] == ["0", "1"]
    plain = write_csv(tmp_path / "plain.csv", ("head", "body"), [row[1:3] for row in labelled])
    assert "no column 'queue'" in cli("evaluate", run, plain).err
    labels = write_csv(tmp_path / "labels.csv", ("id", "label"), [["0", "Sports"]])
    assert "no column 'key'" in cli("evaluate", run, plain, "--labels", labels).err
    assert "no column 'queue'" in cli("compare", run, run, plain).err


def test_numbers_come_out_as_they_went_in(cli: Cli, stars_run: Any, tmp_path: Path) -> None:
    run, data = stars_run
    reading = json.loads((run / "data.json").read_text())["reading"]
    assert (reading["numbers"], reading["first_id"], reading["label"]) == ("names", 0, "label")
    for wanted in ((), ("--labels", "names"), ("--labels", "ids")):
        for ending in ("csv", "jsonl", "parquet"):
            out = tmp_path / f"out.{ending}"
            assert cli("predict", run, data, "--out", out, *wanted).code == 0
            assert cli("evaluate", run, data, "--labels", out, "--json").json["accuracy"] == 1.0
    cli("predict", run, data, "--out", tmp_path / "out.csv")
    assert {row[1] for row in read_csv(tmp_path / "out.csv")[1:]} <= set("2345")


def test_numbers_are_not_read_otherwise_in_another_file(cli: Cli, stars_run: Any, tmp_path: Path) -> None:
    run, data = stars_run
    accuracy = cli("evaluate", run, data, "--json").json["accuracy"]
    some = [row for row in read_csv(data)[1:] if row[1] != "5"]
    floats = write_csv(tmp_path / "floats.csv", ("text", "label"), [[row[0], f"{row[1]}.0"] for row in some])
    plain = write_csv(tmp_path / "plain.csv", ("text", "label"), some)
    assert cli("evaluate", run, floats, "--json").json == cli("evaluate", run, plain, "--json").json
    odd = write_csv(tmp_path / "odd.csv", ("text", "label"), [*some, ["an odd one", "0"]])
    outcome = cli("evaluate", run, odd)
    assert outcome.code == 3
    assert f"odd.csv:{len(some) + 2}: unknown label 0" in outcome.err
    assert "Numbers are names" in outcome.err
    assert "0 is 2, 1 is 3" in outcome.err
    shifted = write_csv(
        tmp_path / "shifted.csv", ("text", "label"), [[row[0], str(int(row[1]) - 2)] for row in read_csv(data)[1:]]
    )
    assert cli("evaluate", run, shifted, "--numbers", "ids", "--json").json["accuracy"] == accuracy


def test_an_older_run_opens_with_a_note(cli: Cli, stars_run: Any, tmp_path: Path) -> None:
    run, data = stars_run
    old = tmp_path / "old"
    shutil.copytree(run, old)
    values = json.loads((old / "data.json").read_text())
    del values["reading"]
    (old / "data.json").write_text(json.dumps(values))
    outcome = cli("evaluate", old, data, "--json")
    assert outcome.code == 0, outcome.err
    assert "earlier version" in outcome.err
    assert outcome.json["accuracy"] == cli("evaluate", run, data, "--json").json["accuracy"]


def test_a_run_that_cannot_be_written_can_be_used(
    cli: Cli, stars_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = stars_run
    test = tmp_path / "test.csv"
    import pyarrow.parquet as pq

    table = pq.read_table(run / "evaluation" / "test.predictions.parquet")
    write_csv(test, ("text", "label"), list(zip(*table.select(["text", "label"]).to_pydict().values(), strict=True)))

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("submillion.scoring.evaluate_run.count_test_evaluation", refuse)
    outcome = cli("evaluate", run, test)
    assert outcome.code == 0, outcome.err
    assert "cannot be written (Permission denied)" in outcome.err
    assert cli("predict", run, data, "--out", tmp_path / "out.csv").code == 0


def test_exports_read_as_the_run_does(cli: Cli, queue_run: Any, tmp_path: Path) -> None:
    run, data = queue_run
    assert cli("export", run, "--out", tmp_path / "model").code == 0
    decoys = [["decoy", *row] for row in read_csv(data)[1:]]
    new = write_csv(tmp_path / "new.csv", ("text", "key", "head", "body", "queue"), decoys)
    own, theirs = tmp_path / "own.csv", tmp_path / "theirs.csv"
    assert cli("predict", run, new, "--out", own).code == 0
    outcome = cli("predict", tmp_path / "model", new, "--out", theirs)
    assert outcome.code == 0, outcome.err
    assert [row[0] for row in read_csv(theirs)] == [row[0] for row in read_csv(own)]
    assert submillion.SubmillionClassifier.from_run(run).feature_names_in_.tolist() == ["head", "body"]
    refused = cli("export", run, "--out", run / "adapter" / "model")
    assert refused.code == 2
    assert "belongs to the run" in refused.err


def test_no_input_is_destroyed(cli: Cli, stars_run: Any, tmp_path: Path) -> None:
    run, data = stars_run
    shutil.copy(data, tmp_path / "data.csv")
    (tmp_path / "soft.csv").symlink_to(tmp_path / "data.csv")
    os.link(tmp_path / "data.csv", tmp_path / "hard.csv")
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for out in (tmp_path / "data.csv", tmp_path / "soft.csv", tmp_path / "hard.csv", run / "log.jsonl"):
        outcome = cli("predict", run, tmp_path / "data.csv", "--out", out)
        assert outcome.code == 2, outcome.err
    assert (tmp_path / "data.csv").read_bytes() == data.read_bytes()
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_rows_that_are_bad_or_blank_are_told(cli: Cli, stars_run: Any, tmp_path: Path) -> None:
    run, _ = stars_run
    bad = tmp_path / "bad.csv"
    bad.write_text("text\n" + "good\n" * 30 + "one, two\n")
    outcome = cli("predict", run, bad, "--out", tmp_path / "out.csv")
    assert outcome.code == 3
    assert "bad.csv:32" in outcome.err
    assert "predict: started" not in outcome.err
    assert os.listdir(tmp_path) == ["bad.csv"]
    blank = tmp_path / "blank.csv"
    blank.write_text('text\n""\n"  "\n"<p><br></p>"\nSnow\n')
    outcome = cli("predict", run, blank, "--out", tmp_path / "out.csv")
    assert outcome.code == 0, outcome.err
    assert "3 of 4 rows have no text" in outcome.err
    assert "ID 0, 1, 2" in outcome.err


def test_a_killed_prediction_leaves_nothing_for_long(
    cli: Cli, stars_run: Any, submillion_process: Callable[..., Any], tmp_path: Path
) -> None:
    run, _ = stars_run
    data, out = tmp_path / "many.csv", tmp_path / "out.csv"
    write_csv(data, ("text",), [["Rain stops play on the last day " * 8]] * 30000)
    with submillion_process("predict", run, data, "--out", out, "--probabilities") as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".out.csv.*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob(".out.csv.*"))
    write_csv(data, ("text",), [["Rain"]])
    assert cli("predict", run, data, "--out", out).code == 0
    assert sorted(os.listdir(tmp_path)) == ["many.csv", "out.csv"]


def test_a_label_that_no_file_can_hold_leaves_no_folder(cli: Cli, tiny_bert: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    lines = [{"text": f"t{n}", "label": ("a", "\ud800b")[n % 2]} for n in range(20)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    length = ("--set", "model.max_length=48")
    outcome = cli("train", "demo", "--data", data, "--base", tiny_bert, *length, "--out", tmp_path / "run")
    assert outcome.code == 3
    assert "data.jsonl:2" in outcome.err
    assert "half a character" in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_table_trains_as_its_file_does(stars_run: Any, train: Callable[..., Path]) -> None:
    import pandas as pd

    run, data = stars_run
    frame = pd.read_csv(data)
    own = train(frame)
    assert (own.parent / "run.rows.parquet").is_file()
    first, second = (json.loads((folder / "data.json").read_text()) for folder in (run, own))
    for key in ("labels", "reading", "train_sha256", "test_sha256"):
        assert first[key] == second[key], key
    assert list(second["files"]) == ["run.rows.parquet"]
