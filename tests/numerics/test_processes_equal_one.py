"""Several processes equal one process up to rounding, in steps, scores, whole runs and failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from submillion.config.run import parse_config
from submillion.storage.files import read_json, read_log

# The scenes are played in the first test's setup: half a minute on two idle cores, and many of those on busy ones.
pytestmark = pytest.mark.timeout(1200)

DRIVER = Path(__file__).with_name("processes_driver.py")
Scenes = Callable[[str], list[dict[str, Any]]]

# 36 records in batches of 8: the last step of an epoch holds 4.
LENGTHS = [3 + (7 * row) % 41 for row in range(36)]
CURVES: dict[str, dict[str, Any]] = {
    "plain": {"batch_size": 8, "epochs": 2, "learning_rate": 0.01, "micro_batch_tokens": 64},
    "weighted": {
        "batch_size": 8,
        "max_steps": 7,
        "learning_rate": 0.01,
        "class_weights": [3.0, 1.0, 0.5, 0.1],
        "label_smoothing": 0.2,
        "clip_norm": None,
        "record_weights": [1.0, 0.25, 3.0, 1.0, 1.0],
    },
    # One process has no record in most steps.
    "fewer records than processes": {"batch_size": 2, "max_steps": 9, "learning_rate": 0.01},
}
COUNTS = {"plain": 2, "weighted": 2, "fewer records than processes": 3}
ROWS = {"many": [5, 9, 40, 9, 3, 17, 64, 9, 33, 12, 7], "one": [7]}
SPOILS = ("loss", "gradient", "memory", "exit")


def make_config(base: Path, data: Path) -> dict[str, Any]:
    values = {
        "name": "shared",
        "threads": 1,
        "baseline": False,
        "data": {"source": str(data), "leaks": "keep"},
        "model": {"base": str(base), "max_length": 48, "precision": "fp32", "dropout": 0.1},
        "adapter": {"rank": 2, "targets": ["query", "ffn_in"], "dropout": 0.1},
        "train": {
            "batch_size": 8,
            "epochs": 2,
            "micro_batch_tokens": 200,
            "learning_rate": 0.01,
            "evaluate_every": 3,
            "interval_unit": "steps",
            "ema_decay": 0.7,
        },
    }
    return parse_config(values, where="test").model_dump(mode="json")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, news_rows: Callable[..., Path]) -> Scenes:
    """Return `said(name)`: the outputs of a scene's processes, in order of ranks; all scenes run at once."""
    root = tmp_path_factory.mktemp("scenes")
    data = root / "data"
    news_rows(data / "train.csv", 50)
    news_rows(data / "test.csv", 21, start=1000)
    requests: dict[str, tuple[str, int, dict[str, Any]]] = {
        "words": ("words", 2, {}),
        "plain accelerator": ("plain_accelerator", 2, {}),
        "diverged": ("score_of_diverged", 2, {"base": str(tiny_bert)}),
    }
    for name, train in CURVES.items():
        arguments = {"base": str(tiny_bert), "lengths": LENGTHS, **train}
        requests[f"{name}, alone"] = ("curve", 1, arguments)
        requests[name] = ("curve", COUNTS[name], arguments)
        requests[f"{name}, late"] = ("curve", COUNTS[name], arguments | {"late": True})
    for name, lengths in ROWS.items():
        for count in (1, 2):
            requests[f"score {name}, {count}"] = ("score", count, {"base": str(tiny_bert), "lengths": lengths})
    for how in SPOILS:
        for late in (False, True):
            requests[f"spoilt {how}, {late}"] = ("spoilt_step", 2, {"base": str(tiny_bert), "how": how, "late": late})
    config = make_config(tiny_bert, data)
    for name, counts in {"1": [1], "2": [2], "1 to 2": [1, 2], "2 to 1": [2, 1], "2 to 2": [2, 2]}.items():
        folder = {"config": config, "folder": str(root / f"run {name}")}
        first = folder | ({"stop_after": 5} if len(counts) > 1 else {})
        requests[f"run {name}"] = ("run", counts[0], first)
        if len(counts) > 1:
            requests[f"run {name}, resumed"] = ("run", counts[1], folder | {"resume": True})
    listed = [{"scene": scene, "count": count, "arguments": given} for scene, count, given in requests.values()]
    (root / "requests.json").write_text(json.dumps(listed))
    driver = subprocess.run(
        [sys.executable, "-W", "ignore", str(DRIVER), str(root / "requests.json"), str(root)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
        timeout=1100,
    )
    assert driver.returncode == 0, driver.stderr

    def said(name: str) -> list[dict[str, Any]]:
        number = list(requests).index(name)
        paths = [root / f"{number}-{rank}.json" for rank in range(requests[name][1])]
        return [json.loads(path.read_text()) if path.exists() else {} for path in paths]

    return said


# ------------------------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize("curve", CURVES)
def test_steps_are_those_of_one_process(curve: str, scenes: Scenes) -> None:
    [alone] = (said["result"] for said in scenes(f"{curve}, alone"))
    first, *others = (said["result"] for said in scenes(curve))
    assert len(alone["steps"]) == len(first["steps"])
    for mine, theirs in zip(first["steps"], alone["steps"], strict=True):
        assert mine == pytest.approx(theirs, rel=2e-4)
        for key in ("num_right", "num_records", "num_tokens"):
            assert mine[key] == theirs[key]
    for name, values in alone["parameters"].items():
        np.testing.assert_allclose(first["parameters"][name], values, atol=2e-3, err_msg=name)
    # Among themselves the processes agree to the last bit, averages included.
    assert len(others) == COUNTS[curve] - 1
    assert all(other == first for other in others)


@pytest.mark.parametrize("curve", CURVES)
def test_late_reading_changes_nothing(curve: str, scenes: Scenes) -> None:
    assert scenes(f"{curve}, late") == scenes(curve)


def test_scores_are_complete_and_in_order(scenes: Scenes) -> None:
    for name, lengths in ROWS.items():
        [alone] = scenes(f"score {name}, 1")
        together = scenes(f"score {name}, 2")
        assert np.shape(alone["result"]) == (len(lengths), 4)
        for said in together:
            np.testing.assert_allclose(said["result"], alone["result"], atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("how", "what"), [("loss", "loss"), ("gradient", "gradient norm")])
def test_what_is_not_finite_in_one_share_stops_all_before_the_step(
    how: str, what: str, late: bool, scenes: Scenes
) -> None:
    first, second = scenes(f"spoilt {how}, {late}")
    assert first == second
    assert first["error"] == "DivergedError"
    assert f"the {what} of step 2 is" in first["message"]
    assert "the step was not made" in first["message"]


@pytest.mark.parametrize("late", [False, True])
def test_what_fails_in_one_process_stops_all(late: bool, scenes: Scenes) -> None:
    first, second = scenes(f"spoilt memory, {late}")
    assert second["error"] == "MemoryError"
    assert first["error"] == "RunError"
    assert "process 1 of 2 failed: MemoryError: no memory for this" in first["message"]


@pytest.mark.parametrize("late", [False, True])
def test_a_process_that_is_gone_stops_the_others(late: bool, scenes: Scenes) -> None:
    first, second = scenes(f"spoilt exit, {late}")
    assert second == {}
    assert first["error"] == "RunError"
    assert "another process of this run is gone" in first["message"]


def test_logits_that_are_not_finite_in_one_share_stop_all(scenes: Scenes) -> None:
    first, second = scenes("diverged")
    assert first == second
    assert first["error"] == "RunError"
    assert "logits of 2 records are not finite" in first["message"]


def test_an_accelerator_that_sees_one_process_is_an_error(scenes: Scenes) -> None:
    for said in scenes("plain accelerator"):
        assert said["error"] == "ConfigError"
        assert "2 processes were started, but accelerate sees 1" in said["message"]
        assert "torchrun" in said["message"]


def test_what_processes_tell_each_other(scenes: Scenes) -> None:
    first, second = (said["result"] for said in scenes("words"))
    assert first["processes"] == [0, 2, 2, "cpu:0"]
    assert second["processes"] == [1, 2, 2, "cpu:0"]
    told = [{"rank": 0, "text": "ä", "number": 0.1}, {"rank": 1, "text": "ä" * 6, "number": 0.1}]
    for said in (first, second):
        assert said["told"] == told
        assert said["shared"] == [1, None, "x"]
        assert said["gathered"] == [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]
        assert said["total"] == [2.0, 1.0]
        assert said["messages"][0] == ["DataError", "rows.csv: is empty\nFill it."]
        assert said["messages"][2][0] == "RunError"
        assert "process 1 of 2 has another digest than the first: 1, not 0" in said["messages"][2][1]
    failure = "process 1 of 2 failed: KeyError: 'column'\nThe message of that process says more."
    assert first["messages"][1] == ["RunError", failure]
    assert second["messages"][1] == ["KeyError", "'column'"]
    # The second one asked a second later.
    assert first["folder"] == second["folder"]


# -------------------------------------------------------------------------------------------------------- whole runs


def read_steps(run: Path) -> list[dict[str, Any]]:
    return [entry for entry in read_log(run / "log.jsonl") if entry["kind"] == "step"]


def assert_same_run(run: Path, whole: Path) -> None:
    for mine, theirs in zip(read_steps(run), read_steps(whole), strict=True):
        assert mine.keys() == theirs.keys()
        assert mine["step"] == theirs["step"]
        for key in ("loss", "grad_norm", "num_right", "num_tokens"):
            assert mine[key] == pytest.approx(theirs[key], rel=2e-4), key
    tables = [pq.read_table(folder / "evaluation" / "test.predictions.parquet").to_pydict() for folder in (run, whole)]
    assert tables[0]["id"] == tables[1]["id"]
    assert len(tables[0]["id"]) == 21
    assert tables[0]["predicted"] == tables[1]["predicted"]
    for label in range(4):
        mine, theirs = (table[f"probability_{label}"] for table in tables)
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]


