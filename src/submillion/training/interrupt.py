"""Ctrl-C and SIGTERM during training: finish the step, then stop where it can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set once a signal has asked the run to stop."""

    def __init__(self) -> None:
        self.is_set = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_set:
            # Asked twice: stop at once; the last checkpoint is whole all the same.
            raise KeyboardInterrupt
        self.is_set = True


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Collect SIGINT and SIGTERM in a StopRequest for the length of the block; a second one interrupts at once.

    A signal that the process ignores, as SIGINT in a shell's background job, stays ignored. Outside of the main thread,
    where Python allows no handlers, the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    signals = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request._note) for number in signals}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
