"""Runs in their own processes: finished, resumed, ended early, interrupted, failed and orphaned."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from submillion.config.run import RunConfig, dump_config, parse_config
from submillion.errors import BudgetError, ConfigError, DataError, DivergedError, RunError
from submillion.launch import launch_run
from submillion.recipes import load_recipe
from submillion.run.folder import RunDir
from submillion.storage.files import read_json, read_log


@pytest.fixture(scope="session")
def launch_data(tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("launch-data")
    news_rows(root / "train.csv", 80)
    news_rows(root / "test.csv", 20, start=1000)
    return root


@pytest.fixture
def make_config(launch_data: Path, tiny_bert: Path) -> Callable[..., RunConfig]:
    def make(**changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "name": "launched",
            "data": {"source": str(launch_data)},
            "model": {"base": str(tiny_bert), "max_length": 48},
            "adapter": {"rank": 2},
            "train": {"max_steps": 6, "batch_size": 16, "evaluate_every": 2, "interval_unit": "steps"},
            "baseline": False,
            "threads": 1,
        }
        for section, settings in changes.items():
            values[section] = {**values[section], **settings} if isinstance(settings, dict) else settings
        return parse_config(values, where="test")

    return make


LONG = {"max_steps": 100_000, "evaluate_every": 5, "interval_unit": "steps"}


def list_descendants(parent: int) -> list[int]:
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(status[1]) == parent and status[0] != "Z":
                children.append(int(entry.name))
    return children


def await_steps(run: Path, num_steps: int = 1) -> None:
    deadline = time.monotonic() + 120
    while len(read_log(RunDir(run).log)) < num_steps:
        assert time.monotonic() < deadline, "the run has not begun to train"
        time.sleep(0.05)


def note_step(told: list[int], entry: Mapping[str, Any]) -> bool:
    """Note the step of a validation, and let the run continue."""
    told.append(entry["step"])
    return False


def test_a_run_is_carried_out_once_and_its_validations_are_told_in_order(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    told: list[int] = []
    config, out = make_config(), tmp_path / "run"
    launched = launch_run(config, out, on_validation=partial(note_step, told))
    assert launched.state == "complete"
    assert told == [2, 4, 6] == [entry["step"] for entry in launched.validations]
    assert set(launched.evaluations) == {"validation", "test"}
    assert launched.evaluations["test"]["num_records"] == 20
    finished = RunDir(out).manifest.stat().st_mtime_ns
    again = launch_run(config, out)
    assert again == launched
    assert RunDir(out).manifest.stat().st_mtime_ns == finished


def test_a_validation_that_says_so_ends_the_run_for_good(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    config, out = make_config(train=LONG), tmp_path / "run"
    launched = launch_run(config, out, on_validation=lambda entry: entry["step"] >= 5)
    assert launched.state == "pruned"
    assert launched.validations[0]["step"] == 5
    assert launched.evaluations == {}
    assert read_json(RunDir(out).manifest)["state"] == "pruned"
    assert launch_run(config, out).state == "pruned"


def test_an_interrupted_run_is_continued_by_the_same_call(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config, out = make_config(train={"max_steps": 40, "evaluate_every": 20}), tmp_path / "run"
    before = list_descendants(os.getpid())  # of tests that ran earlier in this process

    def interrupt_soon() -> None:
        await_steps(out)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt_soon)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            launch_run(config, out)
    finally:
        thread.join()
    assert set(list_descendants(os.getpid())) <= set(before)
    assert RunDir(out).checkpoints.is_dir()
    steps = [entry["step"] for entry in read_log(RunDir(out).log) if entry["kind"] == "step"]
    assert 1 <= len(steps) < 40
    told: list[int] = []
    launched = launch_run(config, out, on_validation=partial(note_step, told))
    assert launched.state == "complete"
    assert told == [20, 40]


def test_a_run_ends_where_the_process_that_launched_it_is_killed(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    out, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    recipe.write_text(dump_config(make_config(train=LONG)))
    code = (
        "import sys, pathlib\n"
        "from submillion.launch import launch_run\n"
        "from submillion.recipes import load_recipe\n"
        "launch_run(load_recipe(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code, str(recipe), str(out)])
    try:
        await_steps(out)
        (child,) = list_descendants(launcher.pid)
    finally:
        launcher.kill()
        launcher.wait()
    # Launched again at once, it waits until the first one has saved and let go of the folder.
    known = read_log(RunDir(out).log)[-1]["step"]
    launched = launch_run(load_recipe(str(recipe)), out, on_validation=lambda entry: entry["step"] > known + 50)
    assert launched.state == "pruned"
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
    steps = [entry["step"] for entry in read_log(RunDir(out).log) if entry["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))


def test_errors_come_back_as_their_kind_with_their_message(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="trainable parameters are not below the budget of 50") as budget:
        launch_run(make_config(budget=50), tmp_path / "budget")
    assert "What fits" in budget.value.hint
    with pytest.raises(DataError, match="nowhere"):
        launch_run(make_config(data={"source": str(tmp_path / "nowhere.csv")}), tmp_path / "data")
    with pytest.raises(ConfigError, match="layers"):
        launch_run(make_config(adapter={"layers": [99]}), tmp_path / "config")


def test_a_run_that_diverges_says_so_by_kind_and_leaves_no_error_behind_when_it_is_mended(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(DivergedError, match="of step 2 is") as caught:
        launch_run(make_config(train={"learning_rate": 1e38, "warmup_ratio": 0.0}), out)
    assert caught.value.where == "train"
    assert str(out) in caught.value.hint
    error = tmp_path / "run.error.json"
    assert read_json(error)["kind"] == "DivergedError"
    shutil.rmtree(out)
    launch_run(make_config(), out)
    assert not error.exists()


def test_a_killed_run_and_what_raises_while_it_is_polled(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    out = tmp_path / "killed"

    def kill() -> None:
        if RunDir(out).checkpoints.is_dir():
            for child in list_descendants(os.getpid()):
                os.kill(child, signal.SIGKILL)

    with pytest.raises(RunError, match="killed by SIGKILL"):
        launch_run(make_config(train=LONG), out, on_poll=kill)

    def fail() -> None:
        raise OSError("the storage is gone")

    with pytest.raises(OSError, match="the storage is gone"):
        launch_run(make_config(train=LONG), tmp_path / "failing", on_poll=fail)
    assert list_descendants(os.getpid()) == []


def test_another_run_in_the_folder_is_refused(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    RunDir(out).config.write_text(dump_config(make_config()))
    with pytest.raises(ConfigError, match=r"other settings: seed, train\.max_steps differ"):
        launch_run(make_config(seed=5, train={"max_steps": 7}), out)
