"""The command from end to end on a tiny base: two workers, killed in the middle, continued, confirmed, reported."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from submillion.errors import ConfigError
from submillion.run.folder import RunDir
from submillion.search.conduct import choose_search_folder
from submillion.storage.files import read_json, read_log

RECIPE = """
name: small
data: {{source: {data}, validation_size: 0.25}}
model: {{base: {base}, max_length: 48}}
train: {{max_steps: 6, batch_size: 16, learning_rate: 5.0e-3}}
final: {{proof: false, report: false}}
search:
  trials: 3
  rows: 60
  validation_rows: 16
  steps: 4
  reports: 2
  startup: 2
  seeds: 1
  confirm_steps: 4
  space:
    train.learning_rate: {{type: float, low: 1.0e-3, high: 2.0e-2, log: true}}
    adapter.rank: {{type: rank}}
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_bert: Path, news_rows: Callable[..., Path]) -> Path:
    news_rows(tmp_path / "data" / "train.csv", 120)
    news_rows(tmp_path / "data" / "test.csv", 24, start=1000)
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.format(data=tmp_path / "data", base=tiny_bert))
    return path


def list_processes(folder: Path) -> list[int]:
    """Return the processes that have a folder in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(folder) in words:
                found.append(int(entry.name))
    return found


def await_true(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_search_with_two_workers_survives_a_kill(
    recipe: Path, tmp_path: Path, submillion_process: Callable[..., subprocess.Popen[str]], cli: Callable[..., Any]
) -> None:
    out = tmp_path / "search"
    words = ["tune", recipe, "--workers", 2, "--out", out, "--json"]
    first = submillion_process(*words)
    try:
        await_true(lambda: len(list(out.glob("trials/*/log.jsonl"))) >= 2 or first.poll() is not None)
    finally:
        first.send_signal(signal.SIGKILL)
        _, err = first.communicate()
    assert first.returncode == -signal.SIGKILL, err
    # Runs end by themselves where the command is gone.
    await_true(lambda: list_processes(out) == [])

    second = cli(*words)
    assert second.code == 0, second.err
    found: dict[str, Any] = second.json
    assert found["trials"]["complete"] + found["trials"]["pruned"] == 3
    assert found["trials"]["failed"] in {1, 2}
    assert found["trials"]["running"] == found["trials"]["waiting"] == 0
    everything = read_json(out / "study.json")
    trials = [trial for trial in everything["all_trials"] if trial["state"] in {"complete", "pruned"}]
    validation_rows = set()
    for trial in trials:
        run = RunDir(Path(trial["runs"]))
        data, manifest = read_json(run.data), read_json(run.manifest)
        assert (data["num_train"], data["num_validation"], manifest["num_test_evaluations"]) == (60, 16, 0)
        assert not run.evaluation("test").exists()
        assert not run.checkpoints.exists()
        assert read_json(run.plan)["trainable_params"] < 1_000_000
        validations = [entry for entry in read_log(run.log) if entry["kind"] == "evaluation"]
        assert [entry["split"] for entry in validations] == ["validation"] * len(trial["reports"])
        if trial["state"] == "complete":
            from pyarrow import parquet

            validation_rows.add(tuple(parquet.read_table(run.predictions("validation"))["id"].to_pylist()))
    assert len(validation_rows) == 1
    if found["confirmation"] is not None:
        assert found["confirmation"]["split"] == "test"
        assert found["confirmation"]["num_records"] == 24
    for name in ("winner.yaml", "report.html", "trials.csv", "plots/history.png"):
        assert (out / name).stat().st_size > 0

    # Everything is there: nothing is trained again, and the recipe plans.
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("log.jsonl")}
    third = cli(*words)
    assert third.code == 0, third.err
    assert third.json == found
    assert {path: path.stat().st_mtime_ns for path in out.rglob("log.jsonl")} == finished


def test_wrong_input_ends_in_its_exit_code_with_a_hint(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    wrong = cli(
        "tune", recipe, "--set", "search.space={train.lr: {type: float, low: 0, high: 1}}", "--out", tmp_path / "a"
    )
    assert (wrong.code, "search.space.train.lr" in wrong.err) == (2, True), wrong.err
    assert cli("tune", recipe, "--budget", "20", "--out", tmp_path / "b").code == 4
    wilcoxon = cli("tune", recipe, "--pruner", "wilcoxon", "--out", tmp_path / "c")
    assert (wilcoxon.code, "repeats of at least 5" in wilcoxon.err) == (2, True), wilcoxon.err
    storage = cli("tune", recipe, "--storage", "nothing", "--out", tmp_path / "d")
    assert (storage.code, "postgresql://" in storage.err) == (2, True), storage.err
    assert cli("tune", recipe, "--data", tmp_path / "nowhere.csv", "--out", tmp_path / "e").code == 3
    other = cli("tune", recipe, "--out", tmp_path / "data")
    assert (other.code, "no folder of a search" in other.err) == (2, True), other.err


def test_a_worker_tells_what_ends_it(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data" / "train.csv"
    words = ("tune", recipe, "--out", tmp_path / "broken")
    # The number of classes is known, so that the trial itself meets the damage.
    named = ("--set", "data.labels=[World, Sports, Business, Sci/Tech]")
    broken.write_text("label,title,description\nWorld,only one,row\n")
    outcome = cli(*words, *named)
    assert outcome.code == 3, outcome.err
    assert "only one row" in outcome.err or "class" in outcome.err


def test_the_same_command_has_the_same_folder(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from submillion.recipes import load_recipe

    monkeypatch.chdir(tmp_path)
    config = load_recipe(str(recipe))
    assert choose_search_folder(config, None) == Path("runs/small-search")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="no folder of a search"):
        choose_search_folder(config, tmp_path / "file")
