"""The largest memory that this process has used."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def read_peak_memory(device: str) -> dict[str, int]:
    """Return ``peak_rss_bytes``, and on a GPU ``peak_device_bytes``.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    peak = {"peak_rss_bytes": _read_peak_rss()}
    if device == "cuda":
        import torch

        peak["peak_device_bytes"] = torch.cuda.max_memory_reserved()
    return peak


def _read_peak_rss() -> int:
    # The kernel's getrusage includes the memory of the parent at the start of this process; VmHWM does not.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
