"""The workers of a search on this machine: started, watched, ended together, their errors told here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from submillion.errors import SubmillionError
from submillion.launch import KINDS, end_process, explain_end
from submillion.rundir import read_json
from submillion.search.task import STORAGE_VARIABLE
from submillion.search.worker import find_error_file

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
    logs = [folder / "workers" / f"{number}.log" for number in range(num_workers)]
    logs[0].parent.mkdir(exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, log in enumerate(logs):
            find_error_file(folder, number).unlink(missing_ok=True)
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
            raise _explain(folder, number, code, logs[number])
    for number, process in enumerate(processes):
        if process.returncode:
            raise _explain(folder, number, process.returncode, logs[number])


def _start(folder: Path, url: str, number: int, said: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "submillion.search.worker", str(folder), str(number), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        env={**os.environ, STORAGE_VARIABLE: url},
        start_new_session=True,
    )


def _explain(folder: Path, number: int, code: int, log: Path) -> SubmillionError:
    file = find_error_file(folder, number)
    if file.exists():
        told = read_json(file)
        kind = KINDS[told["exit_code"]]
        return kind(told["message"], where=told["where"], hint=told["hint"])
    return explain_end(code, log, str(folder), "a worker")
