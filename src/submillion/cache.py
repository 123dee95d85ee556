"""Results kept between runs: flat arrays, in files named by a digest of everything that they depend on.

A file is used only if it is in a folder that only this user can write to, and if its content has the digest that it was
written with. The digest finds damage, and the folder keeps out files from others. Nothing in the cache is ever
executed, and runs give the same results without it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache as remember
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from submillion import __version__
from submillion.errors import ConfigError, RunError
from submillion.storage.files import write_bytes
from submillion.storage.private_folders import (
    CACHE_OFF,
    CACHE_SETTING,
    explain_distrust,
    find_cache_folder,
    make_private_folder,
)

MAX_BYTES = 4 << 30
"""Largest size of the folder; the least recently used files are removed first."""

_FORMAT = "1"
# Only files with such names are ever removed, since the folder may hold other files.
_OWN_NAME = re.compile(r"[a-z]+-[0-9a-f]{40}\.safetensors")
_OWN_LEFTOVER = re.compile(rf"\.{_OWN_NAME.pattern}\..*\.tmp")
_LEFTOVER_S = 24 * 3600  # an older file under a temporary name was left by a killed process

Arrays = dict[str, NDArray[Any]]
Note = Callable[[str], None]


def open_cache(on_note: Note) -> Cache:
    """Return the user's cache of data, or one that keeps nothing if the cache is off.

    Args:
        on_note: Called with notes for the user, such as on a damaged file.
    """
    if os.environ.get(CACHE_SETTING) == CACHE_OFF:
        return Cache(None, on_note=on_note)
    try:
        folder = find_cache_folder() / "data"
    except ConfigError as error:
        on_note(f"nothing is kept between runs: {error.where}: {error.message}")
        return Cache(None, on_note=on_note)
    reason = explain_distrust(folder)
    if reason:
        on_note(
            f"nothing is kept between runs, and no kept file is used: {reason}; "
            f"{CACHE_SETTING}=/path/to/folder names another folder"
        )
        return Cache(None, on_note=on_note)
    return Cache(folder, on_note=on_note)


def digest_parts(*parts: str | bytes | NDArray[Any]) -> str:
    """Return one SHA-256 of several values, each with its length, so that different lists have different digests.

    An array counts only by its bytes, in C order.
    """
    digest = hashlib.sha256()
    for part in parts:
        content: Any = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        data = memoryview(content)
        digest.update(data.nbytes.to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


@remember
def digest_code(*names: str) -> str:
    """Return a digest of the code: the versions of Python and of this package, and the source of some modules.

    So results of other code are never used, even if the version has not changed.

    Args:
        names: Modules and folders of modules, relative to the package's folder.
    """
    package = Path(__file__).parent
    parts: list[str | bytes] = [sys.version, unicodedata.unidata_version, np.__version__, __version__]
    for name in names:
        path = package / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            with suppress(OSError):  # without sources, the version has to do
                parts += [file.name, file.read_bytes()]
    return digest_parts(*parts)


class Cache:
    """A folder of results.

    Args:
        folder: Path of the folder, made when the first result is stored; None keeps nothing.
        on_note: Called with notes for the user, such as on a damaged file.
        max_bytes: Largest size of the folder.
    """

    def __init__(self, folder: Path | None, *, on_note: Note, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._note = on_note
        self._max_bytes = max_bytes

    def load(self, kind: str, key: str) -> Arrays | None:
        """Return a stored result, or None if there is none; a damaged file is removed.

        Args:
            kind: Kind of the result, with which the file's name begins.
            key: Digest of everything that the result depends on.
        """
        path = self._find_path(kind, key)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                stored = file.metadata() or {}
                arrays: Arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        except FileNotFoundError:  # another process removed it to make room
            return None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            self._drop(path, str(error))
            return None
        if stored != self._describe(kind, key, arrays):
            self._drop(path, "its content has another digest")
            return None
        with suppress(OSError):  # a read-only folder is fine
            os.utime(path)  # a file used now is the last to be removed
        return arrays

    def store(self, kind: str, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep a result, whole or not at all; if that fails, a note says why."""
        path = self._find_path(kind, key)
        if path is None:
            return
        contiguous = {name: np.ascontiguousarray(value) for name, value in sorted(arrays.items())}
        payload = save(contiguous, metadata=self._describe(kind, key, contiguous))
        if len(payload) > self._max_bytes:
            return
        try:
            # Texts may be private, so only their owner may read the folder.
            if reason := make_private_folder(path.parent):
                raise RunError(reason)
            write_bytes(path, payload)
            self._make_room(path)
        except (OSError, RunError) as error:
            reason = error.message if isinstance(error, RunError) else error.strerror or str(error)
            self._note(f"cannot keep results in {path.parent}: {reason}; {CACHE_SETTING}={CACHE_OFF} saves the attempt")

    def _find_path(self, kind: str, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{kind}-{key[:40]}.safetensors"

    def _describe(self, kind: str, key: str, arrays: Arrays) -> dict[str, str]:
        parts: list[str | NDArray[Any]] = []
        for name, value in arrays.items():
            parts += [name, f"{value.dtype.str} {value.shape}", value]
        return {"format": _FORMAT, "kind": kind, "key": key, "sha256": digest_parts(*parts)}

    def _drop(self, path: Path, reason: str) -> None:
        self._note(f"{path} is damaged ({reason}); its content is made again")
        with suppress(OSError):  # if it stays, it is noticed again
            path.unlink(missing_ok=True)

    def _make_room(self, newest: Path) -> None:
        kept: list[tuple[float, int, Path]] = []
        for path in newest.parent.iterdir():
            with suppress(FileNotFoundError):  # other processes may remove it too
                status = path.stat()
                if _OWN_LEFTOVER.fullmatch(path.name) and status.st_mtime < time.time() - _LEFTOVER_S:
                    path.unlink()
                elif _OWN_NAME.fullmatch(path.name) and path != newest:
                    kept.append((status.st_mtime, status.st_size, path))
        free = self._max_bytes - newest.stat().st_size
        for _, size, path in sorted(kept, reverse=True):
            free -= size
            if free < 0:
                path.unlink(missing_ok=True)


def pack_strings(strings: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return strings as UTF-8 bytes end to end, and the end of each."""
    encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def unpack_strings(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[str]:
    """Return the strings that `pack_strings` packed."""
    whole, stops = data.tobytes(), ends.tolist()
    pairs = zip([0, *stops], stops, strict=False)
    return [whole[start:stop].decode("utf-8", "surrogatepass") for start, stop in pairs]
