"""The best rate of matrix products on this machine, over a model's shapes and every available product.

A rate is that of the fastest single call. All cases of a precision are divided by the same peak, which is the best rate
of any round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.flops import open_flops
from benchmarks.gemm_speed import Call, Shape, list_products
from benchmarks.measured_child import Gate, Job, Round
from submillion.budget.count import list_linears
from submillion.model.sources import load_base_config

# Tokens per pass: small passes fit the caches, and large ones keep the threads busy.
_NUM_TOKENS: Mapping[str, tuple[int, ...]] = {"cpu": (512, 2048, 4096, 8192), "cuda": (8192, 16384, 32768)}
_SCREEN_S = 0.03
_AGAIN_S = 0.15
_NUM_KEPT = 6
_GPU_REPEATS = 20


@dataclass(frozen=True)
class _Trial:
    method: str
    shape: Shape
    make: Callable[[Shape], Call]


def measure_peak(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Measure the peaks of the precisions in the options: all products in the first round, then the best ones again.

    A round's figures are ``gflops`` by precision. The facts are ``peaks``: rate, method and shape of the best product
    by precision.
    """
    config = load_base_config(job.base)
    trials = {precision: _list_trials(config, precision, job.device) for precision in job.options["precisions"]}
    peaks: dict[str, dict[str, Any]] = {}
    gate.say_ready()
    for number in range(job.num_rounds):
        gate.wait()
        started = time.perf_counter()
        figures: dict[str, float] = {}
        for precision, listed in trials.items():
            budget_s = _AGAIN_S if number else _SCREEN_S
            rated = sorted(((_find_rate(trial, job.device, budget_s), trial) for trial in listed), key=_get_rate)
            trials[precision] = [trial for _, trial in rated[-_NUM_KEPT:]]
            rate, best = rated[-1]
            figures[precision] = rate
            if rate > peaks.get(precision, {"gflops": 0.0})["gflops"]:
                shape = [best.shape.num_tokens, best.shape.inner, best.shape.columns]
                peaks[precision] = {"gflops": rate, "method": best.method, "shape": shape}
        gate.report(Round(time.perf_counter() - started, 0, figures={"gflops": figures}))
    return {"peaks": peaks}


def _get_rate(rated: tuple[float, _Trial]) -> float:
    return rated[0]


def list_shapes(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return (inner, columns) of a model's products, forward and backward, with query, key and value also as one.

    Args:
        config: The model's ``config.json``.
    """
    linears = open_flops(str(config.get("model_type")), list_linears(config), {}).linears
    forward = {(linear.in_features, linear.out_features) for linear in linears}
    forward |= {(linear.in_features, 3 * linear.out_features) for linear in linears if linear.kind == "query"}
    return sorted(forward | {(columns, inner) for inner, columns in forward})


def _list_trials(config: Mapping[str, Any], precision: str, device: str) -> list[_Trial]:
    products = list_products(precision, device)
    return [
        _Trial(method, Shape(num_tokens, inner, columns), make)
        for num_tokens in _NUM_TOKENS[device]
        for inner, columns in list_shapes(config)
        for method, make in products.items()
    ]


@torch.no_grad()
def _find_rate(trial: _Trial, device: str, budget_s: float) -> float:
    """Return the GFLOP/s of the fastest call, or 0 if this machine does not have the product."""
    try:
        call = trial.make(trial.shape)
        call()
        seconds = _time_on_gpu(call) if device == "cuda" else _time_on_cpu(call, budget_s)
    except (RuntimeError, NotImplementedError, AttributeError):
        return 0.0
    return trial.shape.flops / seconds / 1e9


def _time_on_cpu(call: Call, budget_s: float) -> float:
    fastest, end = float("inf"), time.perf_counter() + budget_s
    while fastest == float("inf") or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


def _time_on_gpu(call: Call) -> float:
    # Many calls run in a row, since otherwise launches would be measured.
    times = []
    for _ in range(3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(_GPU_REPEATS):
            call()
        end.record()
        torch.cuda.synchronize()
        times.append(float(start.elapsed_time(end)) / _GPU_REPEATS / 1e3)
    return min(times)
