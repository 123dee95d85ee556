"""Pure functions from rounds to figures: medians, spreads, ratios, and the reached share of the peak."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from benchmarks.cases import Case
from benchmarks.flops import Lengths
from benchmarks.measured_child import Round
from submillion import __version__

_PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy"),
    *("onnx", "onnxruntime", "sentence-transformers"),
)


@dataclass(frozen=True)
class Measured:
    """A case with its results.

    Attributes:
        case: The measured case.
        rounds: Rounds in order; fewer than requested if the case failed.
        facts: Facts that the process reported at its end.
        error: Reason of the failure, or empty.
    """

    case: Case
    rounds: Sequence[Round]
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def precision(self) -> str:
        """The precision of the products, as the process reports it, otherwise as planned."""
        return str(self.facts.get("precision", self.case.precision))


def find_peaks(facts: Mapping[str, Any], measured: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    """Return the peak of each precision: the best product measured alone, or a faster one inside a case.

    Args:
        facts: Facts of the process that measured products alone.
        measured: Cases, whose ``product_gflops`` are rates under the names of `profile_products`.
    """
    peaks = {precision: dict(peak) for precision, peak in facts["peaks"].items()}
    for item in measured:
        for name, rate in item.facts.get("product_gflops", {}).items():
            _, _, named = name.partition("kernels ")
            precision = named or item.precision
            if precision in peaks and rate > peaks[precision]["gflops"]:
                peaks[precision] = {"gflops": rate, "method": f"{name}, inside {item.case.name}", "shape": None}
    return peaks


def sum_up(
    measured: Sequence[Measured],
    peaks: Mapping[str, Mapping[str, Any]],
    count_flops: Callable[[Lengths], int],
) -> dict[str, Any]:
    """Return ``cases`` and ``ratios`` as JSON types.

    Args:
        measured: This package's cases and the peers' cases of one kind.
        peaks: ``gflops`` by precision.
        count_flops: Function that returns the operations for real tokens.
    """
    reference = _find_reference(measured)
    cases = [_describe(item, peaks, count_flops, reference) for item in measured]
    return {"cases": cases, "ratios": _list_ratios(measured)}


def find_rates(item: Measured) -> list[float]:
    """Return the rows per second of each round.

    Rounds have different rows (in training, each library has its own order), so one round may have longer rows than the
    next. If the cost depends on the lengths, the rate counts tokens, in rows of the mean length over all rounds.
    """
    num_rows = sum(part.num_rows for part in item.rounds)
    num_tokens = sum(part.lengths.num_tokens for part in item.rounds)
    if item.case.pads_to or not num_tokens:
        return [part.num_rows / part.seconds for part in item.rounds]
    return [part.lengths.num_tokens * num_rows / num_tokens / part.seconds for part in item.rounds]


def _describe(
    item: Measured,
    peaks: Mapping[str, Mapping[str, Any]],
    count_flops: Callable[[Lengths], int],
    reference: Sequence[int] | None,
) -> dict[str, Any]:
    case = item.case
    entry: dict[str, Any] = {
        "name": case.name,
        "kind": case.kind,
        "is_peer": case.is_peer,
        "precision": item.precision,
        "about": case.about,
    }
    if item.error:
        return {**entry, "error": item.error}
    rates = find_rates(item)
    entry |= {
        "round_rows": item.rounds[0].num_rows,
        "rounds_s": [part.seconds for part in item.rounds],
        "rows_per_s": statistics.median(rates),
        "spread": [min(rates), max(rates)],
        **{key: value for key, value in item.facts.items() if key.startswith("peak_")},
    }
    speeds = [count_flops(part.lengths) / part.seconds / 1e9 for part in item.rounds]
    entry["gflops"] = statistics.median(speeds)
    if item.precision in peaks:
        entry["mfu"] = entry["gflops"] / peaks[item.precision]["gflops"]
    predicted = _join_predicted(item)
    if predicted is not None and reference is not None:
        same = sum(one == other for one, other in zip(predicted, reference, strict=True))
        entry["agreement"] = same / len(reference)
    return entry


def _join_predicted(item: Measured) -> list[int] | None:
    if not item.rounds or any(part.predicted is None for part in item.rounds):
        return None
    return [label for part in item.rounds for label in part.predicted or ()]


def _find_reference(measured: Sequence[Measured]) -> list[int] | None:
    """Return the labels of a peer in float32, which others are compared with."""
    full = [item for item in measured if item.case.is_peer and item.precision == "fp32" and not item.error]
    return next((labels for item in full if (labels := _join_predicted(item)) is not None), None)


def _list_ratios(measured: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    """Return how many times faster each case of this package is than each peer, at the peer's fastest set-up.

    Rounds are compared in pairs, since neighbouring rounds see the same state of the machine.
    """
    groups: dict[str, list[Measured]] = {}
    for item in measured:
        if item.case.is_peer and not item.error:
            groups.setdefault(item.case.group, []).append(item)
    ratios = {}
    for ours in measured:
        if ours.case.is_peer:
            continue
        for group, peers in groups.items():
            fastest = max(peers, key=lambda item: statistics.median(find_rates(item)))
            factors = [one / other for one, other in zip(find_rates(ours), find_rates(fastest), strict=True)]
            ratio = {
                "kind": ours.case.kind,
                "case": ours.case.name,
                "peer": fastest.case.name,
                "median": statistics.median(factors),
                "spread": [min(factors), max(factors)],
            }
            memory = [item.facts.get("peak_device_bytes", item.facts.get("peak_rss_bytes")) for item in (ours, fastest)]
            if None not in memory:
                ratio["memory"] = memory[0] / memory[1]
            ratios[f"{ours.case.kind}: {ours.case.name} / {group}"] = ratio
    return ratios


def list_versions() -> dict[str, str]:
    """Return the versions of Python, this package, and the installed libraries that compute here and in peers."""
    versions = {"submillion": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
