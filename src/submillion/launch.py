"""One training run in a process of its own: started, followed, ended early where asked, its errors passed on.

Searches and curves make many runs one after the other. A process for each gives its memory back, cannot disturb the
next one, and can be killed without harm: a run continues from its last checkpoint when it is launched again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from submillion.config.nested import list_changes
from submillion.config.run import RunConfig, dump_config
from submillion.errors import ConfigError, RunError, SubmillionError, from_json
from submillion.run.folder import RunDir, RunState, refuse_odd_files
from submillion.run.reader import read_config, read_manifest
from submillion.storage.files import open_plain, read_json, read_log, remove_leftovers, write_json, write_text

_POLL_S = 0.2
# A run that is asked to stop finishes its step and saves; a step of a large model on few cores takes a while.
_GRACE_S = 120.0
_WATCH_S = 1.0
_CHILD = "submillion.cli.launched"
_INTERRUPTED = 130
_NUM_LINES = 6


@dataclass(frozen=True)
class LaunchedRun:
    """What became of a launched run.

    Attributes:
        run: Its folder.
        state: ``complete``, or ``pruned`` where a validation ended it.
        validations: The validation lines of its log, in order of steps: step, loss, accuracy and the other figures.
        evaluations: Figures by split or watched name, as ``evaluation/<split>.json`` has them; none if it was pruned.
    """

    run: Path
    state: Literal["complete", "pruned"]
    validations: tuple[dict[str, Any], ...]
    evaluations: dict[str, dict[str, Any]]


def launch_run(
    config: RunConfig,
    out: Path,
    *,
    on_validation: Callable[[dict[str, Any]], bool] | None = None,
    on_poll: Callable[[], None] | None = None,
    threads: int | None = None,
) -> LaunchedRun:
    """Carry out a run in a process of its own, or continue it, or take it as it stands where it is finished.

    The configuration is written to ``<out>.yaml`` and what the process says to ``<out>.log``. Ctrl-C and SIGTERM are
    passed on, and the run saves before they take effect here; where this process is killed, the run notices, saves and
    ends as well. So the same call continues it, which needs the same configuration.

    Args:
        config: The complete configuration.
        out: The run folder: absent, empty, or that of the same configuration.
        on_validation: Called with each validation line of the log, once and in order, those of an earlier attempt
            included; true ends the run, which is then marked as pruned for good.
        on_poll: Called several times a second while the run goes on; what it raises ends the run.
        threads: CPU threads of the run; as the configuration says if None.

    Raises:
        ConfigError: The folder holds another run or other files, or the settings cannot be used.
        SubmillionError: Of the kind that the process ended with, with its message.
        RunError: It was killed or interrupted from outside, or ended in a bug.
        KeyboardInterrupt: This process was asked to stop; the run has saved.
    """
    if threads is not None:
        config = config.model_copy(update={"threads": threads})
    run = RunDir(out)
    state = _find_state(run, config)
    if state in {"finished", "pruned"}:
        return _describe(run)
    _await_release(run)
    words = _choose_words(state, config, out)
    log = out.with_name(f"{out.name}.log")
    follower = _Follower(run.log, on_validation)
    find_error_file(log).unlink(missing_ok=True)
    with sigterm_interrupts(), os.fdopen(open_plain(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as said:
        process = _start(words, log, said)
        try:
            is_pruned = False
            while process.poll() is None and not is_pruned:
                time.sleep(_POLL_S)
                if on_poll is not None:
                    on_poll()
                is_pruned = follower.is_ended()
        finally:
            end_process(process)
    if process.returncode == 0:
        # The last validations may have come after the last look.
        follower.is_ended()
    elif is_pruned and process.returncode in {_INTERRUPTED, -signal.SIGTERM}:
        # By the signal itself where a validation of an earlier attempt ended it before it could listen.
        replace(read_manifest(run), state="pruned").write(run.manifest)
    else:
        raise explain_end(process.returncode, log, str(out))
    return _describe(run)


def _choose_words(state: RunState, config: RunConfig, out: Path) -> list[str]:
    """Return the words of the command that begins or continues a run."""
    if state != "new":
        return ["train", "--resume", str(out)]
    recipe = out.with_name(f"{out.name}.yaml")
    write_text(recipe, dump_config(config))
    return ["train", str(recipe), "--out", str(out)]


def _find_state(run: RunDir, config: RunConfig) -> RunState:
    """Return the state of the run in a folder, which must be of the same configuration."""
    refuse_odd_files((), (run.path,))
    if not run.config.exists():
        if run.path.is_dir():
            remove_leftovers(run.path)
        return "new"
    before = read_config(run)
    if before != config:
        changes = list_changes(before.model_dump(mode="json"), config.model_dump(mode="json"))
        changed = ", ".join(sorted(path for path, _, _ in changes))
        raise ConfigError(
            f"holds a run with other settings: {changed} differ",
            where=str(run.path),
            hint="Choose another folder, or delete this one if that run is not needed.",
        )
    return run.state()


def _await_release(run: RunDir) -> None:
    """Wait for a process that is about to end: its own parent is gone, and it saves before it lets go of the folder."""
    if not run.lock.exists():
        return
    until = time.monotonic() + _GRACE_S
    with os.fdopen(open_plain(run.lock, os.O_RDONLY), "rb") as file:
        while time.monotonic() < until:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_POLL_S)
                continue
            return


def _describe(run: RunDir) -> LaunchedRun:
    is_pruned = run.state() == "pruned"
    validations = tuple(entry for entry in read_log(run.log) if _is_validation(entry))
    evaluations = {}
    if not is_pruned:
        paths = sorted(run.evaluation("validation").parent.glob("*.json"))
        evaluations = {path.stem: read_json(path) for path in paths if "." not in path.stem}
    return LaunchedRun(run.path, "pruned" if is_pruned else "complete", validations, evaluations)


def _is_validation(entry: dict[str, Any]) -> bool:
    return entry.get("kind") == "evaluation" and entry.get("split") == "validation"


class _Follower:
    """Reads a growing log, and asks of each new validation whether it ends the run."""

    def __init__(self, path: Path, on_validation: Callable[[dict[str, Any]], bool] | None) -> None:
        self._path = path
        self._ask = on_validation
        self._offset = 0
        self._step = 0

    def is_ended(self) -> bool:
        """Return whether one of the validations since the last call ends the run."""
        if self._ask is None or not self._path.exists():
            return False
        with self._path.open("rb") as file:
            # A run that is continued cuts the log back to its checkpoint; steps that were told of come again.
            self._offset = min(self._offset, os.fstat(file.fileno()).st_size)
            file.seek(self._offset)
            new = file.read()
        whole, _, _ = new.rpartition(b"\n")
        self._offset += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            # The cut can fall into the middle of what was read before; that line is told of when it comes whole.
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if _is_validation(entry) and entry["step"] > self._step:
                    self._step = entry["step"]
                    if self._ask(entry):
                        return True
        return False


def _start(words: list[str], log: Path, said: Any) -> subprocess.Popen[bytes]:
    # In a session of its own: a terminal's Ctrl-C reaches this process alone, which passes it on once. Twice would
    # end the run without saving.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _CHILD, str(os.getpid()), str(find_error_file(log)), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
    )


def end_process(process: subprocess.Popen[bytes], *, is_asked: bool = False) -> None:
    """Ask a process that still runs to save and end; kill it where it does not, or where asked to hurry.

    Args:
        process: In a session of its own.
        is_asked: Whether it was asked already; asked twice, it would not save.
    """
    if process.poll() is None and not is_asked:
        process.terminate()
    try:
        process.wait(_GRACE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, KeyboardInterrupt):
            raise


def find_error_file(log: Path) -> Path:
    """Return the file in which a process leaves the error that ends it, beside the log of what it says."""
    return log.with_suffix(".error.json")


def write_error(file: Path, error: SubmillionError) -> None:
    """Leave the error that ends this process for the one that started it."""
    write_json(file, error.to_json())


def explain_end(code: int, log: Path, where: str, what: str = "the run") -> SubmillionError:
    """Return the error that a process has left, or one that says how it ended without leaving any.

    Args:
        code: As `subprocess` tells it: negative where a signal ended the process.
        log: What it wrote on stderr; its error is beside it.
        where: The process's folder, named in the hint of its own error and as the place of one that it has not left.
        what: The process, for the message.
    """
    file = find_error_file(log)
    if code > 0 and file.exists():
        error = from_json(read_json(file))
        hint = f"{error.hint}\nThis ended {what} in {where}.".strip()
        return type(error)(error.message, where=error.where, hint=hint)
    if code == _INTERRUPTED:
        how = "was interrupted from outside"
    elif code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with status {code}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    shown = "\n".join(("Its last lines:", *lines[-_NUM_LINES:])) if lines else ""
    return RunError(f"{what} {how}", where=where, hint=f"The same command continues it. {shown}".strip())


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C, where a handler is possible: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def follow_parent(parent: int) -> None:
    """From now on, ask this process to save and end once the one that started it is gone.

    Args:
        parent: Process id of the one that started it.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
