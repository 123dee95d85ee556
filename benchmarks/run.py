"""One run of the bench, kind by kind, in a temporary scratch folder."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cases import check_packages
from benchmarks.machine import BenchSettings, open_site
from benchmarks.prepare_peers import ADAPTER
from benchmarks.table import list_versions
from benchmarks.timeline import measure_around
from benchmarks.turn_order import list_site_cases, measure_turns
from submillion.errors import ConfigError
from submillion.progress import Progress, Silent

MIN_ROUNDS = 2


def run_bench(settings: BenchSettings, progress: Progress | None = None) -> dict[str, Any]:
    """Measure, and return the result as JSON types.

    Returns:
        ``created``, ``base``, ``settings``, ``machine``, ``versions``, ``rows`` and ``peak_gflops`` by kind, ``cases``,
        ``ratios`` and ``differences`` of all kinds.

    Raises:
        ConfigError: Peers are not installed, or there are too few rows or rounds.
        DataError: The rows cannot be read.
        ModelError: The base model cannot be found, or the operations of its family are not counted.
        RunError: A case of this package has failed. The failure of a peer is only reported.
    """
    progress = progress or Silent()
    if settings.num_rounds < MIN_ROUNDS:
        raise ConfigError(f"{settings.num_rounds} round has no spread", where="--rounds", hint="Make 2 or more.")
    with tempfile.TemporaryDirectory(prefix="submillion-bench-") as scratch:
        site = open_site(settings, Path(scratch))
        for kind in settings.kinds:
            if kind != "data":
                check_packages(list_site_cases(site, kind))
        parts = {
            kind: measure_around(site, progress) if kind == "data" else measure_turns(site, kind, progress)
            for kind in settings.kinds
        }
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": settings.base,
        "settings": {
            "num_rounds": settings.num_rounds,
            "max_length": site.max_length,
            "batch_size": settings.batch_size,
            "dropout": settings.dropout,
            "adapter": dict(ADAPTER),
        },
        "machine": dict(site.machine),
        "versions": list_versions(),
        "rows": {kind: part["rows"] for kind, part in parts.items()},
        "peak_gflops": {kind: part["peak_gflops"] for kind, part in parts.items() if part.get("peak_gflops")},
        "cases": [case for part in parts.values() for case in part["cases"]],
        "differences": {name: entry for part in parts.values() for name, entry in part.get("differences", {}).items()},
        "ratios": {name: ratio for part in parts.values() for name, ratio in part["ratios"].items()},
    }
