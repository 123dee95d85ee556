"""Bad input: one clear message, the right exit code, no traceback, nothing half written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from submillion.cli import main

Cli = Callable[..., Any]
GOOD = "text,label\n" + "".join(f"{word} {n} times,{word}\n" for n in range(20) for word in ("rain", "snow"))


class Evil:
    """Would make a file if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def make_parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["rain", "snow"] * 50, "label": [0, 1] * 50}), buffer)
    return buffer.getvalue()


def write_bad(kind: str, folder: Path) -> Path:
    """Write a training file that is broken in one way and return its path; none at all for ``missing``."""
    good = GOOD.encode()
    contents: dict[str, tuple[str, bytes]] = {
        "empty": ("bad.csv", b""),
        "header only": ("bad.csv", b"text,label\n"),
        "one class": ("bad.csv", b"text,label\nrain falls,rain\nrain again,rain\n"),
        "NUL": ("bad.csv", good + b"nul \x00 here,rain\n"),
        "not UTF-8": ("bad.csv", good + b"caf\x81,rain\n"),
        "truncated gzip": ("bad.csv.gz", gzip.compress(good * 50)[:-100]),
        "truncated parquet": ("bad.parquet", make_parquet()[:-20]),
        "10 MB in one field": ("bad.csv", good + b"x" * 10_000_000 + b",rain\n"),
        "evil pickle": ("bad.pkl", pickle.dumps(Evil(folder / "executed"))),
    }
    name, content = contents.get(kind, ("bad.csv", b""))
    if kind != "missing":
        (folder / name).write_bytes(content)
    return folder / name


# Text that the message must have besides the file: the problem in words that a user understands.
BAD_DATA = {
    "missing": "",
    "empty": "empty",
    "header only": "no rows",
    "one class": "'rain'",
    "NUL": "NUL",
    "not UTF-8": "UTF-8",
    "truncated gzip": "",
    "truncated parquet": "",
    "10 MB in one field": "",
    "evil pickle": "",
}


def check_message(outcome: Any, code: int) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert outcome.err.count("error: ") == 1
    message = outcome.err.partition("error: ")[2]
    assert len(message) < 2000


@pytest.mark.parametrize("kind", BAD_DATA)
def test_training_on_bad_data(cli: Cli, train_words: Callable[..., list[str]], tmp_path: Path, kind: str) -> None:
    path = write_bad(kind, tmp_path)
    outcome = cli(*train_words(path, tmp_path / "run"))
    check_message(outcome, 3)
    message = outcome.err.partition("error: ")[2]
    assert path.name in message
    assert BAD_DATA[kind] in message
    assert not (tmp_path / "executed").exists()
    assert os.listdir(tmp_path) == ([path.name] if path.exists() else [])


@pytest.mark.parametrize("kind", sorted(set(BAD_DATA) - {"one class"}))
def test_checking_bad_data(cli: Cli, tmp_path: Path, kind: str) -> None:
    path = write_bad(kind, tmp_path)
    outcome = cli("check", path, "--json")
    check_message(outcome, 3)
    assert path.name in outcome.err
    assert not (tmp_path / "executed").exists()


