"""The folder of an export: it appears whole or not at all, and one process at a time makes it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from submillion.errors import RunError
from submillion.files import ODD_HINT, explain_odd_file, full_disk_is_run_error, sync_folder


@contextmanager
def write_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder to be filled, which takes its name when the block ends, and goes when the block fails.

    What a killed process left of the same folder is removed. A folder that has the name already is replaced.

    Args:
        final: The name.

    Raises:
        RunError: Another process is making the same folder, something else is in its place, or the disk is full.
    """
    temporary = final.parent / f".{final.name}.export.tmp"
    with full_disk_is_run_error(final), _hold_new(temporary, final):
        try:
            yield temporary
            _sync_files(temporary)
            if final.exists():
                shutil.rmtree(final)
            os.rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(final.parent)


@contextmanager
def _hold_new(temporary: Path, final: Path) -> Iterator[None]:
    """Make a folder, or empty the one that a killed process left, and keep others from it, also while it is renamed."""
    while True:
        if reason := explain_odd_file(temporary, is_folder=True):
            raise RunError(reason, where=str(temporary), hint=ODD_HINT)
        temporary.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # another process has ended since
        try:
            _lock(handle, final)
            if _is_folder_at(handle, temporary):
                _empty(temporary)
                yield
                return
        finally:
            os.close(handle)


def _lock(handle: int, final: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = "Wait for it, or name another folder with --out."
        raise RunError("another process is exporting into this folder", where=str(final), hint=hint) from None
    except OSError:
        return  # some file systems lock no folders


def _is_folder_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sync_files(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
