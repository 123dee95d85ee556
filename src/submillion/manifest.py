"""The manifest of a run: versions, seeds, digests, machine and state; one JSON file, replaced whole."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from submillion import __version__
from submillion.config import CleanConfig, RunConfig
from submillion.data.clean import clean_records
from submillion.data.trained_rows import NONE, TrainedRows, find_rows
from submillion.errors import RunError
from submillion.files import read_plain
from submillion.model.sources import BaseModel
from submillion.records import Record
from submillion.run_files import read_manifest
from submillion.rundir import RUN_FORMAT, RunDir, write_json

if TYPE_CHECKING:
    from submillion.training.device import Device
    from submillion.training.processes import Processes

MAX_ROWS_BYTES = 1 << 30
"""Largest list of trained rows that is read: that of 134 million rows."""

_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "scikit-learn", "pyarrow")


def write_first_manifest(run: RunDir, config: RunConfig, base: BaseModel, device: Device, processes: Processes) -> None:
    """Write the manifest of a run that begins."""
    values: dict[str, Any] = {
        "run_format": RUN_FORMAT,
        "state": "running",
        "recipe": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "split_seed": config.data.split_seed,
        "base": {
            "name": base.name,
            "origin": base.origin,
            "revision": base.revision,
            "weights_sha256": base.weights_sha256,
        },
        "precision": device.precision,
        "device": str(device.device),
        "threads": device.threads,
        "num_processes": processes.count,
        "notes": list(device.notes),
        "versions": {
            "submillion": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "machine": describe_machine(),
        "num_test_evaluations": 0,
    }
    write_json(run.manifest, values)


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory and system, as far as the system tells."""
    from submillion.training.device import read_cpu_capabilities

    capabilities = read_cpu_capabilities()
    flags = [name for name in ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx2") if capabilities.get(name)]
    machine: dict[str, Any] = {
        "processor": capabilities.get("cpu_name") or platform.processor() or platform.machine(),
        "instructions": flags,
        "num_cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return machine


def update_manifest(run: RunDir, entries: Mapping[str, Any]) -> None:
    """Set entries of a manifest."""
    write_json(run.manifest, {**read_manifest(run), **entries})


def count_test_evaluation(run: RunDir) -> None:
    """Note, before the fact, that the test rows are about to be scored once more."""
    values = read_manifest(run)
    update_manifest(run, {"num_test_evaluations": values.get("num_test_evaluations", 0) + 1})


def check_unchanged(run: RunDir, base: BaseModel, device: Device, processes: Processes) -> None:
    """Refuse to continue a run with other weights, threads or precision than it began with.

    The number of processes may be another one: order and masks do not depend on it. That is noted, and since sums are
    then in another order anyway, the number of threads may be another one, too.

    Raises:
        RunError: With what differs; the result would not be that of an uninterrupted run.
    """
    values = read_manifest(run)
    now: dict[str, Any] = {
        "weights_sha256": base.weights_sha256,
        "threads": device.threads,
        "precision": device.precision,
        "device": str(device.device),
    }
    before = {"weights_sha256": values["base"]["weights_sha256"], **{key: values.get(key) for key in list(now)[1:]}}
    # Runs of earlier versions had one.
    num_before = values.get("num_processes", 1)
    if processes.count != num_before:
        del now["threads"]
    changed = [f"{key} was {before[key]}, is {now[key]}" for key in now if before[key] != now[key]]
    if changed:
        raise RunError(
            "; ".join(changed),
            where=str(run.manifest),
            hint="Continue where these are as before, or start the run again in a new folder.",
        )
    if processes.count != num_before:
        note = f"number of processes: {processes.count} from here on, {num_before} before; the same within rounding"
        entries = {"num_processes": processes.count, "threads": device.threads}
        update_manifest(run, {**entries, "notes": [*values.get("notes", []), note]})


def count_trained_rows(run: RunDir, records: Sequence[Record], rules: CleanConfig) -> int | None:
    """Return how many records a run was trained on, equal but for case and punctuation; None where it does not say.

    Args:
        run: The run folder.
        records: Rows as they were read.
        rules: How the run cleans them.

    Raises:
        RunError: The run's list of rows is damaged.
    """
    if not os.path.lexists(run.trained_rows):
        return None
    return int(find_rows(list(clean_records(records, rules)), read_trained_rows(run).all).sum())


def describe_trained_rows(count: int | None, num_records: int, run: RunDir) -> str:
    """Return what has to be said of rows that a run was trained on; nothing where there are none."""
    if count is None:
        return f"{run.path} does not say which rows it was trained on: some of these may be among them"
    if not count:
        return ""
    return f"{run.path} was trained on {count:,} of these {num_records:,} rows: its figures on them are too good"


def read_trained_rows(run: RunDir) -> TrainedRows:
    """Read the digests of the rows that a run was trained on; none where the run does not say.

    Raises:
        RunError: The file is damaged.
    """
    if not os.path.lexists(run.trained_rows):
        return TrainedRows(NONE, NONE)
    return TrainedRows.from_bytes(read_plain(run.trained_rows, MAX_ROWS_BYTES), where=str(run.trained_rows))
