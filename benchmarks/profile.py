"""Rates of the matrix products inside a running model, in GFLOP/s, which no peak may be below."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from submillion.kernels import calls
from submillion.kernels.weights import Int8Weight, PackedWeight

_KERNEL_CALLS = ("linear", "linear_gelu", "linear_times", "linear_norm")
# The timing of shorter products is too coarse to show the hardware's speed.
_MIN_FLOPS = 1e7
_MIN_CALLS = 3


def profile_products(run: Callable[[], Any], device: str) -> dict[str, float]:
    """Run a model and return the best mean rate of its products of one shape, by the code that multiplies.

    Operators of torch are read from its profiler. The profiler does not see this package's CPU kernels, so these are
    timed call by call, including everything else that they do. Keys are ``torch``, ``kernels bf16`` and ``kernels
    int8``; code that did not run is left out.

    Args:
        run: Function that makes passes.
        device: ``cpu`` or ``cuda``.
    """
    rates = {"torch": _profile_torch(run, device), **_profile_kernels(run)}
    return {name: rate for name, rate in rates.items() if rate > 0.0}


def _profile_torch(run: Callable[[], Any], device: str) -> float:
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=activities, record_shapes=True, with_flops=True) as profiled:
        run()
    best = 0.0
    for entry in profiled.key_averages(group_by_input_shape=True):
        microseconds = entry.device_time_total if device == "cuda" else entry.cpu_time_total
        if entry.count >= _MIN_CALLS and entry.flops >= _MIN_FLOPS * entry.count and microseconds > 0.0:
            best = max(best, entry.flops / microseconds / 1e3)
    return best


def _profile_kernels(run: Callable[[], Any]) -> dict[str, float]:
    seconds: dict[tuple[str, int, int, int], list[float]] = defaultdict(list)
    with _timed_calls(seconds):
        run()
    best: dict[str, float] = {}
    for (name, rows, inner, columns), times in seconds.items():
        flops = 2.0 * rows * inner * columns
        if len(times) >= _MIN_CALLS and flops >= _MIN_FLOPS:
            best[name] = max(best.get(name, 0.0), flops * len(times) / sum(times) / 1e9)
    return best


@contextmanager
def _timed_calls(seconds: dict[tuple[str, int, int, int], list[float]]) -> Iterator[None]:
    """Time the kernels' products."""
    kept = {name: getattr(calls, name) for name in _KERNEL_CALLS}

    def watch(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(x: torch.Tensor, weight: PackedWeight | Int8Weight, *rest: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = call(x, weight, *rest, **named)
            elapsed = time.perf_counter() - started
            is_int8 = isinstance(weight, Int8Weight)
            columns = len(weight.scales) if isinstance(weight, Int8Weight) else weight.columns
            seconds["kernels int8" if is_int8 else "kernels bf16", len(x), weight.inner, columns].append(elapsed)
            return result

        return timed

    for name, call in kept.items():
        setattr(calls, name, watch(call))
    try:
        yield
    finally:
        for name, call in kept.items():
            setattr(calls, name, call)
