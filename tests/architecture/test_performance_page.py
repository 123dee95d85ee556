"""docs/performance.md has the figures of benchmarks/results, and its goals are compared with them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from benchmarks import build_table


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    return build_table


def make_result(**changes: Any) -> dict[str, Any]:
    case = {
        **{"name": "submillion", "kind": "train", "is_peer": False, "precision": "bf16", "about": "packed"},
        **{"rows_per_s": 140.2, "spread": [139.0, 141.0], "mfu": 0.8, "peak_rss_bytes": 800 << 20},
    }
    failed = {"name": "other", "kind": "train", "is_peer": True, "precision": "fp32", "about": "stock", "error": "no"}
    start = {"name": "submillion --help", "kind": "data", "is_peer": False, "about": "a cold process"}
    start |= {"seconds": 0.12, "spread_s": [0.1, 0.2], "rounds_s": [0.1, 0.2]}
    return {
        "created": "2026-01-02T03:04:05+00:00",
        "base": "minilm-l6",
        "settings": {"num_rounds": 4, "max_length": 192, "batch_size": 32, "dropout": None},
        "machine": {"processor": "CPU", "instructions": ["avx2"], "threads": 2, "device": "cpu"},
        "versions": {"torch": "2.6"},
        "rows": {"train": "100 rows", "data": "100 rows"},
        "peak_gflops": {"train": {"bf16": {"gflops": 450.0, "method": "mm", "shape": [1, 2, 3]}}},
        "cases": [case, failed, start],
        "ratios": {
            "train: submillion / trainer at its best": {"median": 3.2, "spread": [3.0, 3.4], "memory": 0.5},
        },
        "differences": {"import submillion, without the interpreter": {"seconds": 0.02}},
        **changes,
    }


def find_line(page: str, start: str) -> str:
    lines = [line for line in page.splitlines() if line.startswith(f"| {start}")]
    assert lines, start
    return lines[0]


def test_page_is_in_step(builder: ModuleType) -> None:
    written = builder.PAGE.read_text(encoding="utf-8")
    assert written == builder.build_page(written), "run `make performance` and commit docs/performance.md"


def test_a_goal_is_reached_missed_or_not_measured(builder: ModuleType) -> None:
    page = builder.build_figures({"a": make_result()})
    best = "train, MiniLM, against Trainer+PEFT at its best"
    assert find_line(page, best) == f"| {best} | at least 3.5 x | 3.2 x | missed |"
    assert find_line(page, "train MFU, MiniLM") == "| train MFU, MiniLM | at least 0.75 | 0.8 | reached |"
    assert find_line(page, "peak memory").endswith("| at most 1 x | 0.5 x | reached |")
    assert find_line(page, "`--help`") == "| `--help` | at most 0.3 s | 0.12 s | reached |"
    assert find_line(page, "`import submillion`").endswith("| 0.02 s | reached |")
    assert find_line(page, "train, roberta-base shape").endswith("| not measured | |")
    assert find_line(page, "score MFU").endswith("| not measured | |")


def test_goals_take_the_newest_result_of_their_own_kind_of_run(builder: ModuleType) -> None:
    ratios = {"train: submillion / trainer at its best": {"median": 9.0, "spread": [9.0, 9.0]}}
    others: dict[str, dict[str, Any]] = {
        "older": {"created": "2025-01-01T00:00:00+00:00"},
        "another base": {"base": "roberta-base-random"},
        "without dropout": {"settings": {**make_result()["settings"], "dropout": 0.0}},
        "a GPU": {"machine": {**make_result()["machine"], "device": "cuda", "gpu": "GPU"}},
    }
    results = {name: make_result(ratios=ratios, **changes) for name, changes in others.items()}
    page = builder.build_figures({"now": make_result(), **results})
    assert " 3.2 x " in find_line(page, "train, MiniLM, against Trainer+PEFT at its best")


def test_goals_of_many_rows_do_not_take_runs_of_few(builder: ModuleType) -> None:
    case = {"name": "tokenise", "kind": "data", "is_peer": False, "about": "", "cores": 1.8, "round_rows": 120_000}
    case |= {"seconds": 5.0, "spread_s": [5.0, 5.0], "rounds_s": [5.0, 5.0]}
    few = make_result(created="2027-01-01T00:00:00+00:00", cases=[case | {"cores": 1.0, "round_rows": 2000}])
    few["ratios"] = {"check: time of twice the rows": {"median": 1.0, "spread": [1.0, 1.0]}}
    page = builder.build_figures({"few": few, "many": make_result(cases=[case])})
    assert find_line(page, "tokenising").endswith("| 1.8 | reached |")
    assert find_line(page, "`check`, time of twice").endswith("| not measured | |")


def test_cases_are_shown_with_their_set_up_and_failures(builder: ModuleType) -> None:
    page = builder.build_figures({"cpu": make_result()})
    case = "| submillion | packed | bf16 | 140.2 | 139.0 .. 141.0 | 80.0% | 800 MiB | |"
    assert find_line(page, "submillion | packed") == case.replace("| |", "|  |")
    assert "failed: no" in find_line(page, "other")
    assert "Peak: 450 GFLOP/s in bf16 (mm)." in page
    assert "- import submillion, without the interpreter: +0.02 s" in page
