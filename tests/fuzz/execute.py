"""Carry out cases in a separate process, which may hang, crash or grow without harm to the driver."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .targets import Target

CPU_S = 5.0
"""Processor time that a case may take."""

WALL_S = 120.0
"""Time after which a case that waits for something is ended; long, since the machine may be busy."""

MEMORY_BYTES = 256 << 20
"""What a case may take on top of what the process held before it: files of cases are small."""

_ADDRESS_BYTES = 3 << 30
_CASES_A_PROCESS = 200  # what cases leave behind in the address space must not count for later ones
_FILE_BYTES = 256 << 20
# Line ends and tabs are meant; anything else would be acted upon by a terminal.
_CONTROLS = {*range(32), 0x7F} - {*b"\t\n\r"}


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case.

    Attributes:
        target: Name of the target.
        index: Number of the case among those of the target.
        result: ``read``, ``refused`` or what is wrong: ``untyped``, ``silent``, ``hang``, ``crash``, ``memory``,
            ``terminal``.
        error: The error's type and message, where there is one.
        place: Where in the package it came from: its last frame there.
        trace: Where it happened, in full.
    """

    target: str
    index: int
    result: str
    error: str = ""
    place: str = ""
    trace: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether the case ended as it should."""
        return self.result in {"read", "refused"}

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """What cases have in common that show the same fault."""
        return self.target, self.result, self.error.partition(":")[0], self.place


def make_case(target: Target, seed: int, index: int) -> tuple[bytes, int]:
    """Return the damaged content of a case and the number of its action."""
    rng = random.Random(f"{seed}/{target.name}/{index}")
    return target.damage(rng), rng.randrange(len(target.actions))


class Worker:
    """A forked process that carries out one case after another; a new one takes its place when it dies.

    Args:
        targets: By name.
        seed: Seed of all cases.
    """

    def __init__(self, targets: Mapping[str, Target], seed: int) -> None:
        self._targets = targets
        self._seed = seed
        self._folder = Path(tempfile.mkdtemp(prefix="submillion-fuzz-"))
        self._pid = 0
        self._num_cases = 0
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """End the process and remove its files."""
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, name: str, index: int) -> Outcome:
        """Carry out a case."""
        self._num_cases += 1
        if self._num_cases % _CASES_A_PROCESS == 0:
            self._stop()
        if self._socket is None:
            self._start()
        assert self._socket is not None
        try:
            self._socket.sendall(json.dumps([name, index]).encode() + b"\n")
            answer = self._receive()
        except OSError:
            answer = b""
        if answer.endswith(b"\n"):
            return Outcome(**json.loads(answer))
        return self._explain_death(name, index)

    def _receive(self) -> bytes:
        assert self._socket is not None
        answer, until = b"", time.monotonic() + WALL_S
        while not answer.endswith(b"\n"):
            if not select.select([self._socket], [], [], max(0.0, until - time.monotonic()))[0]:
                os.kill(self._pid, signal.SIGABRT)  # faulthandler then says where it waits
                return b""
            part = self._socket.recv(1 << 16)
            if not part:
                return b""
            answer += part
        return answer

    def _start(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._socket, child = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._socket.close()
                _serve(child, self._targets, self._seed, self._folder)
            finally:
                os._exit(0)
        child.close()

    def _stop(self) -> int:
        if self._socket is None:
            return 0
        self._socket.close()
        self._socket = None
        with_status = os.waitpid(self._pid, 0)[1]
        return os.waitstatus_to_exitcode(with_status)

    def _explain_death(self, name: str, index: int) -> Outcome:
        code = self._stop()
        trace = (self._folder / "trace").read_text(errors="replace")[-6000:]
        result = "hang" if code in {-signal.SIGPROF, -signal.SIGABRT} and "Aborted" not in trace else "crash"
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Outcome(name, index, result, reason, _find_place(trace.splitlines()), trace)


def _serve(connection: socket.socket, targets: Mapping[str, Target], seed: int, folder: Path) -> None:
    """Carry out the cases that the driver asks for, until it closes the connection."""
    output = os.open(folder / "output", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    trace = (folder / "trace").open("w")
    faulthandler.enable(trace, all_threads=False)
    faulthandler.register(signal.SIGPROF, trace, all_threads=False, chain=True)
    for limit, size in (
        (resource.RLIMIT_AS, _ADDRESS_BYTES + _read_status("VmSize")),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (size, size))
    work = folder / "work"
    for line in connection.makefile("rb"):
        name, index = json.loads(line)
        os.ftruncate(output, 0)
        os.lseek(output, 0, os.SEEK_SET)
        outcome = _attempt(targets[name], seed, index, work, output)
        connection.sendall(json.dumps(asdict(outcome)).encode() + b"\n")


def _attempt(target: Target, seed: int, index: int, work: Path, output: int) -> Outcome:
    from submillion.cli.console import print_submillion_error
    from submillion.errors import SubmillionError

    content, action = make_case(target, seed, index)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    place = target.put(work, content)
    os.chdir(work)
    before = _reset_peak()
    result, error = "read", ""
    trace: list[str] = []
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        target.actions[action](place)
    except SubmillionError as problem:
        result, error = "refused", f"{type(problem).__name__}: {problem}"
        print_submillion_error(problem)
    except BaseException as problem:
        result, error = "untyped", f"{type(problem).__name__}: {problem}"
        trace = "".join(traceback.format_exception(problem)).splitlines()
        if type(problem).__name__ == "Disagreement":
            result = "silent"
        if type(problem).__module__.startswith("typer") or isinstance(problem, SystemExit):
            result = "refused"
    signal.setitimer(signal.ITIMER_PROF, 0)
    grown = _read_status("VmHWM") - before
    if result in {"read", "refused"} and grown > MEMORY_BYTES:
        result, error = "memory", f"{grown >> 20} MiB for {len(content):,} bytes; {error}"
    sys.stdout.flush()
    sys.stderr.flush()
    printed = os.pread(output, 1 << 20, 0)
    if result in {"read", "refused"} and (raw := sorted(set(printed) & _CONTROLS)):
        result, error = "terminal", f"control characters {raw} reach the terminal; {error}"
    return Outcome(target.name, index, result, error[:2000], _find_place(trace), "\n".join(trace[-60:]))


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _read_status("VmRSS")


def _read_status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"this system does not report {name}")


def _find_place(trace: list[str]) -> str:
    """Return the last place in the package in a traceback, as ``file:line``."""
    found = [line for line in trace if "/submillion/" in line and "File " in line]
    if trace and "most recent call first" in "".join(trace):
        found.reverse()
    if not found:
        return ""
    file, _, rest = found[-1].partition('", line ')
    return f"{file.rpartition('/submillion/')[2]}:{rest.split(',')[0].split()[0]}"
