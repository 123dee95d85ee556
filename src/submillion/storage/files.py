"""Safe work on files: whole writes, reads that follow no links and never wait, locks, and JSON."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from submillion.errors import ConfigError, RunError
from submillion.storage.json_shapes import JsonObject, JsonView

MAX_JSON_BYTES = 64 << 20
"""Largest JSON file that is read; the files of a run with a thousand classes are far smaller."""

MAX_LOG_BYTES = 1 << 30
"""Largest log that is read, with about three million steps."""

_FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Libraries in Rust give the system's error number only in their message.
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
            hint="Free some space, then continue with --resume; earlier files are not lost.",
        ) from error


def _find_full_disk(error: Exception) -> str | None:
    """Return the system's message if the disk was the cause, whichever library raised the error."""
    code = error.errno if isinstance(error, OSError) else None
    if code is None and (told := _SYSTEM_ERROR.search(str(error))):
        code = int(told[1])
    return os.strerror(code) if code in _FULL_DISK and code is not None else None


@contextmanager
def hold_folder(lock: Path, *, doing: str, hint: str = "Wait for it, or stop it.") -> Iterator[None]:
    """Keep a folder for this process; the system releases it when the process ends in any way.

    Args:
        lock: File in the folder, made if absent; its content is not changed.
        doing: Work of the processes there, for the error message.
        hint: Advice if another process holds the folder.

    Raises:
        RunError: Another process holds the folder, or the lock is a link or no ordinary file.
    """
    while True:
        with os.fdopen(open_plain(lock, os.O_RDWR | os.O_CREAT), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                place = str(lock.parent)
                raise RunError(f"another process is {doing} in this folder", where=place, hint=hint) from None
            # An earlier holder may have removed the file in the meantime, and then others lock a new one.
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
    """Open a regular file that is not a link, without ever waiting, and return its descriptor.

    Args:
        path: Path of the file; folders on the way to it may be links.
        flags: Flags for `os.open`.
        follows_links: Whether the file may be a link to a regular one, as in the hub's cache.

    Raises:
        FileNotFoundError: There is no such file.
        RunError: The path is a link, a folder, a pipe or a device, or the system refuses.
    """
    try:
        kept = 0 if follows_links else os.O_NOFOLLOW
        handle = os.open(path, flags | kept | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        # A socket, and a pipe without a reader, raise ENXIO.
        reason = explain_odd_file(path) or f"cannot be opened: {error.strerror}"
        raise RunError(reason, where=str(path), hint=ODD_HINT if explain_odd_file(path) else "") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RunError(explain_odd_file(path) or "is not a file", where=str(path), hint=ODD_HINT)
    return handle


ODD_HINT = (
    "Only ordinary files are used here. Put the real file in its place, or take the folder from its source again."
)


def explain_odd_file(path: Path, *, is_folder: bool = False) -> str:
    """Return what is in a file's place, such as ``is a link to ...``; empty if it is of the right kind.

    Args:
        path: Path of the file or folder; absent ones are not odd.
        is_folder: Whether a folder should be there.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        return f"cannot be examined: {error}"
    if stat.S_ISLNK(mode):
        return f"is a link to {os.readlink(path)}, and links are not followed here"
    if stat.S_ISDIR(mode):
        return "" if is_folder else "is a folder, where a file should be"
    if not stat.S_ISREG(mode):
        return "is a pipe or a device, where a file should be"
    return "is a file, where a folder should be" if is_folder else ""


def explain_stray_link(path: Path) -> str:
    """Return the target of a link that leaves its folder, as the end of a sentence; empty for everything else.

    Links of the hub's cache, which lead from a snapshot to the blobs of its repository, are allowed.
    """
    if not path.is_symlink():
        return ""
    target, folder = path.resolve(), path.parent.resolve()
    homes = (folder, folder.parents[1] / "blobs") if len(folder.parents) > 1 else (folder,)
    return "" if any(target.is_relative_to(home) for home in homes) else f"is a link to {target}, out of its folder"


def read_plain(path: Path, max_bytes: int = MAX_JSON_BYTES, *, follows_links: bool = False) -> bytes:
    """Return the content of a regular file that is not a link.

    Args:
        path: Path of the file.
        max_bytes: Largest size.
        follows_links: Whether the file may be a link, as for `open_plain`.

    Raises:
        FileNotFoundError: There is no such file.
        RunError: The path is something else, or the file is too large or cannot be read.
    """
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY, follows_links=follows_links), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise RunError(f"has {size:,} bytes; at most {max_bytes:,} are read", where=str(path))
            return file.read(size)  # a larger number would allocate more memory
    except NotADirectoryError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise RunError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def read_plain_text(path: Path, max_bytes: int = MAX_JSON_BYTES) -> str:
    """Return the UTF-8 text of a regular file that is not a link.

    Raises:
        FileNotFoundError: There is no such file.
        RunError: The path is something else, or the file is too large, not readable or no UTF-8.
    """
    try:
        return read_plain(path, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"is damaged: it is not UTF-8 text ({error})", where=str(path)) from None


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that other processes see the old content or the new content, never a part.

    Files that killed writers of the same file left beside it are removed.

    Args:
        path: Path of the file; its folder is made if absent.
        write: Function that is called with the open temporary file.

    Raises:
        RunError: The disk is full.
    """
    with full_disk_is_run_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        handle, temporary = _open_temporary(path)
        try:
            # It is renamed before it is closed, since closing releases the lock, and then it would count as a leftover.
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
        with suppress(OSError):  # without locks in the file system, no file counts as stale
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(temporary):
            return handle, temporary
        os.close(handle)  # another process took it before it was locked


def _remove_stale(path: Path) -> None:
    """Remove the files that killed writers of one file left beside it; files of living writers are locked."""
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
    """Flush a folder's entries, so that a rename in it survives a power failure."""
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


def write_json(path: Path, values: JsonView) -> None:
    """Write an object as indented JSON, atomically; NaN and infinities are refused."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def parse_json(content: bytes) -> Any:
    """Return the value of JSON text as this package writes it.

    Raises:
        ValueError: The text is not UTF-8 or not JSON, is nested too deeply, or holds half a character or a number that
            is not finite or has more than 64 bits.
    """
    try:
        value = json.loads(
            content.decode("utf-8"), parse_constant=_refuse_number, parse_int=_read_int, parse_float=_read_float
        )
        if b"\\ud" in content.lower():
            # Half a surrogate pair passes as text here and would fail when it is written.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _refuse_number(text: str) -> float:
    raise ValueError(f"the number {text[:40]} is out of range")


def _read_int(text: str) -> int:
    # The longest number of 64 bits has 20 characters.
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 64:
        _refuse_number(text)
    return value


def _read_float(text: str) -> float:
    value = float(text)
    return value if abs(value) != float("inf") else _refuse_number(text)


def read_json(path: Path, *, follows_links: bool = False) -> JsonObject:
    """Read a JSON object of a run folder.

    Args:
        path: Path of the file.
        follows_links: Whether the file may be a link, as for `open_plain`.

    Raises:
        RunError: The file is missing, is a link, or is not a JSON object.
    """
    try:
        values = parse_json(read_plain(path, follows_links=follows_links))
    except FileNotFoundError:
        raise RunError(
            "is missing", where=str(path), hint="Is this a run folder, and did its training finish?"
        ) from None
    except ValueError as error:
        raise RunError(f"is damaged: {error}", where=str(path)) from None
    if not isinstance(values, dict):
        raise RunError(f"is damaged: expected an object, found {type(values).__name__}", where=str(path))
    return values


def read_log(path: Path, num_bytes: int | None = None) -> list[JsonObject]:
    """Read log.jsonl; an unfinished last line, which a kill leaves, is ignored.

    Args:
        path: Path of the file; an absent one has no lines.
        num_bytes: Number of bytes to read from the beginning; all if None.

    Raises:
        RunError: A line before the last is damaged.
    """
    try:
        lines = read_plain(path, MAX_LOG_BYTES)[:num_bytes].split(b"\n")
    except FileNotFoundError:
        return []
    entries: list[JsonObject] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = parse_json(line)
        except ValueError as error:
            raise RunError(f"is damaged: {error}", where=f"{path}:{number}") from None
        if not isinstance(entry, dict):
            raise RunError(f"is damaged: expected an object, found {type(entry).__name__}", where=f"{path}:{number}")
        entries.append(entry)
    return entries


def expand_home(path: str, *, where: str = "", hint: str = "Write the full path of the folder.") -> Path:
    """Return a path with ``~`` and ``~user`` at its beginning replaced by that home folder.

    Args:
        path: Path as the user wrote it.
        where: Setting or argument that the path was given for, for the error message; the path itself if empty.
        hint: Advice, for the error message.

    Raises:
        ConfigError: There is no such user, the home folder is not known, or no file system takes such a path.
    """
    try:
        expanded = Path(path).expanduser()
        os.lstat(expanded)
    except RuntimeError:
        raise ConfigError(f"the folder {path.partition('/')[0]} is not known", where=where or path, hint=hint) from None
    except ValueError:  # a NUL, or half a character
        raise ConfigError(f"{path!r:.80} holds a character that no path has", where=where or "path") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"{path[:60]!r}... is too long for a path", where=where or "path") from None
    return expanded
