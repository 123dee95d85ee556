"""Measured processes: what passes through the gate, and what becomes of one that fails."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.child import MeasuredProcess, make_environment
from benchmarks.flops import Lengths
from benchmarks.measured_child import Gate, Job, Round
from benchmarks.memory import read_peak_memory
from submillion.errors import RunError


def make_job(folder: Path, runner: str = "look", **settings: Any) -> Job:
    values: dict[str, Any] = {
        **{"base": "", "rows": "", "num_warmup": 0, "num_rounds": 1, "round_rows": 1, "batch_size": 4},
        **{"max_length": 32, "threads": 1, "device": "cpu", "dropout": None, "num_labels": 4, "options": {}},
    }
    return Job(runner=runner, folder=str(folder), **{**values, **settings})


def test_jobs_and_rounds_survive_the_way(tmp_path: Path) -> None:
    job = make_job(tmp_path, options={"weights": "float32"})
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job
    result = Round(1.5, 8, Lengths(40, 300), [1, 0], {"cores": 1.9})
    answers = io.StringIO()
    Gate(io.StringIO(), answers).report(result)
    assert Round.parse(json.loads(answers.getvalue())) == result


def test_a_gate_opens_once_for_each_order() -> None:
    gate = Gate(io.StringIO("go\ngo\n"), io.StringIO())
    gate.wait()
    gate.wait()
    with pytest.raises(EOFError):
        gate.wait()


def test_a_process_answers_with_its_facts(tmp_path: Path) -> None:
    with MeasuredProcess("look", make_job(tmp_path)) as process:
        facts = process.finish()
    assert facts["threads"] >= 1
    assert facts["device"] in {"cpu", "cuda"}
    assert facts["peak_rss_bytes"] > 50 << 20
    assert facts["machine"]["num_cores"] >= 1


def test_a_process_that_fails_is_quoted(tmp_path: Path) -> None:
    job = make_job(tmp_path, "score", rows=str(tmp_path / "none.jsonl"), options={"precision": None})
    with MeasuredProcess("the case", job) as process, pytest.raises(RunError, match="the case has failed") as caught:
        process.await_ready()
    assert "manifest.json is missing" in caught.value.message


def test_processes_share_threads_and_cache_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    environment = make_environment(3, tmp_path)
    assert {environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")} == {"3"}
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["SUBMILLION_CACHE"] == str(tmp_path)
    assert environment["TOKENIZERS_PARALLELISM"] == "true"


def test_peak_memory_grows_with_what_is_held() -> None:
    before = read_peak_memory("cpu")["peak_rss_bytes"]
    held = bytearray(before)
    held[::4096] = b"x" * len(held[::4096])
    assert read_peak_memory("cpu")["peak_rss_bytes"] > before + len(held) // 2
