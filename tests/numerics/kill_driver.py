"""Runs that are killed at a chosen point, each in its own process.

``python kill_driver.py REQUEST``: the request is a JSON list of {config, folder, target, call, when}. Importing takes
seconds, so one process imports everything and forks a child for each run; the child kills itself with SIGKILL at the
given call of the target function: before it, after it, or, for writers of bytes, when half is written.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import submillion.pipeline.finish
import submillion.pipeline.fit
import submillion.pipeline.run
import submillion.training.checkpoint
from submillion.config.run import parse_config


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(target: str, call: int, when: str) -> None:
    """Replace ``module:path`` by itself with a kill at its n-th call."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < call:
            return real(*arguments, **options)
        if when == "half":
            write_half(*arguments)
        elif when == "after":
            real(*arguments, **options)
        kill()

    setattr(owner, name, wrapped)


def write_half(place: Any, content: Any) -> None:
    if isinstance(place, Path):
        place.write_bytes(content[: len(content) // 2])
    else:
        line = json.dumps(content).encode()
        place._file.write(line[: len(line) // 2])
        place._file.flush()


def run(request: dict[str, Any]) -> None:
    patch.multiple(submillion.pipeline.finish, verify_run=lambda *_: {}, write_report=lambda *_: None).start()
    arm(request["target"], request["call"], request["when"])
    submillion.pipeline.run.start_run(parse_config(request["config"], where="driver"), Path(request["folder"]))


def main() -> None:
    outcomes = []
    for request in json.loads(Path(sys.argv[1]).read_text()):
        child = os.fork()
        if child == 0:
            run(request)
            os._exit(0)
        outcomes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main()
