"""From rounds to figures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.cases import Case
from benchmarks.flops import Lengths
from benchmarks.measured_child import Round
from benchmarks.table import Measured, find_peaks, list_versions, sum_up

OURS = Case("ours", "score", "score", "bf16", "packed")
FAST = Case("fast", "score", "padded", "fp32", "one set-up", group="peer")
SLOW = Case("slow", "score", "padded", "fp32", "another", group="peer")
PEAKS = {"bf16": {"gflops": 400.0}}


def make_rounds(*seconds: float, predicted: list[int] | None = None) -> list[Round]:
    return [Round(s, 100, Lengths(1000, 5000), predicted) for s in seconds]


def measure(*items: Measured) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    summed = sum_up(items, PEAKS, lambda lengths: 100_000_000 * lengths.num_tokens)
    json.dumps(summed)
    return {case["name"]: case for case in summed["cases"]}, summed["ratios"]


def test_figures_are_medians_with_their_spread() -> None:
    cases, _ = measure(Measured(OURS, make_rounds(0.5, 1.0, 2.0), {"peak_rss_bytes": 7, "other": 1}))
    ours = cases["ours"]
    assert ours["rows_per_s"] == 100
    assert ours["spread"] == [50, 200]
    assert ours["gflops"] == 100
    assert ours["mfu"] == 0.25
    assert ours["peak_rss_bytes"] == 7
    assert "other" not in ours


def test_a_precision_without_a_peak_has_no_share_of_it() -> None:
    cases, _ = measure(Measured(FAST, make_rounds(1.0, 1.0)))
    assert "mfu" not in cases["fast"]


def test_the_process_knows_the_precision_better_than_the_plan() -> None:
    cases, _ = measure(Measured(OURS, make_rounds(1.0), {"precision": "fp32"}))
    assert cases["ours"]["precision"] == "fp32"
    assert "mfu" not in cases["ours"]


def test_a_round_of_long_rows_is_no_slow_round() -> None:
    rounds = [Round(1.0, 100, Lengths(2000, 0)), Round(3.0, 100, Lengths(6000, 0))]
    cases, _ = measure(Measured(OURS, rounds))
    assert cases["ours"]["spread"] == [50, 50]
    padded = Case("padded", "train", "trainer", "fp32", "one length", group="peer", pads_to=192)
    cases, _ = measure(Measured(padded, rounds))
    assert cases["padded"]["spread"] == [100 / 3, 100]


def test_ratios_compare_rounds_in_pairs_with_the_peer_at_its_fastest() -> None:
    ours = Measured(OURS, make_rounds(1.0, 1.0, 2.0), {"peak_rss_bytes": 50})
    fast = Measured(FAST, make_rounds(2.0, 4.0, 6.0), {"peak_rss_bytes": 200})
    slow = Measured(SLOW, make_rounds(9.0, 9.0, 9.0), {"peak_rss_bytes": 100})
    _, ratios = measure(ours, slow, fast)
    assert ratios == {
        "score: ours / peer": {
            "kind": "score",
            "case": "ours",
            "peer": "fast",
            "median": 3.0,
            "spread": [2.0, 4.0],
            "memory": 0.25,
        }
    }


def test_a_failed_peer_is_named_and_takes_part_in_no_ratio() -> None:
    ours = Measured(OURS, make_rounds(1.0))
    failed = Measured(FAST, make_rounds(0.1), error="it broke")
    cases, ratios = measure(ours, failed, Measured(SLOW, make_rounds(2.0)))
    assert cases["fast"]["error"] == "it broke"
    assert "rows_per_s" not in cases["fast"]
    assert ratios["score: ours / peer"]["peer"] == "slow"


def test_labels_are_compared_with_those_of_a_peer_in_full_precision() -> None:
    cases, _ = measure(
        Measured(OURS, make_rounds(1.0, 1.0, predicted=[0, 1, 2, 3])),
        Measured(FAST, make_rounds(1.0, 1.0, predicted=[0, 1, 2, 0])),
        Measured(SLOW, make_rounds(1.0, 1.0)),
    )
    assert cases["ours"]["agreement"] == 0.75
    assert cases["fast"]["agreement"] == 1.0
    assert "agreement" not in cases["slow"]


def test_no_peak_lies_below_a_rate_seen_inside_a_case() -> None:
    facts = {"peaks": {"bf16": {"gflops": 400.0, "method": "mm"}, "int8": {"gflops": 800.0, "method": "_int_mm"}}}
    inside = {"torch": 100.0, "kernels bf16": 410.0, "kernels int8": 790.0}
    peaks = find_peaks(facts, [Measured(OURS, [], {"product_gflops": inside})])
    assert peaks["bf16"] == {"gflops": 410.0, "method": "kernels bf16, inside ours", "shape": None}
    assert peaks["int8"] == facts["peaks"]["int8"]
    assert facts["peaks"]["bf16"]["gflops"] == 400.0


def test_rates_of_torch_count_for_the_case_s_own_precision() -> None:
    facts = {"peaks": {"bf16": {"gflops": 400.0}, "fp32": {"gflops": 200.0}}}
    measured = Measured(OURS, [], {"product_gflops": {"torch": 300.0}, "precision": "fp32"})
    peaks = find_peaks(facts, [measured])
    assert peaks["fp32"]["gflops"] == 300.0
    assert peaks["bf16"]["gflops"] == 400.0


def test_versions_name_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def find_version(name: str) -> str:
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(metadata, "version", find_version)
    versions = list_versions()
    assert versions["torch"] == "1.2"
    assert "onnxruntime" not in versions
