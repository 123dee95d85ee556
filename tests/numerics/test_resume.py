"""A run that was killed anywhere, or stopped, ends in the bytes of a run that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from submillion.config.run import RunConfig, dump_config, parse_config
from submillion.errors import RunError
from submillion.pipeline.fit import Fitting, Interrupted
from submillion.pipeline.run import resume_run, start_run
from submillion.run.folder import RunDir
from submillion.run.reader import read_config
from submillion.storage.files import read_json, read_log

DRIVER = Path(__file__).with_name("kill_driver.py")
KEPT = (
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "head.safetensors",
    "plan.json",
)

PLAIN: dict[str, Any] = {"train": {}}
# Its averages are kept, and it stops before its tenth step.
STOPPING: dict[str, Any] = {"train": {"ema_decay": 0.7, "patience": 2, "metric": "macro_f1", "keep_checkpoints": 1}}

# Where a run is killed: function, its n-th call, and before, after or in the middle of it. Runs validate after steps
# 3, 6, 9 and 10 and save after these and after every second one.
KILLS: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "before the first step": (PLAIN, "submillion.pipeline.fit:train_steps", 1, "before"),
    "before the first checkpoint": (PLAIN, "submillion.pipeline.fit:Fitting._log_step", 2, "before"),
    "half a log line": (PLAIN, "submillion.pipeline.fit:RunLog.write", 7, "half"),
    "half a file of a checkpoint": (PLAIN, "submillion.training.checkpoint:_write_synced", 5, "half"),
    "the first checkpoint not renamed": (PLAIN, "submillion.training.checkpoint:os.rename", 1, "before"),
    "a checkpoint not renamed": (PLAIN, "submillion.training.checkpoint:os.rename", 3, "before"),
    "a checkpoint renamed and not pointed to": (PLAIN, "submillion.training.checkpoint:os.rename", 3, "after"),
    "last set and best not": (PLAIN, "submillion.training.checkpoint:point_to", 3, "after"),
    "old checkpoints not deleted": (PLAIN, "submillion.training.checkpoint:delete_old_checkpoints", 4, "before"),
    "inside an evaluation": (PLAIN, "submillion.pipeline.fit:measure", 2, "before"),
    "after an evaluation": (PLAIN, "submillion.pipeline.fit:measure", 2, "after"),
    "before the adapter is written": (PLAIN, "submillion.pipeline.finish:write_tokenizer", 1, "before"),
    "inside the test evaluation": (PLAIN, "submillion.pipeline.finish:score", 3, "before"),
    "averaged, inside an evaluation": (STOPPING, "submillion.pipeline.fit:measure", 2, "before"),
    "averaged, a checkpoint not pointed to": (STOPPING, "submillion.training.checkpoint:os.rename", 2, "after"),
    "averaged, after stopping early": (STOPPING, "submillion.pipeline.fit:Fitting._load_best", 1, "before"),
}


@dataclass(frozen=True)
class Scene:
    """Whole runs by their settings, and killed ones by the name of the kill."""

    data: Path
    whole: dict[str, Path]
    killed: dict[str, Path]

    def copy(self, run: Path, folder: Path) -> Path:
        return Path(shutil.copytree(run, folder))


def make_config(base: Path, data: Path, settings: dict[str, Any]) -> RunConfig:
    values = {
        "name": "resume",
        "threads": 1,
        "baseline": False,
        "data": {"source": str(data), "leaks": "keep"},
        "model": {"base": str(base), "max_length": 48, "precision": "fp32", "dropout": 0.1, "head_dropout": 0.1},
        "adapter": {"rank": 2, "targets": ["query", "ffn_in"], "dropout": 0.1, "bias": "lora_only"},
        "train": {
            "batch_size": 8,
            "epochs": 2,
            "micro_batch_tokens": 200,
            "learning_rate": 0.01,
            "evaluate_every": 3,
            "save_every": 2,
            "interval_unit": "steps",
            **settings["train"],
        },
    }
    return parse_config(values, where="test")


@pytest.fixture(autouse=True)
def _only_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report and the proof in a fresh process; both come after the compared parts."""
    monkeypatch.setattr("submillion.pipeline.finish.verify_run", lambda *_: {})
    monkeypatch.setattr("submillion.pipeline.finish.write_report", lambda *_: None)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, news_rows: Callable[..., Path]) -> Scene:
    root = tmp_path_factory.mktemp("resume")
    data = news_rows(root / "news.csv", 48)
    requests = [
        {
            "config": make_config(tiny_bert, data, settings).model_dump(mode="json"),
            "folder": str(root / f"killed-{number}"),
            "target": target,
            "call": call,
            "when": when,
        }
        for number, (settings, target, call, when) in enumerate(KILLS.values())
    ]
    (root / "requests.json").write_text(json.dumps(requests))
    driver = subprocess.run(
        [sys.executable, "-W", "ignore", str(DRIVER), str(root / "requests.json")],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert driver.returncode == 0, driver.stderr
    outcomes = dict(zip(KILLS, json.loads(driver.stdout), strict=True))
    assert set(outcomes.values()) == {-signal.SIGKILL}, (outcomes, driver.stderr)
    whole = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("submillion.pipeline.finish.verify_run", lambda *_: {})
        patch.setattr("submillion.pipeline.finish.write_report", lambda *_: None)
        for name, settings in (("plain", PLAIN), ("stopping", STOPPING)):
            whole[name] = start_run(make_config(tiny_bert, data, settings), root / name).run
    killed = {name: Path(str(request["folder"])) for name, request in zip(KILLS, requests, strict=True)}
    return Scene(data, whole, killed)


def strip_times(run: Path) -> list[dict[str, Any]]:
    entries = read_log(RunDir(run).log)
    return [{key: value for key, value in entry.items() if not key.endswith("_s")} for entry in entries]


def assert_same_end(run: Path, whole: Path) -> None:
    for name in KEPT:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert strip_times(run) == strip_times(whole)
    for split in ("validation", "test"):
        assert (run / f"evaluation/{split}.json").read_bytes() == (whole / f"evaluation/{split}.json").read_bytes()
    steps = [entry["step"] for entry in read_log(RunDir(run).log) if entry["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert read_json(run / "manifest.json")["state"] == "complete"
    leftovers = [path for path in run.rglob("*") if path.name.endswith(".tmp")]
    assert not leftovers


def test_the_runs_are_of_the_kind_that_the_kills_speak_of(scene: Scene) -> None:
    plain, stopping = (strip_times(scene.whole[name]) for name in ("plain", "stopping"))
    assert [entry["step"] for entry in plain if entry["kind"] == "step"] == list(range(1, 11))
    assert [entry["step"] for entry in plain if entry["kind"] == "evaluation"] == [3, 6, 9, 10]
    state = read_json(scene.whole["stopping"] / "checkpoints" / "step-9" / "state.json")
    assert state["stopped"] is True
    assert [entry["step"] for entry in stopping if entry["kind"] == "step"] == list(range(1, 10))


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_resumes_to_the_same_bytes(kill: str, scene: Scene) -> None:
    run = scene.killed[kill]
    assert not (run / "manifest.json").exists() or read_json(run / "manifest.json")["state"] == "running"
    resume_run(run)
    assert_same_end(run, scene.whole["stopping" if kill.startswith("averaged") else "plain"])


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 1), (signal.SIGINT, 5)])
def test_a_signal_saves_and_interrupts(
    number: signal.Signals, step: int, scene: Scene, tiny_bert: Path, tmp_path: Path
) -> None:
    real = Fitting._log_step

    def log_and_signal(self: Fitting, result: Any) -> None:
        real(self, result)
        if result.step == step:
            os.kill(os.getpid(), number)

    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fitting, "_log_step", log_and_signal)
        with pytest.raises(Interrupted) as caught:
            start_run(make_config(tiny_bert, scene.data, PLAIN), run)
    assert caught.value.folder == str(run)
    assert (run / "checkpoints" / "last").read_text() == f"step-{step}\n"
    resume_run(run)
    assert_same_end(run, scene.whole["plain"])


