"""The run folder: the name of every file in it, and writes that are never half done; and the cache's place."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from submillion.errors import RunError

RUN_FORMAT = 1

CACHE_SETTING, CACHE_OFF = "SUBMILLION_CACHE", "off"
"""Environment variable that names another folder for the cache; ``off`` keeps nothing of the data."""


@dataclass(frozen=True)
class RunDir:
    """Paths inside one run folder; holds no state of its own."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; replays the run."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """The parameter plan."""
        return self.path / "plan.json"

    @property
    def data(self) -> Path:
        """The data doctor's report, split sizes and digests."""
        return self.path / "data.json"

    @property
    def manifest(self) -> Path:
        """Versions, seeds, threads, digests, machine, state of the run, number of test evaluations."""
        return self.path / "manifest.json"

    @property
    def log(self) -> Path:
        """One JSON line a step or evaluation."""
        return self.path / "log.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the process that trains in the folder."""
        return self.path / ".lock"

    @property
    def checkpoints(self) -> Path:
        """Folder of ``step-N`` checkpoints and the pointer files ``last`` and ``best``."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The best adapter in PEFT's format."""
        return self.path / "adapter"

    @property
    def head(self) -> Path:
        """Weights of a linear head, which is not part of a PEFT adapter."""
        return self.path / "head.safetensors"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that encoded the training rows."""
        return self.path / "tokenizer"

    @property
    def plots(self) -> Path:
        """Plots as PNG."""
        return self.path / "plots"

    @property
    def report(self) -> Path:
        """The self-contained HTML report."""
        return self.path / "report.html"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    def evaluation(self, split: str) -> Path:
        """Figures of one split or watched set, or of its baseline (``<split>.baseline``)."""
        return self.path / "evaluation" / f"{split}.json"

    def predictions(self, split: str) -> Path:
        """Per-record predictions of one split or watched set."""
        return self.path / "evaluation" / f"{split}.predictions.parquet"


def find_cache_folder() -> Path:
    """Return the folder for what can be made anew: SUBMILLION_CACHE, or ``submillion`` in the user's cache."""
    setting = os.environ.get(CACHE_SETTING, "")
    if setting and setting != CACHE_OFF:
        return Path(setting).expanduser()
    # The XDG specification has relative paths ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "submillion"


@contextmanager
def full_disk_is_run_error(path: Path) -> Iterator[None]:
    """Turn a full disk or exceeded quota into a `RunError` that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise RunError(
                f"cannot be written: {error.strerror}",
                where=str(path),
                hint="Free some space, then continue with --resume; nothing written before is lost.",
            ) from error
        raise


@contextmanager
def hold_folder(lock: Path, *, doing: str, hint: str = "Wait for it, or stop it.") -> Iterator[None]:
    """Keep a folder for this process; the system lets go of it with the process, however that ends.

    Args:
        lock: A file in the folder, made if absent.
        doing: What processes do there, for the error message.
        hint: What to do where another one is at it.

    Raises:
        RunError: Another process holds the folder.
    """
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is {doing} in this folder", where=str(lock.parent), hint=hint) from None
        yield


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that other processes see the old content or the new one, never a part.

    Args:
        path: The file; its folder is made if absent.
        write: Called with the open temporary file.

    Raises:
        RunError: The disk is full.
    """
    with full_disk_is_run_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder and below."""
    for leftover in folder.rglob(".*.tmp"):
        if leftover.is_file():
            leftover.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object as indented JSON, atomically; NaN and infinities are refused."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a run folder.

    Raises:
        RunError: The file is missing or is no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            "is missing", where=str(path), hint="Is this a run folder, and did its training come to the end?"
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"is damaged: {error}", where=str(path)) from None
    if not isinstance(values, dict):
        raise RunError(f"is damaged: expected an object, found {type(values).__name__}", where=str(path))
    return values


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read log.jsonl; an unfinished last line, as a kill leaves it, is left out.

    Raises:
        RunError: A line before the last is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entries.append(json.loads(line))
        except ValueError as error:
            raise RunError(f"is damaged: {error}", where=f"{path}:{number}") from None
    return entries
