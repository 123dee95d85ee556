"""A process that is measured: ``python -m benchmarks.worker JOB READ_FD WRITE_FD``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.measured_child import Gate, Job
from benchmarks.memory import read_peak_memory

# Each runner takes the job and the gate, reports when it is ready, makes the rounds, and returns its facts.
RUNNERS: Mapping[str, str] = {
    "look": "benchmarks.prepare_peers:look",
    "prepare": "benchmarks.prepare_peers:prepare",
    "peak": "benchmarks.peak:measure_peak",
    "train": "benchmarks.ours:train",
    "score": "benchmarks.ours:score",
    "encode": "benchmarks.ours:encode",
    "begin": "benchmarks.ours:begin",
    "trainer": "benchmarks.trainer_peer:train",
    "pipeline": "benchmarks.score_peers:score_pipeline",
    "padded": "benchmarks.score_peers:score_padded",
    "onnxruntime": "benchmarks.score_peers:score_onnxruntime",
    "sentence_transformers": "benchmarks.score_peers:encode_sentences",
}


def find_runner(name: str) -> Callable[[Job, Gate], Mapping[str, Any]]:
    """Import a runner."""
    module, _, function = RUNNERS[name].partition(":")
    runner: Callable[[Job, Gate], Mapping[str, Any]] = getattr(import_module(module), function)
    return runner


def work(job: Job, gate: Gate) -> None:
    """Run a job from its warm-up to its facts."""
    import torch

    torch.set_num_threads(job.threads)
    facts = find_runner(job.runner)(job, gate)
    # A runner that does other work after its rounds has already read its memory.
    gate.finish({**read_peak_memory(job.device), **facts})


def main() -> None:
    """Run the job named on the command line."""
    job, read_fd, write_fd = sys.argv[1:]
    with os.fdopen(int(read_fd), encoding="utf-8") as commands, os.fdopen(int(write_fd), "w", encoding="utf-8") as out:
        gate = Gate(commands, out)
        try:
            work(Job.read(Path(job)), gate)
        except EOFError:
            raise
        except Exception as error:
            gate.fail(error)
            raise


if __name__ == "__main__":
    main()
