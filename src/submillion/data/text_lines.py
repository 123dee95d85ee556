"""The lines of a text file: which encoding it has, where its lines end, and the lines as a stream."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from submillion.data.compression import iter_blocks
from submillion.errors import DataError

MAX_LINE_CHARS = 16 << 20
"""Longest physical line, so that a file without line ends cannot fill the memory."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Bytes that Windows-1252 does not define, and runs that only other alphabets and two-byte encodings have.
_NOT_WESTERN = re.compile(rb"[\x81\x8d\x8f\x90\x9d]|[\xc0-\xff]{4}|[\x80-\xff]{7}")
_DOS_END = "\x1a"
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


@dataclass(frozen=True)
class TextForm:
    r"""How a text file is written.

    Attributes:
        encoding: Name of its encoding, as Python knows it.
        line_end: ``\n``, or ``\r`` where the whole file has no other.
        notes: What was guessed, one sentence each.
    """

    encoding: str
    line_end: str
    notes: tuple[str, ...] = ()


def examine_text(path: Path) -> TextForm:
    """Read a file once, a block in memory, and find out how it is written.

    The encoding is what a byte order mark says, else UTF-8; what is not UTF-8 is Windows-1252 where nothing speaks
    against that, as spreadsheets in Western Europe and America write it.

    Raises:
        DataError: Other encodings, a NUL byte, an unreadable or damaged file; with the line.
    """
    encoding = _find_mark(path)
    notes: list[str] = []
    try:
        line_end, ends_like_dos = _scan(path, encoding)
    except UnicodeDecodeError as error:
        if encoding not in {"utf-8", "utf-8-sig"}:
            raise DataError(
                f"the file begins like {_name(encoding)}, but is not: {error.reason}",
                where=str(path),
                hint="Save it again, as UTF-8.",
            ) from None
        sample = _sample_western(path) if encoding == "utf-8" else None
        if sample is None:
            raise _not_utf8(path) from None
        encoding = "cp1252"
        line_end, ends_like_dos = _scan(path, encoding)
        notes.append(
            f"{path.name}: is not UTF-8 and is read as Windows-1252, so that it says {sample!r}; "
            "if that is wrong, save it as UTF-8"
        )
    if ends_like_dos:
        notes.append(f"{path.name}: the end mark of DOS (Ctrl-Z) after the last row is left out")
    if encoding in {"utf-16", "utf-32"}:
        notes.append(f"{path.name}: is read as {_name(encoding)}, by its byte order mark")
    return TextForm(encoding, line_end, tuple(notes))


def iter_lines(path: Path, form: TextForm | None = None) -> Iterator[str]:
    """Yield the lines of a text file, ends included, holding a block at a time.

    Args:
        path: The file.
        form: How it is written, where that is known already.

    Raises:
        DataError: As `examine_text`, and an endless line; with the line.
    """
    form = form or examine_text(path)
    for lines in _iter_whole_lines(path, form):
        yield from io.StringIO(lines, newline=form.line_end)


def iter_text(path: Path, form: TextForm) -> Iterator[str]:
    """Yield the text of a file in pieces of at most a block, without the mark that ends files of DOS.

    Raises:
        DataError: The file cannot be read, or has changed since its form was found.
    """
    decoder = codecs.getincrementaldecoder(form.encoding)()
    try:
        held = ""
        for block in iter_blocks(path):
            yield held
            held = decoder.decode(block)
        yield (held + decoder.decode(b"", final=True)).removesuffix(_DOS_END)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None


def _iter_whole_lines(path: Path, form: TextForm) -> Iterator[str]:
    begun: list[str] = []
    num_begun, num_lines = 0, 0
    for text in iter_text(path, form):
        end = text.rfind(form.line_end) + 1
        if end:
            lines = "".join([*begun, text[:end]])
            num_lines += lines.count(form.line_end)
            yield lines
            begun, num_begun = [], 0
        begun.append(text[end:])
        num_begun += len(text) - end
        if num_begun > MAX_LINE_CHARS:
            raise DataError(
                f"the line is longer than {MAX_LINE_CHARS:,} characters",
                where=f"{path}:{num_lines + 1}",
                hint="Is this a file of rows?",
            )
    if num_begun:
        yield "".join(begun)


def _find_mark(path: Path) -> str:
    start = next(iter_blocks(path), b"")[:4]
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), "utf-8")


def _name(encoding: str) -> str:
    return encoding.upper().removesuffix("-SIG")


def _scan(path: Path, encoding: str) -> tuple[str, bool]:
    """Decode a whole file, and return its line end and whether it ends with the mark of files of DOS."""
    decoder = codecs.getincrementaldecoder(encoding)()
    num_lines, has_return, last = 0, False, ""
    for block in iter_blocks(path):
        text = decoder.decode(block)
        nul = text.find("\0")
        if nul >= 0:
            raise DataError(
                "the line holds a NUL byte",
                where=f"{path}:{num_lines + text.count(chr(10), 0, nul) + 1}",
                hint="The file is damaged, is not text, or is UTF-16 without a byte order mark; save it as UTF-8.",
            )
        num_lines += text.count("\n")
        has_return = has_return or "\r" in text
        last = text[-1:] or last
    decoder.decode(b"", final=True)
    return "\r" if has_return and not num_lines else "\n", last == _DOS_END


def _sample_western(path: Path) -> str | None:
    """Return some words that show how a file reads in Windows-1252, or None where it is written otherwise."""
    sample = ""
    for block in iter_blocks(path):
        # A character of UTF-8 anywhere says that the file is UTF-8, and damaged.
        if not block.decode("utf-8", "ignore").isascii() or _NOT_WESTERN.search(block):
            return None
        if not sample and not block.isascii():
            text = block.decode("cp1252")
            found = _BEYOND_ASCII.search(text)
            start = found.start() if found is not None else 0
            line = max(text.rfind(end, 0, start) for end in "\r\n") + 1
            sample = text[max(line, start - 20) : start + 30].splitlines()[0]
    return sample


def _not_utf8(path: Path) -> DataError:
    number, start = 1, b""
    for block in iter_blocks(path):
        lines = (start + block).split(b"\n")
        for line in lines[:-1]:
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return _bad_byte(path, number, line[error.start], error.start)
            number += 1
        start = lines[-1]
        if len(start) > MAX_LINE_CHARS:
            break
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return _bad_byte(path, number, start[error.start], error.start)
    return DataError("the file has changed while it was read", where=str(path), hint="Run the command again.")


def _bad_byte(path: Path, number: int, byte: int, position: int) -> DataError:
    return DataError(
        f"byte 0x{byte:02x} at position {position} of the line is not UTF-8",
        where=f"{path}:{number}",
        hint="Save the file as UTF-8. Text from Windows is often Windows-1252, which `iconv -f windows-1252 -t utf-8` "
        "turns into UTF-8 with its apostrophes and euro signs.",
    )
