"""Timing of work, with the device's queue empty at both ends."""

from __future__ import annotations

import time


class Clock:
    """A clock that measures one stretch of time after another.

    Args:
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._started = 0.0

    def start(self) -> None:
        """Begin a stretch."""
        self._settle()
        self._started = time.perf_counter()

    def stop(self) -> float:
        """Return the seconds since `start`."""
        self._settle()
        return time.perf_counter() - self._started

    def _settle(self) -> None:
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()
