"""`python -m benchmarks` from end to end, on a tiny base: its processes, its result, its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def result(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench") / "result.json"
    sizes = ("--rows", "32", "--rounds", "2", "--batch-size", "8", "--threads", "1")
    done = bench("train", "--base", str(tiny_base("bert")), *sizes, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    assert json.loads(out.read_text()) == printed
    return printed


def test_the_result_says_what_was_measured_where_and_on_what(result: dict[str, Any]) -> None:
    assert result["machine"]["threads"] == 1
    assert {"submillion", "torch", "transformers", "peft"} <= result["versions"].keys()
    assert result["rows"] == {"train": "48 of 460 rows of the shipped news items; all distinct"}
    assert result["settings"]["adapter"] == {"rank": 8, "alpha": 16, "targets": ["query", "value"]}
    assert result["settings"]["num_rounds"] == 2


def test_a_case_has_its_rounds_rate_memory_and_share_of_the_peak(result: dict[str, Any]) -> None:
    (case,) = result["cases"]
    assert (case["name"], case["kind"], case["is_peer"]) == ("submillion", "train", False)
    assert case["round_rows"] == 16
    assert len(case["rounds_s"]) == 2
    low, high = case["spread"]
    assert 0 < low <= case["rows_per_s"] <= high
    assert case["peak_rss_bytes"] > 100 << 20
    peak = result["peak_gflops"]["train"][case["precision"]]["gflops"]
    assert case["mfu"] == pytest.approx(case["gflops"] / peak)
    assert 0 < case["mfu"] <= 1
    assert result["ratios"] == {}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "--rounds", "1"), 2, "has no spread"),
        (("train", "--rows", "60", "--rounds", "2"), 2, "too few"),
        (("train", "--data", "nowhere.csv"), 3, "nowhere.csv"),
        (("train", "--base", "no-such-model"), 5, "no-such-model"),
        (("fly",), 2, "fly"),
        (("train", "--out", "nowhere/out.json"), 2, "mkdir -p nowhere"),
    ],
)
def test_errors_end_in_their_code(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
