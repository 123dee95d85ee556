"""One training run in its own process, which is started, followed and ended early on request; errors are passed on.

Searches and curves make many runs one after the other. A separate process frees its memory, cannot disturb the next
run, and can be killed without harm: a run continues from its last checkpoint when it is launched again.
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
from submillion.storage.json_shapes import JsonObject

_POLL_S = 0.2
# A run that is asked to stop finishes its step and saves. A step of a large model on few cores takes a while.
_GRACE_S = 120.0
_WATCH_S = 1.0
_CHILD = "submillion.cli.launched"
_INTERRUPTED = 130
_NUM_LINES = 6


@dataclass(frozen=True)
class LaunchedRun:
    """The outcome of a launched run.

    Attributes:
        run: Run folder.
        state: ``complete``, or ``pruned`` if a validation ended it.
        validations: Validation lines of the log in order of steps, with step, loss, accuracy and the other figures.
        evaluations: Figures by split or watched name, from ``evaluation/<split>.json``; empty if it was pruned.
    """

    run: Path
    state: Literal["complete", "pruned"]
    validations: tuple[JsonObject, ...]
    evaluations: dict[str, JsonObject]


def launch_run(
    config: RunConfig,
    out: Path,
    *,
    on_validation: Callable[[JsonObject], bool] | None = None,
    on_poll: Callable[[], None] | None = None,
    threads: int | None = None,
) -> LaunchedRun:
    """Carry out a run in its own process, or continue it, or read it if it is finished.

    The configuration is written to ``<out>.yaml`` and the output of the process to ``<out>.log``. Ctrl-C and SIGTERM
    are passed on, and the run saves before they take effect here. If this process is killed, the run notices, saves and
    ends as well. The same call with the same configuration continues the run.

    Args:
        config: The complete configuration.
        out: The run folder, which is new, empty or of the same configuration.
        on_validation: Function called with each validation line of the log, once and in order, including those of an
            earlier attempt. If it returns true, the run ends and is marked as pruned for good.
        on_poll: Function called several times a second during the run; an exception from it ends the run.
        threads: Number of CPU threads of the run; None takes the configuration's.

    Raises:
        ConfigError: The folder holds another run or other files, or the settings cannot be used.
        SubmillionError: The process ended with an error, which is raised here with its kind and message.
        RunError: The process was killed or interrupted from outside, or ended in a bug.
        KeyboardInterrupt: This process was asked to stop, and the run has saved.
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
        # The last validations may have been written after the last poll.
        follower.is_ended()
    elif is_pruned and process.returncode in {_INTERRUPTED, -signal.SIGTERM}:
        # The signal itself ended the process if a validation of an earlier attempt pruned it before it could handle
        # signals.
        replace(read_manifest(run), state="pruned").write(run.manifest)
    else:
        raise explain_end(process.returncode, log, str(out))
    return _describe(run)


def _choose_words(state: RunState, config: RunConfig, out: Path) -> list[str]:
    """Return the words of the command that starts or continues a run."""
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
    """Wait for a process whose parent is gone: it saves before it releases the folder."""
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


def _is_validation(entry: JsonObject) -> bool:
    return entry.get("kind") == "evaluation" and entry.get("split") == "validation"


class _Follower:
    """Reader of a growing log, which asks for each new validation whether it ends the run."""

    def __init__(self, path: Path, on_validation: Callable[[JsonObject], bool] | None) -> None:
        self._path = path
        self._ask = on_validation
        self._offset = 0
        self._step = 0

    def is_ended(self) -> bool:
        """Return whether one of the validations since the last call ends the run."""
        if self._ask is None or not self._path.exists():
            return False
        with self._path.open("rb") as file:
            # A resumed run truncates the log to its checkpoint, so steps that were already reported appear again.
            self._offset = min(self._offset, os.fstat(file.fileno()).st_size)
            file.seek(self._offset)
            new = file.read()
        whole, _, _ = new.rpartition(b"\n")
        self._offset += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            # The cut can be in the middle of text that was read before. That line is reported when it is complete.
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if _is_validation(entry) and entry["step"] > self._step:
                    self._step = entry["step"]
                    if self._ask(entry):
                        return True
        return False


def _start(words: list[str], log: Path, said: Any) -> subprocess.Popen[bytes]:
    # The process gets its own session, so that a terminal's Ctrl-C reaches only this process, which passes it on once.
    # A second signal would end the run without saving.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _CHILD, str(os.getpid()), str(find_error_file(log)), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
    )


def end_process(process: subprocess.Popen[bytes], *, is_asked: bool = False) -> None:
    """Ask a running process to save and end, and kill it if it does not, or on another Ctrl-C.

    Args:
        process: Process in its own session.
        is_asked: Whether it was already asked; if asked twice, it would not save.
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
    """Return the file, beside the log, in which a process leaves the error that ends it."""
    return log.with_suffix(".error.json")


def write_error(file: Path, error: SubmillionError) -> None:
    """Write the error that ends this process for the process that started it."""
    write_json(file, error.to_json())


def explain_end(code: int, log: Path, where: str, what: str = "the run") -> SubmillionError:
    """Return the error that a process has left, or an error that says how it ended without one.

    Args:
        code: Return code from `subprocess`, which is negative if a signal ended the process.
        log: File with the stderr of the process; the error file is beside it.
        where: Folder of the process. It is named in the hint of an error that the process left, and is the place of an
            error that it did not leave.
        what: Name of the process in messages.
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
    """Treat SIGTERM as Ctrl-C in the main thread, where a handler is possible."""
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
    """Make this process save and end as soon as its parent is gone.

    Args:
        parent: Process id of the parent.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
