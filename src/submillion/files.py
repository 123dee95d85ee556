"""Work on files that must not go wrong: whole writes, reads that follow no links and never wait, locks, and JSON."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from submillion.errors import ConfigError, RunError

MAX_JSON_BYTES = 64 << 20
"""Largest JSON file that is read; those of a run with a thousand classes stay far below it."""

MAX_LOG_BYTES = 1 << 30
"""Largest log that is read, some three million steps."""

_FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Libraries in Rust say in their message alone what the system has said.
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def full_disk_is_run_error(path: Path) -> Iterator[None]:
    """Turn a full disk or exceeded quota into a `RunError` that names the file."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        reason = _find_full_disk(error)
        if reason is None:
            raise
        raise RunError(
            f"cannot be written: {reason}",
            where=str(path),
            hint="Free some space, then continue with --resume; nothing written before is lost.",
        ) from error


def _find_full_disk(error: Exception) -> str | None:
    """Return what the system says where it was the disk, whichever library passes it on."""
    code = error.errno if isinstance(error, OSError) else None
    if code is None and (told := _SYSTEM_ERROR.search(str(error))):
        code = int(told[1])
    return os.strerror(code) if code in _FULL_DISK and code is not None else None


@contextmanager
def hold_folder(lock: Path, *, doing: str, hint: str = "Wait for it, or stop it.") -> Iterator[None]:
    """Keep a folder for this process; the system lets go of it with the process, however that ends.

    Args:
        lock: A file in the folder, made if absent; what stands in it is left as it is.
        doing: What processes do there, for the error message.
        hint: What to do where another one is at it.

    Raises:
        RunError: Another process holds the folder, or a link or something else stands in the lock's place.
    """
    while True:
        with os.fdopen(open_plain(lock, os.O_RDWR | os.O_CREAT), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                place = str(lock.parent)
                raise RunError(f"another process is {doing} in this folder", where=place, hint=hint) from None
            # Who held it before may have removed the file in the meantime, and then others lock another one.
            if not _is_file_at(file.fileno(), lock):
                continue
            yield
            return


def _is_file_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def open_plain(path: Path, flags: int, *, follows_links: bool = False) -> int:
    """Open a regular file that is no link, without ever waiting for anybody, and return its descriptor.

    Args:
        path: The file; folders on the way to it may be links.
        flags: As for `os.open`.
        follows_links: Whether the file may be a link to a regular one, as in the hub's cache.

    Raises:
        FileNotFoundError: There is none.
        RunError: A link, a folder, a pipe or a device stands in its place, or the system refuses.
    """
    try:
        kept = 0 if follows_links else os.O_NOFOLLOW
        handle = os.open(path, flags | kept | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        # A socket and a pipe that nobody reads are told as ENXIO.
        reason = explain_odd_file(path) or f"cannot be opened: {error.strerror}"
        raise RunError(reason, where=str(path), hint=ODD_HINT if explain_odd_file(path) else "") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RunError(explain_odd_file(path) or "is no file", where=str(path), hint=ODD_HINT)
    return handle


ODD_HINT = (
    "Only ordinary files are used here. Put the real file in its place, or take the folder from its source again."
)


def explain_odd_file(path: Path, *, is_folder: bool = False) -> str:
    """Return what stands in a file's place, such as ``is a link to ...``; empty where it is what should be there.

    Args:
        path: The file or folder; absent ones are not odd.
        is_folder: Whether a folder should be there.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        return f"cannot be looked at: {error}"
    if stat.S_ISLNK(mode):
        return f"is a link to {os.readlink(path)}, and links are not followed here"
    if stat.S_ISDIR(mode):
        return "" if is_folder else "is a folder, where a file should be"
    if not stat.S_ISREG(mode):
        return "is a pipe or a device, where a file should be"
    return "is a file, where a folder should be" if is_folder else ""


def explain_stray_link(path: Path) -> str:
    """Return where a link leads that leaves its folder, as the end of a sentence; empty for everything else.

    Links of the hub's cache, which lead from a snapshot to the blobs of its repository, are no strays.
    """
    if not path.is_symlink():
        return ""
    target, folder = path.resolve(), path.parent.resolve()
    homes = (folder, folder.parents[1] / "blobs") if len(folder.parents) > 1 else (folder,)
    return "" if any(target.is_relative_to(home) for home in homes) else f"is a link to {target}, out of its folder"


def read_plain(path: Path, max_bytes: int = MAX_JSON_BYTES, *, follows_links: bool = False) -> bytes:
    """Return the content of a regular file that is no link.

    Args:
        path: The file.
        max_bytes: Largest size.
        follows_links: As for `open_plain`.

    Raises:
        FileNotFoundError: There is none.
        RunError: It is something else, too large, or cannot be read.
    """
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY, follows_links=follows_links), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise RunError(f"has {size:,} bytes; at most {max_bytes:,} are read", where=str(path))
            return file.read(size)  # asked for more, it allocates more
    except NotADirectoryError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise RunError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def read_plain_text(path: Path, max_bytes: int = MAX_JSON_BYTES) -> str:
    """Return the UTF-8 text of a regular file that is no link.

    Raises:
        FileNotFoundError: There is none.
        RunError: It is something else, too large, not readable or no UTF-8.
    """
    try:
        return read_plain(path, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"is damaged: it is no UTF-8 text ({error})", where=str(path)) from None


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that other processes see the old content or the new one, never a part.

    What killed writers of the same file left beside it is removed.

    Args:
        path: The file; its folder is made if absent.
        write: Called with the open temporary file.

    Raises:
        RunError: The disk is full.
    """
    with full_disk_is_run_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        handle, temporary = _open_temporary(path)
        try:
            # It has its name before it is closed: closing lets go of the lock, and then it would pass for a leftover.
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(handle)
                os.fchmod(handle, 0o666 & ~_umask())
                os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def _open_temporary(path: Path) -> tuple[int, str]:
    """Return a new file beside another one, locked while it is open, so that `_remove_stale` leaves it alone."""
    while True:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with suppress(OSError):  # a file system without locks; then nothing is taken for stale either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(temporary):
            return handle, temporary
        os.close(handle)  # another process had it before the lock did


def _remove_stale(path: Path) -> None:
    """Remove what killed writers of one file left beside it; the temporary files of living ones are locked."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        with suppress(OSError):
            handle = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if stat.S_ISREG(os.fstat(handle).st_mode):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    leftover.unlink()
            finally:
                os.close(handle)


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


def parse_json(content: bytes) -> Any:
    """Return the value of JSON text as this package writes it.

    Raises:
        ValueError: It is no UTF-8 or no JSON, is nested too deeply, or holds half of a character or a number that is
            not finite or has more than 64 bits.
    """
    try:
        value = json.loads(
            content.decode("utf-8"), parse_constant=_refuse_number, parse_int=_read_int, parse_float=_read_float
        )
        if b"\\ud" in content.lower():
            # Half a surrogate pair passes as text here and fails wherever it is to be written.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text[:40]} is no number that is used here")


def _read_int(text: str) -> int:
    # The longest one of 64 bits has 20 characters.
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 64:
        _refuse_number(text)
    return value


def _read_float(text: str) -> float:
    value = float(text)
    return value if abs(value) != float("inf") else _refuse_number(text)


def read_json(path: Path, *, follows_links: bool = False) -> dict[str, Any]:
    """Read a JSON object of a run folder.

    Args:
        path: The file.
        follows_links: As for `open_plain`.

    Raises:
        RunError: The file is missing, is a link, or is no JSON object.
    """
    try:
        values = parse_json(read_plain(path, follows_links=follows_links))
    except FileNotFoundError:
        raise RunError(
            "is missing", where=str(path), hint="Is this a run folder, and did its training come to the end?"
        ) from None
    except ValueError as error:
        raise RunError(f"is damaged: {error}", where=str(path)) from None
    if not isinstance(values, dict):
        raise RunError(f"is damaged: expected an object, found {type(values).__name__}", where=str(path))
    return values


def read_log(path: Path, num_bytes: int | None = None) -> list[dict[str, Any]]:
    """Read log.jsonl; an unfinished last line, as a kill leaves it, is left out.

    Args:
        path: The file; an absent one has no lines.
        num_bytes: Length of the beginning that is read; all if None.

    Raises:
        RunError: A line before the last is damaged.
    """
    try:
        lines = read_plain(path, MAX_LOG_BYTES)[:num_bytes].split(b"\n")
    except FileNotFoundError:
        return []
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = parse_json(line)
        except ValueError as error:
            raise RunError(f"is damaged: {error}", where=f"{path}:{number}") from None
        if not isinstance(entry, dict):
            raise RunError(f"is damaged: expected an object, found {type(entry).__name__}", where=f"{path}:{number}")
        entries.append(entry)
    return entries


def expand_home(path: str, *, where: str = "", hint: str = "Write the folder out in full.") -> Path:
    """Return a path with ``~`` and ``~user`` at its beginning replaced by that home folder.

    Args:
        path: The path as the user wrote it.
        where: What it was given for, for the error message; the path itself if empty.
        hint: What to do about it.

    Raises:
        ConfigError: There is no such user, or nothing says where the home of this one is.
    """
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):
        raise ConfigError(
            f"nothing says which folder {path.partition('/')[0]} is", where=where or path, hint=hint
        ) from None
