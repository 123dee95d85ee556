"""Proof of a saved run, made in a fresh process: the files hold what was planned and give the same logits.

``python -m submillion.pipeline.proof RUN`` loads the run from its files alone, sums the trained numbers in its
safetensors, scores the probe texts, and prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from submillion.budget.headers import count_saved_params
from submillion.errors import RunError
from submillion.records import Record
from submillion.run.folder import RunDir
from submillion.run.reader import read_plan
from submillion.scoring.run_model import load_run
from submillion.storage.files import read_json, write_json
from submillion.training.collective import make_lone_environment

NUM_PROBES = 8
# Same files, same machine, same threads; passes of other sizes may round differently in low precision.
TOLERANCE = 0.05


def sum_saved_params(run: RunDir) -> int:
    """Return the number of trained values in a run's safetensors files."""
    return count_saved_params(path for path in (run.adapter / "adapter_model.safetensors", run.head) if path.exists())


def verify_run(run: RunDir, probes: Sequence[Record], logits: NDArray[np.float32]) -> dict[str, object]:
    """Compare a run's files, read back by a fresh process, with its plan and with the logits of the live model.

    Args:
        run: A run folder with adapter, tokenizer and manifest.
        probes: A few records.
        logits: Logits of the live model for them, shape (n, C).

    Returns:
        The proof for the manifest: ``trainable_params_in_files`` and ``max_logit_difference``.

    Raises:
        RunError: The files do not give the same model.
    """
    request = run.path / ".probe.json"
    write_json(request, {"texts": [list(record.columns) for record in probes]})
    try:
        process = subprocess.run(
            [sys.executable, "-P", "-m", "submillion.pipeline.proof", str(run.path)],
            capture_output=True,
            text=True,
            check=False,
            env=make_lone_environment(),
        )
    finally:
        request.unlink()
    if process.returncode != 0:
        last = process.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RunError(f"the saved run cannot be loaded again: {last[0]}", where=str(run.path))
    answer = json.loads(process.stdout.splitlines()[-1])
    difference = float(np.abs(np.array(answer["logits"], dtype=np.float32) - logits).max())
    proof = {"trainable_params_in_files": answer["trainable_params"], "max_logit_difference": difference}
    planned = read_plan(run).trainable_params
    if answer["trainable_params"] != planned:
        raise RunError(f"the files hold {answer['trainable_params']:,} trained numbers, planned were {planned:,}")
    if not difference <= TOLERANCE:
        raise RunError(
            f"the saved run gives other logits than the trained model: they differ by {difference:g}",
            where=str(run.path),
        )
    return proof


def _answer(folder: Path) -> dict[str, object]:
    run = RunDir(folder)
    model = load_run(folder)
    texts = read_json(folder / ".probe.json")["texts"]
    probes = [Record(str(row), tuple(columns)) for row, columns in enumerate(texts)]
    logits = model.score_records(probes).logits
    return {"trainable_params": sum_saved_params(run), "logits": logits.tolist()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(Path(sys.argv[1]))) + "\n")
