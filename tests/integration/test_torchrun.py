"""The program under torchrun, two processes on the CPU: one run, one writer, one voice; interrupted, it has saved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from submillion.storage.files import read_json, read_log

PATIENCE_S = 240


def start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start a command under torchrun; its output goes to files, which nobody has to read for it to continue."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(
            [*command, "-m", "submillion", *words], stdout=out, stderr=err, text=True, env=dict(os.environ)
        )


def finish(process: subprocess.Popen[str], folder: Path) -> tuple[int, str, str]:
    try:
        process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            # It ends its workers when it is asked to.
            process.terminate()
            process.wait(60)
    return process.returncode, (folder / "out").read_text(), (folder / "err").read_text()


@pytest.mark.timeout(600)
def test_a_run_is_that_of_one_process(trained: Any, train_words: Callable[..., list[str]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, err = finish(start(train_words(trained.data, run, "--json"), tmp_path), tmp_path)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["run"] == str(run)
    assert err.count("train: started") == 1
    assert err.count("whole model, head counted once") == 1
    steps, alone = (
        [entry for entry in read_log(folder / "log.jsonl") if entry["kind"] == "step"]
        for folder in (run, trained.folder)
    )
    assert [step["step"] for step in steps] == [step["step"] for step in alone]
    # bfloat16 where the CPU has it: batches of other shapes round differently.
    assert [step["loss"] for step in steps] == pytest.approx([step["loss"] for step in alone], abs=0.02)
    ids, ids_alone = (
        pq.read_table(folder / "evaluation" / "test.predictions.parquet")["id"].to_pylist()
        for folder in (run, trained.folder)
    )
    assert ids == ids_alone
    manifest = read_json(run / "manifest.json")
    assert (manifest["state"], manifest["num_processes"], manifest["threads"]) == ("complete", 2, 1)
    # A process that does not count itself among the two loaded the files again.
    assert manifest["proof"]["trainable_params_in_files"] == summary["trainable_params"]
    assert (run / "report.html").is_file()


@pytest.mark.timeout(600)
def test_an_interrupted_run_has_saved(
    news_rows: Callable[..., Path], train_words: Callable[..., list[str]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    news_rows(tmp_path / "data" / "train.csv", 80)
    more = ("--set", "train.epochs=100000", "--set", "train.evaluate_every=50000")
    process = start(train_words(tmp_path / "data", run, *more), tmp_path)
    try:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and process.poll() is None and not read_log(run / "log.jsonl"):
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
    finally:
        code, out, err = finish(process, tmp_path)
    assert code != 0
    assert out == ""
    assert err.count(f"interrupted; continue with: submillion train --resume {run}") == 1
    last = read_log(run / "log.jsonl")[-1]
    assert (run / "checkpoints" / "last").read_text() == f"step-{last['step']}\n"
