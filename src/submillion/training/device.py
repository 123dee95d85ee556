"""Devices, precision and threads.

A run calls `open_device` once to decide where and how to compute. The decision and its reasons go into the manifest.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from submillion.config.run import Precision
from submillion.errors import ConfigError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """Where and how a run computes.

    Attributes:
        device: The torch device.
        dtype: Data type of frozen weights and activations.
        precision: Short name of the data type.
        threads: Number of CPU threads.
        notes: Sentences about decisions that differ from the settings.
    """

    device: torch.device
    dtype: torch.dtype
    precision: str
    threads: int
    notes: tuple[str, ...]


def open_device(precision: Precision, threads: int | None = None, *, num_sharing: int = 1) -> Device:
    """Choose device, precision and threads, and set torch's thread count.

    On a GPU, ``auto`` is bf16 if the chip has it, and fp16 trains with loss scaling. On a CPU, ``auto`` is bf16 with
    AVX512-BF16 or AMX and fp32 without. fp16, which is slow on every CPU, is replaced by the choice of ``auto``.

    Args:
        precision: Precision from the settings.
        threads: Number of threads per process; None takes the process's part of the CPU allowance.
        num_sharing: Number of the run's processes that share this machine's CPUs.

    Raises:
        ConfigError: The GPU does not have this precision.
    """
    count = threads or max(1, count_cpus() // num_sharing)
    torch.set_num_threads(count)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    notes = []
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported()
        if precision == "bf16" and not has_bf16:
            raise ConfigError("this GPU has no bf16", where="model.precision", hint="Use fp32 or auto.")
        chosen: Precision = ("bf16" if has_bf16 else "fp32") if precision == "auto" else precision
    else:
        fast = has_fast_bf16()
        chosen = ("bf16" if fast else "fp32") if precision in {"auto", "fp16"} else precision
        if precision == "fp16":
            reason = "which has bf16 instructions" if fast else "which has no bf16 instructions"
            notes.append(f"precision fp16 runs as {chosen} on this CPU, {reason}")
        if precision == "bf16" and not fast:
            notes.append("this CPU has no bf16 instructions: bf16 will be slow, fp32 would be faster")
    return Device(device, _DTYPES[chosen], chosen, count, tuple(notes))


def has_fast_bf16() -> bool:
    """Return whether the CPU multiplies bf16 matrices in hardware (AVX512-BF16 or AMX)."""
    capabilities = read_cpu_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def read_cpu_capabilities() -> dict[str, object]:
    """Return torch's facts about the CPU, such as ``cpu_name`` and ``avx512_bf16``."""
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    # torch before get_capabilities.
    return {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}


def count_cpus() -> int:
    """Return the number of CPUs that this process may use: its affinity, bounded by its cgroup's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_cgroup_quota()
    return max(1, min(count, quota)) if quota is not None else count


def _read_cgroup_quota() -> int | None:
    # cgroup v2 holds "max 100000" or "<quota> <period>" in microseconds; v1 has one file for each.
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota == "max" or int(quota) <= 0:
        return None
    return max(1, -(-int(quota) // int(period)))
