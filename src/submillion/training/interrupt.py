"""Ctrl-C and SIGTERM during training: the run finishes its step, saves and stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """A flag that is set when a signal asks the run to stop."""

    def __init__(self) -> None:
        self.is_set = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_set:
            # The second signal stops the run at once. The last checkpoint is complete anyway.
            raise KeyboardInterrupt
        self.is_set = True


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Collect SIGINT and SIGTERM in a StopRequest while the block runs; a second signal interrupts at once.

    A signal that the process ignores, as SIGINT in a shell's background job, is still ignored. Outside the main thread,
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