def test_resuming_a_complete_run_changes_nothing_but_the_count_of_test_evaluations(
    scene: Scene, tmp_path: Path
) -> None:
    run = scene.copy(scene.whole["stopping"], tmp_path / "run")
    summary = resume_run(run)
    assert_same_end(run, scene.whole["stopping"])
    assert summary.rows_per_s is None
    before, now = (read_json(folder / "manifest.json") for folder in (scene.whole["stopping"], run))
    assert (before["num_test_evaluations"], now["num_test_evaluations"]) == (1, 2)
    for key in ("rows_per_s", "num_steps", "train_s", "best_step", "temperature"):
        assert now[key] == before[key], key


def test_other_data_is_refused(scene: Scene, tmp_path: Path) -> None:
    run = scene.copy(scene.whole["plain"], tmp_path / "run")
    content = scene.data.read_bytes()
    try:
        scene.data.write_bytes(content.replace(b"derby", b"contest", 1))
        with pytest.raises(RunError, match="data differs from the data that the run started with"):
            resume_run(run)
    finally:
        scene.data.write_bytes(content)


def test_other_threads_are_refused(scene: Scene, tmp_path: Path) -> None:
    run = scene.copy(scene.whole["plain"], tmp_path / "run")
    config = read_config(RunDir(run)).model_copy(update={"threads": 2})
    (run / "config.yaml").write_text(dump_config(config))
    with pytest.raises(RunError, match="threads was 1, is 2"):
        resume_run(run)


def test_other_weights_are_refused(scene: Scene, tmp_path: Path) -> None:
    run = scene.copy(scene.whole["plain"], tmp_path / "run")
    manifest = read_json(run / "manifest.json")
    manifest["base"]["weights_sha256"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="weights_sha256 was 0000"):
        resume_run(run)


def test_a_damaged_checkpoint_is_refused(scene: Scene, tmp_path: Path) -> None:
    run = scene.copy(scene.whole["plain"], tmp_path / "run")
    path = run / "checkpoints" / "step-10" / "parameters.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match="damaged"):
        resume_run(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        resume_run(tmp_path)
