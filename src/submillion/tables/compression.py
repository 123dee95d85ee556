"""Read the bytes of a file block by block, and unpack a compressed file within limits."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from submillion.errors import DataError, SubmillionError

PACKINGS = (".gz", ".bz2", ".xz", ".zip")
BLOCK_BYTES = 1 << 18

MAX_RATIO = 60
"""Largest ratio of unpacked to compressed size. Prose compresses by 3 to 5, and machines' logs by 20."""

FREE_BYTES = 4 << 20
"""Bytes that may be unpacked at any ratio, since small files of repeated rows compress well."""


def iter_blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in blocks, unpacked if its name ends in one of `PACKINGS`.

    Raises:
        DataError: The file cannot be read, is damaged, or unpacks to more than `MAX_RATIO` times its size.
    """
    with readable(path), path.open("rb") as file:
        if path.suffix.lower() not in PACKINGS:
            while block := file.read(BLOCK_BYTES):
                yield block
            return
        with _unpack(path, file) as unpacked:
            num_bytes = 0
            while block := unpacked.read(BLOCK_BYTES):
                num_bytes += len(block)
                if num_bytes > FREE_BYTES + MAX_RATIO * file.tell():
                    raise _bomb(path)
                yield block


def name_content(path: Path) -> str:
    """Return the name of a file's content: its name without the ending of a compression, or that of a zip's member.

    Raises:
        DataError: A zip file is damaged, or does not hold exactly one file.
    """
    suffix = path.suffix.lower()
    if suffix != ".zip":
        return path.stem if suffix in PACKINGS else path.name
    with readable(path), zipfile.ZipFile(path) as archive:
        return PurePosixPath(_find_member(path, archive).filename).name


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of reading a damaged or unreadable file into a `DataError` that names the file."""
    try:
        yield
    except SubmillionError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the compressed file is cut off or damaged: {error}",
            where=str(path),
            hint="Fetch or compress the file again.",
        ) from None
    # zipfile raises the first two for ciphers and unknown methods, and any of these for damaged directories.
    except (NotImplementedError, RuntimeError, MemoryError, ValueError, LookupError, struct.error) as error:
        if path.suffix.lower() not in PACKINGS:
            raise
        raise DataError(
            f"the compressed file cannot be unpacked: {error or type(error).__name__}",
            where=str(path),
            hint="Unpack it with another program, and give its content.",
        ) from None
    except OSError as error:
        if error.errno is None and path.suffix.lower() in PACKINGS:  # bz2 reports damage like this
            raise DataError(
                f"the compressed file is cut off or damaged: {error}",
                where=str(path),
                hint="Fetch or compress the file again.",
            ) from None
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


@contextmanager
def _unpack(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(file) as archive:
            member = _find_member(path, archive)
            # A member never unpacks to more than its header declares.
            if member.file_size > FREE_BYTES + MAX_RATIO * member.compress_size:
                raise _bomb(path)
            with archive.open(member) as unpacked:
                yield unpacked
        return
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    with openers[path.suffix.lower()](file, "rb") as unpacked:
        yield unpacked


def _find_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    # The file manager of macOS adds a folder with metadata of each file.
    members = [m for m in archive.infolist() if not m.filename.endswith("/") and not m.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        names = ", ".join(member.filename[:60] for member in members[:10]) or "nothing"
        raise DataError(
            f"a zip file must hold one file of rows; this one holds {names}",
            where=str(path),
            hint="Unpack it and give the file or the folder.",
        )
    return members[0]


def _bomb(path: Path) -> DataError:
    return DataError(
        f"it unpacks to more than {MAX_RATIO} times its size",
        where=str(path),
        hint="If the file is intact, unpack it yourself and give its content.",
    )
