"""Whole commands, run in turn and timed from the start of their process to its end."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from submillion.errors import RunError
from submillion.progress import Progress

# getrusage(2) counts in kilobytes, but macOS counts in bytes.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_SAID = 500


@dataclass(frozen=True)
class Command:
    """A command that is timed.

    Attributes:
        name: Name in results and tables.
        arguments: Arguments after the interpreter.
        about: Description of the command.
        num_rows: Number of rows that it works on; 0 if this has no meaning.
        is_peer: Whether it belongs to another library.
    """

    name: str
    arguments: tuple[str, ...]
    about: str
    num_rows: int = 0
    is_peer: bool = False


@dataclass(frozen=True)
class Timing:
    """One run of a command.

    Attributes:
        seconds: Seconds from the start of the process to its end.
        peak_rss_bytes: Largest memory of the process; 0 if it is not known.
    """

    seconds: float
    peak_rss_bytes: int


def time_command(arguments: Sequence[str], environment: Mapping[str, str]) -> Timing:
    """Run a command of this interpreter and time it.

    Args:
        arguments: Arguments after the interpreter.
        environment: The whole environment of the process.

    Raises:
        RunError: It did not end with 0.
    """
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()[-_SAID:]
            raise RunError(f"`{' '.join(arguments)}` ended in {process.returncode}: {said}", where="bench")
    # A process starts with the memory of its parent, so that no value below ours can be seen.
    least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Timing(seconds, usage.ru_maxrss * _RSS_UNIT if usage.ru_maxrss > least else 0)


def time_in_turn(
    commands: Sequence[Command], environment: Mapping[str, str], num_rounds: int, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Run commands in turn and return their entries in the result, by name.

    Args:
        commands: Commands to run.
        environment: Environment of all commands.
        num_rounds: Number of runs of each command.
        progress: Receiver of the runs.

    Raises:
        RunError: A command has failed.
    """
    timings: dict[str, list[Timing]] = {command.name: [] for command in commands}
    progress.start(f"data: {commands[0].name}", num_rounds * len(commands))
    for number in range(num_rounds):
        for place, command in enumerate(commands, start=1):
            timings[command.name].append(time_command(command.arguments, environment))
            progress.advance(number * len(commands) + place)
    progress.finish()
    return {command.name: _describe(command, timings[command.name]) for command in commands}


def _describe(command: Command, timings: Sequence[Timing]) -> dict[str, Any]:
    seconds = [timing.seconds for timing in timings]
    peak = max(timing.peak_rss_bytes for timing in timings)
    memory = {"peak_rss_bytes": peak} if peak else {}
    return describe_seconds(
        command.name, command.about, seconds, num_rows=command.num_rows, is_peer=command.is_peer, **memory
    )


def describe_seconds(
    name: str, about: str, seconds: Sequence[float], *, num_rows: int = 0, is_peer: bool = False, **figures: Any
) -> dict[str, Any]:
    """Return the entry of a timed task, as JSON types.

    Args:
        name: Name in results and tables.
        about: Description of the task.
        seconds: Seconds of each round.
        num_rows: Number of rows done in a round; 0 if this has no meaning.
        is_peer: Whether it belongs to another library.
        figures: Further entries.
    """
    middle = statistics.median(seconds)
    rate = {"round_rows": num_rows, "rows_per_s": num_rows / middle} if num_rows else {}
    return {
        "name": name,
        "kind": "data",
        "is_peer": is_peer,
        "about": about,
        "rounds_s": list(seconds),
        "seconds": middle,
        "spread_s": [min(seconds), max(seconds)],
        **rate,
        **figures,
    }
