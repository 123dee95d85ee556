"""The workers of a search on this machine: started, watched, ended together, their errors told here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from submillion.launch import end_process, explain_end, find_error_file
from submillion.search.task import STORAGE_VARIABLE
from submillion.search.trial_worker import find_log

_POLL_S = 0.5


def run_workers(folder: Path, url: str, num_workers: int, *, on_poll: Callable[[], None]) -> None:
    """Let workers make the trials of a search until none is left to make.

    Args:
        folder: Of the search.
        url: Its storage.
        num_workers: Processes, each with one trial at a time.
        on_poll: Called now and then; what it raises ends them.

    Raises:
        SubmillionError: What a worker ended with; the others have been ended.
        KeyboardInterrupt: Asked to stop; the trials under way are back in the queue.
    """
    logs = [find_log(folder, number) for number in range(num_workers)]
    logs[0].parent.mkdir(exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, log in enumerate(logs):
            find_error_file(log).unlink(missing_ok=True)
            with log.open("wb") as said:
                processes.append(_start(folder, url, number, said.fileno()))
        while any(process.poll() is None for process in processes):
            time.sleep(_POLL_S)
            on_poll()
            if any(process.poll() for process in processes):
                break
    finally:
        # All are asked first, so that their runs save at the same time.
        failed = [process.poll() or 0 for process in processes]
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            end_process(process, is_asked=True)
    on_poll()
    for number, code in enumerate(failed):
        if code:
            raise explain_end(code, logs[number], str(folder), "a worker")
    for number, process in enumerate(processes):
        if process.returncode:
            raise explain_end(process.returncode, logs[number], str(folder), "a worker")


def _start(folder: Path, url: str, number: int, said: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "submillion.search.trial_worker", str(folder), str(number), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        env={**os.environ, STORAGE_VARIABLE: url},
        start_new_session=True,
    )
