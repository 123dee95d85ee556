"""The output and files of every command on a run that was really trained."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import submillion
from submillion.errors import ConfigError, DataError
from submillion.run.folder import RunDir

EVALUATION_KEYS = {
    *("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval", "per_class", "confusion"),
    *("ece", "ece_raw", "brier", "num_records", "num_truncated"),
}
NAMES = ("Business", "Sci/Tech", "Sports", "World")
Cli = Callable[..., Any]


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_train_prints_one_object_and_leaves_a_whole_run(trained: Any) -> None:
    summary = trained.outcome.json
    assert summary["run"] == str(trained.folder)
    assert summary["trainable_params"] < summary["budget"]
    assert {"validation", "test"} <= set(summary["evaluations"])
    assert summary["evaluations"]["test"].keys() >= EVALUATION_KEYS
    assert summary["baselines"]["test"]["comparison"].keys() >= {"difference", "interval", "mcnemar_p"}
    for name in ("config.yaml", "plan.json", "data.json", "manifest.json", "log.jsonl", "report.html", "README.md"):
        assert (trained.folder / name).is_file(), name
    assert "trainable" in trained.outcome.err
    assert "train: started" in trained.outcome.err
    assert "\x1b" not in trained.outcome.err


def test_train_ends_with_figures_report_and_folder(cli: Cli, trained: Any) -> None:
    # Resuming a finished run trains nothing and writes the report again.
    outcome = cli("train", "--resume", trained.folder)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[-1] == str(trained.folder)
    assert lines[-2] == f"report: {trained.folder / 'report.html'}"
    # The run of this test is too short to learn anything, and that comes first.
    assert lines[0].startswith("This run has not shown that it learnt anything")
    assert any("TF-IDF" in line and "difference" in line for line in lines)
    page = (trained.folder / "report.html").read_text(encoding="utf-8")
    assert page.index("has not shown that it learnt anything") < page.index('class="figures"')


def test_rows_that_a_run_was_trained_on_are_counted(cli: Cli, trained: Any, tmp_path: Path) -> None:
    num_train = json.loads((trained.folder / "evaluation" / "train.sample.json").read_text())["num_train"]
    assert 0 < num_train < 160
    known = cli("evaluate", trained.folder, trained.data / "train.csv", "--json")
    assert known.json["num_trained_on"] == num_train
    assert f"was trained on {num_train:,} of these 160 rows: its figures on them are too good" in known.err
    fresh = cli("evaluate", trained.folder, trained.data / "test.csv", "--json")
    assert fresh.json["num_trained_on"] == 0
    assert "was trained on" not in fresh.err
    both = cli("compare", trained.folder, trained.folder, trained.data / "train.csv", "--json")
    assert both.json["num_trained_on"] == [num_train, num_train]
    # A run of an earlier version kept no list, and says so.
    older = tmp_path / "older"
    shutil.copytree(trained.folder, older)
    RunDir(older).trained_rows.unlink()
    unknown = cli("evaluate", older, trained.data / "test.csv", "--json")
    assert unknown.json["num_trained_on"] is None
    assert "does not say which rows it was trained on" in unknown.err


def test_evaluate_gives_every_figure(cli: Cli, trained: Any) -> None:
    outcome = cli("evaluate", trained.folder, trained.data, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json.keys() >= EVALUATION_KEYS
    assert outcome.json["num_records"] == 40
    assert outcome.json["accuracy"] == trained.outcome.json["evaluations"]["test"]["accuracy"]
    shown = cli("evaluate", trained.folder, trained.data / "test.csv").out
    assert "accuracy" in shown
    assert "Sci/Tech" in shown


def test_evaluate_joins_labels_from_a_file(cli: Cli, trained: Any, tmp_path: Path) -> None:
    rows = read_csv(trained.data / "test.csv")
    data, labels = tmp_path / "texts.csv", tmp_path / "labels.csv"
    data.write_text("id,title,description\n" + "".join(f'n{i},"{r[1]}","{r[2]}"\n' for i, r in enumerate(rows[1:])))
    labels.write_text("id,label\n" + "".join(f"n{i},{r[0]}\n" for i, r in list(enumerate(rows[1:]))[:24]))
    outcome = cli("evaluate", trained.folder, data, "--labels", labels, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["num_records"] == 24
    assert "24 of 40 rows" in outcome.err
    without = cli("evaluate", trained.folder, data)
    assert without.code == 3
    assert "--labels" in without.err


def test_compare_is_paired(cli: Cli, trained: Any) -> None:
    outcome = cli("compare", trained.folder, trained.folder, trained.data / "test.csv", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json.keys() >= {
        *("difference", "interval", "mcnemar_p", "only_first_right", "only_second_right", "num_records")
    }
    assert (outcome.json["difference"], outcome.json["mcnemar_p"], outcome.json["num_records"]) == (0.0, 1.0, 40)
    shown = cli("compare", trained.folder, trained.folder, trained.data / "test.csv")
    assert "McNemar" in shown.out


def test_predict_writes_ids_and_labels_in_order(cli: Cli, trained: Any, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    outcome = cli("predict", trained.folder, trained.data / "test.csv", "--out", out)
    assert outcome.code == 0, outcome.err
    header, *rows = read_csv(out)
    assert header == ["ID", "Label"]
    assert [row[0] for row in rows] == [str(number) for number in range(40)]
    assert {row[1] for row in rows} <= set(NAMES)
    labels = [row[0] for row in read_csv(trained.data / "test.csv")[1:]]
    right = sum(row[1] == label for row, label in zip(rows, labels, strict=True))
    assert right / 40 == trained.outcome.json["evaluations"]["test"]["accuracy"]
    assert os.listdir(tmp_path) == ["answers.csv"]
    ids = tmp_path / "ids.csv"
    assert cli("predict", trained.folder, trained.data / "test.csv", "--out", ids, "--labels", "ids").code == 0
    header, *numbered = read_csv(ids)
    assert header == ["ID", "Label", "LabelId"]
    assert [NAMES[int(row[1])] for row in numbered] == [row[1] for row in rows]
    assert all(row[1] == row[2] for row in numbered)


@pytest.mark.parametrize("kind", ["csv.gz", "tsv", "jsonl", "parquet", "txt"])
def test_predict_reads_every_format_to_the_same_answers(cli: Cli, trained: Any, tmp_path: Path, kind: str) -> None:
    import pyarrow as pa

    texts = [" ".join(row[1:]) for row in read_csv(trained.data / "test.csv")[1:]]
    source, out = tmp_path / f"in.{kind}", tmp_path / "out.jsonl"
    if kind == "csv.gz":
        buffer = io.StringIO()
        csv.writer(buffer).writerows([["text"], *([text] for text in texts)])
        source.write_bytes(gzip.compress(buffer.getvalue().encode()))
    elif kind == "parquet":
        pq.write_table(pa.table({"text": texts}), source)
    else:
        lines = {
            "tsv": ["text", *texts],
            "jsonl": [json.dumps({"text": text}) for text in texts],
            "txt": texts,
        }
        source.write_text("\n".join(lines[kind]) + "\n")
    # The run was trained on title and description, so another column has to be named; lines have none.
    chosen = () if kind == "txt" else ("--text", "text")
    assert cli("predict", trained.folder, source, "--out", out, *chosen).code == 0
    expected = tmp_path / "expected.csv"
    cli("predict", trained.folder, trained.data / "test.csv", "--out", expected)
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [[row["ID"], row["Label"]] for row in answers] == read_csv(expected)[1:]


def test_predict_adds_names_and_probabilities(cli: Cli, trained: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    words = ("predict", trained.folder, trained.data / "test.csv", "--out", out, "--labels", "names", "--probabilities")
    assert cli(*words).code == 0
    table = pq.read_table(out)
    columns = [f"probability_{name}" for name in NAMES]
    assert table.column_names == ["ID", "Label", *columns]
    for row in table.to_pylist():
        shares = [row[column] for column in columns]
        assert sum(shares) == pytest.approx(1)
        assert row["Label"] == NAMES[shares.index(max(shares))]


def test_predict_defuses_formulas_on_request(cli: Cli, trained: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("id,title,description\n=1+1,Rain,\n@x,Snow,\nplain,Wind,\n")
    assert cli("predict", trained.folder, source, "--out", out).code == 0
    assert [row[0] for row in read_csv(out)[1:]] == ["=1+1", "@x", "plain"]
    assert cli("predict", trained.folder, source, "--out", out, "--defuse-formulas").code == 0
    assert [row[0] for row in read_csv(out)[1:]] == ["'=1+1", "'@x", "plain"]
    refused = cli("predict", trained.folder, source, "--out", tmp_path / "o.jsonl", "--defuse-formulas")
    assert refused.code == 2


def test_python_predicts_what_the_command_does(cli: Cli, trained: Any, tmp_path: Path) -> None:
    import pandas as pd

    source, expected = trained.data / "test.csv", tmp_path / "expected.csv"
    assert cli("predict", trained.folder, source, "--out", expected, "--probabilities").code == 0
    model, frame = submillion.load(trained.folder), pd.read_csv(source)
    for number, (run, data) in enumerate([(trained.folder, source), (model, str(source)), (model, frame)]):
        out = tmp_path / f"{number}.csv"
        predicted = submillion.predict(run, data, out=out, probabilities=True)
        assert (predicted.out, predicted.num_rows, predicted.num_blank) == (out, 40, 0)
        assert out.read_bytes() == expected.read_bytes()
    records = submillion.read_records(source, labels=model.labels.names)
    labels = [row[1] for row in read_csv(expected)[1:]]
    assert [said.label for said in model.predict(records)] == [said.label for said in model.predict(source)] == labels
    with pytest.raises(ConfigError, match="is read by this command"):
        submillion.predict(model, expected, out=expected)
    with pytest.raises(ConfigError, match="not a format for predictions"):
        submillion.predict(model, source, out=tmp_path / "out.xlsx")
    with pytest.raises(ConfigError, match="belongs to the run"):
        submillion.predict(model, source, out=trained.folder / "log.jsonl")
    with pytest.raises(DataError, match="there is no column 'title'"):
        submillion.predict(model, frame[["description"]], out=tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()


def test_predict_leaves_the_old_file_where_it_fails(cli: Cli, trained: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    out.write_text("old\n")
    source.write_text('{"title": "Rain", "description": ""}\n{"title": "Snow", "description": ""}\n{"title": \n')
    outcome = cli("predict", trained.folder, source, "--out", out)
    assert outcome.code == 3
    assert "in.jsonl:3" in outcome.err
    assert out.read_text() == "old\n"
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.csv"]


def test_predict_on_a_full_disk(trained: Any, submillion_process: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old\n")
    process = submillion_process(
        *("predict", trained.folder, trained.data / "train.csv", "--out", out, "--probabilities"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 6, err
    assert "cannot be written" in err
    assert "Traceback" not in err
    assert out.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["out.csv"]


def test_classify_shows_texts_as_they_are(cli: Cli, trained: Any) -> None:
    outcome = cli("classify", trained.folder, "[bold]Rain[/bold] \x1b[31mred")
    assert outcome.code == 0, outcome.err
    assert "[bold]Rain[/bold] \N{REPLACEMENT CHARACTER}[31mred" in outcome.out
    assert all(name in outcome.out for name in NAMES)


def test_classify_reads_stdin_and_gives_json(
    cli: Cli, trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("The champions won again\nShares fell\n"))
    predictions = cli("classify", trained.folder, "-", "--json").json
    assert len(predictions) == 2
    for prediction in predictions:
        assert prediction.keys() == {"label", "label_id", "probabilities"}
        assert NAMES[prediction["label_id"]] == prediction["label"]
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)


def test_report_of_several_runs(cli: Cli, trained: Any, tmp_path: Path) -> None:
    outcome = cli("report", trained.folder, "--out", tmp_path / "page.html")
    assert outcome.code == 0, outcome.err
    path = Path(outcome.out.strip())
    assert path.is_file()
    assert "<html" in path.read_text(encoding="utf-8")


def test_report_beside_a_run_of_the_trainer(cli: Cli, trained: Any, tmp_path: Path) -> None:
    state = tmp_path / "theirs" / "checkpoint-2" / "trainer_state.json"
    state.parent.mkdir(parents=True)
    history = [{"loss": 1.0, "step": 1, "epoch": 0.5}, {"eval_loss": 0.9, "eval_accuracy": 0.5, "step": 2, "epoch": 1}]
    state.write_text(json.dumps({"global_step": 2, "log_history": history}), encoding="utf-8")
    written = cli("report", state.parents[1], trained.folder, "--out", tmp_path / "both.html", "--json").json
    assert written["report"] == str(tmp_path / "both.html")
    assert "a run of transformers.Trainer" in Path(written["report"]).read_text(encoding="utf-8")
    assert all(Path(plot).read_bytes().startswith(b"\x89PNG") for plot in written["plots"])
    assert str(tmp_path / "both-plots" / "validation-accuracy.png") in written["plots"]


def test_the_python_api_gives_the_same_answers(cli: Cli, trained: Any) -> None:

    predictions = submillion.load(trained.folder).classify(["Rain stops play"])
    shown = cli("classify", trained.folder, "Rain stops play", "--json").json
    assert shown[0]["label"] == predictions[0].label
    assert list(shown[0]["probabilities"].values()) == pytest.approx(predictions[0].probabilities)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_says_how_it_is_continued(
    signal_number: int,
    trained: Any,
    train_words: Callable[..., list[str]],
    submillion_process: Callable[..., Any],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    words = train_words(trained.data, folder, "--set", "train.max_steps=400", "--set", "baseline=false")
    process = submillion_process(*words)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "log.jsonl").exists() or not (folder / "log.jsonl").read_text():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal_number)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert out == ""
    assert f"submillion train --resume {folder}" in err
    assert "Traceback" not in err
    assert (folder / "checkpoints" / "last").is_file()


@pytest.mark.parametrize("words", [("recipes", "show", "agnews"), ("recipes",), ("plan", "agnews")], ids=" ".join)
def test_a_closed_pipe_is_no_error(
    words: tuple[str, ...], submillion_process: Callable[..., subprocess.Popen[str]]
) -> None:
    """Text, a table and a report of several tables end in the same code."""
    with submillion_process(*words) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""
