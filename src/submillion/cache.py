"""Results that are kept between runs: flat arrays, in files named by a digest of all that they follow from.

A file is believed only if it lies in a folder that nobody but this user can write to, and if its content has the digest
that it was written with: the digest finds damage, and the folder keeps out what others have made up. Nothing in here is
ever executed, and nothing depends on it: without the folder, runs give the same results.
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
"""Largest size of the folder; the files that were not used for the longest time go first."""

_FORMAT = "1"
# Files of this name alone are ever removed: the folder may be one that holds other things.
_OWN_NAME = re.compile(r"[a-z]+-[0-9a-f]{40}\.safetensors")
_OWN_LEFTOVER = re.compile(rf"\.{_OWN_NAME.pattern}\..*\.tmp")
_LEFTOVER_S = 24 * 3600  # after which a file under its temporary name was left by a process that was killed

Arrays = dict[str, NDArray[Any]]
Note = Callable[[str], None]


def open_cache(on_note: Note) -> Cache:
    """Return the user's cache of data; one that keeps nothing where that is off.

    Args:
        on_note: Told what a user should know, such as of a damaged file.
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
            f"nothing is kept between runs, and nothing kept is believed: {reason}; "
            f"{CACHE_SETTING}=/path/to/folder names one of your own"
        )
        return Cache(None, on_note=on_note)
    return Cache(folder, on_note=on_note)


def digest_parts(*parts: str | bytes | NDArray[Any]) -> str:
    """Return one SHA-256 of several values, each with its length, so that no two lists of values agree by chance.

    Of an array, in C order, only the bytes count.
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
    """Return a digest of what computes: Python's version, this package's, and the source of some of its modules.

    Results of other code are not taken for this code's, whether or not its version has changed.

    Args:
        names: Modules and folders of modules, from the package's folder.
    """
    package = Path(__file__).parent
    parts: list[str | bytes] = [sys.version, unicodedata.unidata_version, np.__version__, __version__]
    for name in names:
        path = package / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            with suppress(OSError):  # an installation without sources has its version
                parts += [file.name, file.read_bytes()]
    return digest_parts(*parts)


class Cache:
    """A folder of results.

    Args:
        folder: Made when the first result is stored; None keeps nothing.
        on_note: Told what a user should know, such as of a damaged file.
        max_bytes: Largest size of the folder.
    """

    def __init__(self, folder: Path | None, *, on_note: Note, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._note = on_note
        self._max_bytes = max_bytes

    def load(self, kind: str, key: str) -> Arrays | None:
        """Return a stored result, or None where there is none, or only a damaged one, which is removed.

        Args:
            kind: What the result is; begins the file's name.
            key: Digest of all that it follows from.
        """
        path = self._find_path(kind, key)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                stored = file.metadata() or {}
                arrays: Arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        except FileNotFoundError:  # another process has made room
            return None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            self._drop(path, str(error))
            return None
        if stored != self._describe(kind, key, arrays):
            self._drop(path, "its content has another digest")
            return None
        with suppress(OSError):  # a folder that can only be read serves as well
            os.utime(path)  # used now: the last to go
        return arrays

    def store(self, kind: str, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep a result, whole or not at all; where that is not possible, a note says why."""
        path = self._find_path(kind, key)
        if path is None:
            return
        contiguous = {name: np.ascontiguousarray(value) for name, value in sorted(arrays.items())}
        payload = save(contiguous, metadata=self._describe(kind, key, contiguous))
        if len(payload) > self._max_bytes:
            return
        try:
            # Texts may be private: only their owner may look into the folder.
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
        self._note(f"{path} is damaged ({reason}); what it held is made again")
        with suppress(OSError):  # it is damaged still, and will be noticed again
            path.unlink(missing_ok=True)

    def _make_room(self, newest: Path) -> None:
        kept: list[tuple[float, int, Path]] = []
        for path in newest.parent.iterdir():
            with suppress(FileNotFoundError):  # other processes make room too
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
    """Return strings as UTF-8 bytes end to end, and where each one ends."""
    encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def unpack_strings(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[str]:
    """Return the strings that `pack_strings` has packed."""
    whole, stops = data.tobytes(), ends.tolist()
    pairs = zip([0, *stops], stops, strict=False)
    return [whole[start:stop].decode("utf-8", "surrogatepass") for start, stop in pairs]
