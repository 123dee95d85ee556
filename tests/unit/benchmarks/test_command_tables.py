"""What `python -m benchmarks` shows of a result."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from benchmarks.command import tabulate_bench

RESULT: dict[str, Any] = {
    "base": "minilm-l6",
    "machine": {
        "processor": "CPU",
        "instructions": ["avx512_bf16"],
        "threads": 2,
        "device": "cpu",
        "kernels": "in use",
    },
    "versions": {"torch": "2.6", "numpy": "2"},
    "rows": {"score": "64 rows [/bold]", "data": "10 rows"},
    "peak_gflops": {"score": {"bf16": {"gflops": 450.4, "method": "mm"}}},
    "cases": [
        {
            **{"name": "ours", "kind": "score", "is_peer": False, "precision": "bf16", "rows_per_s": 1234.56},
            **{"spread": [1000.0, 1300.0], "gflops": 300.0, "mfu": 0.6667, "agreement": 0.995},
            **{"peak_rss_bytes": 512 << 20},
        },
        {
            **{"name": "theirs", "kind": "score", "is_peer": True, "precision": "fp32", "rows_per_s": 60.0},
            **{"spread": [59.0, 61.0], "gflops": 20.0, "peak_rss_bytes": 1 << 30, "peak_device_bytes": 3 << 30},
        },
        {"name": "broken", "kind": "score", "is_peer": True, "precision": "fp32", "error": "it [red]broke"},
        {
            **{"name": "start", "kind": "data", "is_peer": False, "seconds": 0.123, "spread_s": [0.1, 0.2]},
        },
    ],
    "ratios": {
        "score: ours / theirs": {"median": 20.5, "spread": [19.0, 22.0], "memory": 0.5},
        "check: time of twice the rows": {"median": 2.0, "spread": [1.9, 2.1]},
    },
    "differences": {"a - b": {"seconds": -0.5}, "c - d": {"bytes": 3 << 20}},
}


def show(result: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=160, markup=False)
    for block in tabulate_bench(result):
        console.print(block)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_all_figures_are_shown() -> None:
    lines = show(RESULT)
    assert lines[0] == "CPU, 2 threads, avx512_bf16, kernels in use, torch 2.6"
    assert "score, minilm-l6: 64 rows [/bold]" in lines
    assert "ours bf16 1,234.6 1,000.0 .. 1,300.0 300 66.7% 512 MiB 99.50%" in lines
    assert "theirs fp32 60.0 59.0 .. 61.0 20 - 3,072 MiB -" in lines
    assert "broken: failed, it [red]broke fp32" in lines
    assert "peak bf16: 450 GFLOP/s (mm)" in lines
    assert "start 0.12 0.10 .. 0.20 - - -" in lines
    assert "score: ours / theirs 20.50 19.00 .. 22.00 0.50" in lines
    assert "check: time of twice the rows 2.00 1.90 .. 2.10 -" in lines
    assert lines[-2:] == ["a - b: -0.50 s", "c - d: 3 MiB"]


def test_without_peers_there_are_no_ratios() -> None:
    lines = show({**RESULT, "ratios": {}, "differences": {}})
    assert not any("ratio" in line for line in lines)
