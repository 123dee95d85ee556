"""The manifest of a run that begins, and whether a run that continues finds things as they were."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING

from submillion import __version__
from submillion.config.run import RunConfig
from submillion.errors import RunError
from submillion.model.sources import BaseModel
from submillion.run.folder import RunDir
from submillion.run.manifest import Manifest, ManifestBase
from submillion.run.reader import read_manifest

if TYPE_CHECKING:
    from submillion.training.collective import Processes
    from submillion.training.device import Device


_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "scikit-learn", "pyarrow")


def write_first_manifest(run: RunDir, config: RunConfig, base: BaseModel, device: Device, processes: Processes) -> None:
    """Write the manifest of a run that begins."""
    manifest = Manifest(
        recipe=config.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=config.seed,
        split_seed=config.data.split_seed,
        base=ManifestBase(base.name, base.origin, base.revision, base.weights_sha256),
        precision=device.precision,
        device=str(device.device),
        threads=device.threads,
        num_processes=processes.count,
        notes=device.notes,
        versions={
            "submillion": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        machine=describe_machine(),
        num_test_evaluations=0,
    )
    manifest.write(run.manifest)


def describe_machine() -> dict[str, object]:
    """Return processor, cores, memory and system, as far as the system tells."""
    from submillion.training.device import read_cpu_capabilities

    capabilities = read_cpu_capabilities()
    flags = [name for name in ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx2") if capabilities.get(name)]
    machine: dict[str, object] = {
        "processor": capabilities.get("cpu_name") or platform.processor() or platform.machine(),
        "instructions": flags,
        "num_cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return machine


def check_unchanged(run: RunDir, base: BaseModel, device: Device, processes: Processes) -> None:
    """Refuse to continue a run with other weights, threads or precision than it began with.

    The number of processes may be another one: order and masks do not depend on it. That is noted, and since sums are
    then in another order anyway, the number of threads may be another one, too.

    Raises:
        RunError: With what differs; the result would not be that of an uninterrupted run.
    """
    manifest = read_manifest(run)
    before = {
        "weights_sha256": manifest.base.weights_sha256,
        "threads": manifest.threads,
        "precision": manifest.precision,
        "device": manifest.device,
    }
    now = {
        "weights_sha256": base.weights_sha256,
        "threads": device.threads,
        "precision": device.precision,
        "device": str(device.device),
    }
    num_before = manifest.num_processes or 1  # runs of earlier versions had one
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
        notes = (*(manifest.notes or ()), note)
        replace(manifest, num_processes=processes.count, threads=device.threads, notes=notes).write(run.manifest)