def test_a_wrong_column_is_named_with_those_that_are_there(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "good.csv"
    path.write_text(GOOD)
    for flag in ("--text", "--label", "--id"):
        outcome = cli("check", path, flag, "txet")
        check_message(outcome, 3)
        assert "txet" in outcome.err
        assert "text" in outcome.err


def test_check_ends_in_zero_with_findings_and_in_three_if_strict(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GOOD + "rain 3 times,rain\n")
    outcome = cli("check", path, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["num_exact_duplicates"] == 1
    assert outcome.json.keys() >= {"num_records", "num_near_duplicates", "num_label_conflicts", "leaks"}
    assert cli("check", path, "--strict").code == 3
    (tmp_path / "other.csv").write_text("text,label\nRain 3 times!,rain\nfog,snow\n")
    leaks = cli("check", path, "--against", tmp_path / "other.csv", "--json").json["leaks"]
    assert [(leak["kind"], leak["num_records"]) for leak in leaks] == [("exact", 2)]
    shown = cli("check", path, "--against", tmp_path / "other.csv")
    assert "data.csv:" in shown.out
    assert "other.csv:2" in shown.out


USAGE_ERRORS = {
    "unknown recipe": (["train", "agnews-minlm"], "Did you mean 'agnews-minilm'?"),
    "no recipe": (["train"], "no recipe"),
    "unknown command": (["trian"], "Did you mean 'train'?"),
    "unknown option": (["plan", "demo", "--badget", "3"], "--budget"),
    "unknown setting": (["plan", "demo", "--set", "train.epoch=2"], "did you mean 'epochs'?"),
    "wrong value": (["plan", "demo", "--set", "train.epochs=many"], "train.epochs"),
    "no value": (["plan", "demo", "--set", "train.epochs"], "key=value"),
    "wrong number": (["plan", "demo", "--budget", "x"], "--budget"),
    "resume and change": (["train", "demo", "--resume", "somewhere"], "RECIPE"),
    "unknown ending": (["predict", "run", "in.csv", "--out", "out.xlsx"], ".parquet"),
    "missing folder": (["predict", "run", "in.csv", "--out", "nowhere/out.csv"], "no such folder"),
    "missing argument": (["classify"], "RUN"),
}


@pytest.mark.parametrize("name", USAGE_ERRORS)
def test_wrong_usage(cli: Cli, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words, expected = USAGE_ERRORS[name]
    outcome = cli(*words)
    check_message(outcome, 2)
    assert expected in outcome.err
    assert os.listdir(tmp_path) == []


def test_a_typo_in_a_recipe_file_is_found(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("trian:\n  epochs: 2\nmodel:\n  bsae: minilm-l6\n")
    outcome = cli("plan", path)
    check_message(outcome, 2)
    assert "did you mean 'train'?" in outcome.err
    assert "did you mean 'base'?" in outcome.err
    path.write_text("train: [unclosed\n")
    check_message(cli("plan", path), 2)


def test_a_plan_over_its_budget_says_what_fits(cli: Cli) -> None:
    outcome = cli("plan", "demo", "--set", "adapter.rank=64", "--json")
    check_message(outcome, 4)
    assert "adapter.rank=24" in outcome.err


def test_missing_weights_say_where_was_looked(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "good.csv"
    path.write_text(GOOD)
    outcome = cli("train", "agnews", "--data", path, "--out", tmp_path / "run")
    check_message(outcome, 5)
    assert "roberta-base" in outcome.err
    assert os.listdir(tmp_path) == ["good.csv"]


@pytest.mark.parametrize("words", [["classify", "nowhere", "Rain"], ["report", "nowhere"], ["train", "--resume", "no"]])
def test_no_run_folder(cli: Cli, words: list[str]) -> None:
    check_message(cli(*words), 6)


def test_a_file_that_is_no_state_of_a_trainer(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    check_message(cli("report", tmp_path / "trainer_state.json"), 6)
    assert os.listdir(tmp_path) == ["trainer_state.json"]


def test_a_folder_in_use_is_not_touched(
    cli: Cli, train_words: Callable[..., list[str]], news_rows: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    outcome = cli(*train_words(news_rows(tmp_path / "news.csv"), folder))
    check_message(outcome, 2)
    assert os.listdir(folder) == ["thesis.txt"]


def test_recipes_are_listed_shown_and_copied(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "agnews-qkv-r4-bias" in cli("recipes").out
    shown = cli("recipes", "show", "demo").out
    assert cli("recipes", "copy", "demo").code == 0
    assert Path("demo.yaml").read_text(encoding="utf-8") == shown
    check_message(cli("recipes", "copy", "demo"), 2)
    assert cli("recipes", "copy", "demo", "mine.yaml").out == "mine.yaml\n"


def test_plan_of_a_recipe_counts_exactly(cli: Cli) -> None:
    outcome = cli("plan", "agnews-qkv-r4-bias", "--json")
    keys = ("trainable_params", "adapter_params", "head_params", "bias_params", "total_params", "peft_all_params")
    assert outcome.json.keys() >= {*keys, "budget", "modules"}
    assert outcome.json["trainable_params"] == 916_996
    assert outcome.json["modules"][0].keys() >= {"name", "rank", "alpha", "params"}
    assert "916,996" in cli("plan", "agnews-qkv-r4-bias").out


def test_a_bug_is_one_line_until_asked_for_more(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of [bold]all[/bold] things")

    monkeypatch.setattr("submillion.api.plan", fail)
    outcome = cli("plan", "demo")
    check_message(outcome, 1)
    assert "ZeroDivisionError: of [bold]all[/bold] things" in outcome.err
    assert "--debug" in outcome.err
    with_debug = cli("plan", "demo", "--debug")
    assert with_debug.code == 1
    assert "Traceback" in with_debug.err


def test_an_interrupt_ends_in_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("submillion.api.plan", interrupt)
    outcome = cli("plan", "demo")
    assert (outcome.code, outcome.out) == (130, "")
    assert "interrupted" in outcome.err


def test_version_and_help(cli: Cli) -> None:
    import submillion

    assert cli("--version").out == f"submillion {submillion.__version__}\n"
    assert cli().out == cli("--help").out
    assert main(["train", "--help"]) == 0


def test_labels_outside_the_run_are_refused(cli: Cli, trained: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for value in ("7", "Weather"):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["text", "label"], ["Rain", "0" if value == "7" else "World"], ["Snow", value]])
        outcome = cli("evaluate", trained.folder, path, "--text", "text")
        check_message(outcome, 3)
        assert value in outcome.err
        assert "rows.csv:3" in outcome.err


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "distilbert"])
def test_a_tokenizer_larger_than_its_base_is_named(
    cli: Any, tiny_base: Callable[[str], Path], news_rows: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base(family), base)
    values = json.loads((base / "tokenizer.json").read_text())
    size = len(values["model"]["vocab"])
    values["model"]["vocab"]["[BEYOND]"] = size
    values["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [size]
    (base / "tokenizer.json").write_text(json.dumps(values))
    data = news_rows(tmp_path / "news.csv", 40)
    outcome = cli(
        *("train", "demo", "--data", data, "--base", base, "--out", tmp_path / "run"),
        *("--set", "model.max_length=48", "--set", "train.max_steps=1", "--set", "adapter.rank=1"),
        *("--set", "threads=1", "--set", "baseline=false"),
    )
    assert outcome.code == 5, outcome.err
    assert f"token ids reach {size}" in outcome.err
    assert f"embeddings for {size} tokens" in outcome.err