def test_a_run_of_two_is_the_run_of_one(scenes: Scenes) -> None:
    [alone] = scenes("run 1")
    first, second = scenes("run 2")
    run, whole = Path(first["result"]["run"]), Path(alone["result"]["run"])
    assert_same_run(run, whole)
    # All processes know the result; the files are the first one's, each written once.
    assert first == second
    assert first["result"]["evaluations"]["test"] == read_json(run / "evaluation" / "test.json")
    manifest = read_json(run / "manifest.json")
    assert (manifest["num_processes"], manifest["num_test_evaluations"], manifest["state"]) == (2, 1, "complete")
    assert read_json(whole / "manifest.json")["num_processes"] == 1
    evaluations = [entry["step"] for entry in read_log(run / "log.jsonl") if entry["kind"] == "evaluation"]
    assert evaluations == [entry["step"] for entry in read_log(whole / "log.jsonl") if entry["kind"] == "evaluation"]


@pytest.mark.parametrize("change", ["1 to 2", "2 to 1", "2 to 2"])
def test_a_run_can_be_continued_by_another_number_of_processes(change: str, scenes: Scenes) -> None:
    interrupted = scenes(f"run {change}")
    resumed = scenes(f"run {change}, resumed")
    folders = {said["result"].get("interrupted") for said in interrupted}
    assert len(folders) == 1
    run = Path(str(folders.pop()))
    assert {said["result"]["run"] for said in resumed} == {str(run)}
    [alone] = scenes("run 1")
    assert_same_run(run, Path(alone["result"]["run"]))
    manifest = read_json(run / "manifest.json")
    assert manifest["num_processes"] == int(change[-1])
    noted = [note for note in manifest["notes"] if "number of processes" in note]
    assert len(noted) == (change != "2 to 2")


def test_a_run_of_two_stops_for_a_signal_to_either_and_resumes_to_the_same_bytes(scenes: Scenes) -> None:
    [run] = {said["result"]["run"] for said in scenes("run 2 to 2, resumed")}
    [whole] = {said["result"]["run"] for said in scenes("run 2")}
    for name in ("adapter/adapter_model.safetensors", "head.safetensors", "evaluation/test.json"):
        assert (Path(run) / name).read_bytes() == (Path(whole) / name).read_bytes(), name
