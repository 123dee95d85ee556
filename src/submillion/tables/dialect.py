"""The dialect of a delimited file: its separator, its quoting, and the place of its header."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from submillion.errors import DataError
from submillion.tables.table import closed_after, count_things
from submillion.tables.text_lines import TextForm, iter_lines

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SAMPLE_LINES = 200
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Dialect:
    """The separator and the quoting of a file's fields.

    Attributes:
        separator: Character between fields.
        is_quoted: Whether quotation marks around a field are not part of it.
        num_skipped: Number of lines before the header, such as the ``sep=;`` of a spreadsheet.
        notes: Guesses, one sentence each.
    """

    separator: str
    is_quoted: bool = True
    num_skipped: int = 0
    notes: tuple[str, ...] = ()

    @property
    def quoting(self) -> Literal[0, 3]:
        """The csv module's constant for the quoting."""
        return csv.QUOTE_MINIMAL if self.is_quoted else csv.QUOTE_NONE


def find_dialect(path: Path, form: TextForm, usual: str) -> Dialect:
    """Find the separator and the quoting of a file.

    Args:
        path: Path of the file.
        form: Encoding and line end of its text.
        usual: Usual separator for the ending of its name.

    Raises:
        DataError: Two separators fit, or the file cannot be read.
    """
    with closed_after(iter_lines(path, form)) as lines:
        sample = list(islice(lines, SAMPLE_LINES + 1))
    match = _SEPARATOR_LINE.fullmatch(sample[0]) if sample else None
    if match is not None:
        separator, num_skipped = match[1], 1
        notes = [f"{path.name}: its first line names the separator {separator!r}"]
    else:
        separator, num_skipped, notes = _choose_separator(path, sample, usual), 0, []
        if separator != usual:
            notes.append(f"{path.name}: its fields are separated by {SEPARATORS[separator]}")
    if separator != "\t":
        return Dialect(separator, num_skipped=num_skipped, notes=tuple(notes))
    is_quoted, num_odd = _examine_quotes(path, form, num_skipped)
    if num_odd and not is_quoted:
        fields = count_things(num_odd, "field begins", "fields begin")
        notes.append(f"{path.name}: {fields} with a quotation mark that is never closed; all marks are read as text")
    return Dialect(separator, is_quoted, num_skipped, tuple(notes))


def _choose_separator(path: Path, sample: Sequence[str], usual: str) -> str:
    header = next((line for line in sample if line.strip()), "")
    if usual in header and _find_width(sample, usual) > 1:
        return usual
    fitting = [other for other in SEPARATORS if other != usual and other in header and _find_width(sample, other) > 1]
    if len(fitting) > 1:
        raise DataError(
            f"its fields can be separated by {' or by '.join(SEPARATORS[other] for other in fitting)}",
            where=str(path),
            hint=f"Begin the file with a line that names the separator, such as sep={fitting[0]}",
        )
    return fitting[0] if fitting else usual


def _find_width(sample: Sequence[str], separator: str) -> int:
    """Return the number of fields in every row of a sample with a separator, or 0 if rows differ."""
    reader = csv.reader(sample, delimiter=separator, strict=separator != "\t")
    width = 0
    try:
        for row in reader:
            if reader.line_num > SAMPLE_LINES:  # the last row may be cut off
                break
            if not any(field.strip() for field in row):
                continue
            width = width or len(row)
            if len(row) < width or any(row[width:]):
                return 0
    except csv.Error:
        return 0
    return width


def _examine_quotes(path: Path, form: TextForm, num_skipped: int) -> tuple[bool, int]:
    """Return whether a file with tabs has quoting, and the number of fields that begin with an unclosed mark.

    It has quoting if every mark that begins a field is closed at the end of that field. If one is not, each line is a
    row if all lines have as many fields as the first. Otherwise marks may enclose tabs and line ends.
    """
    width, is_even, num_marked, num_odd = 0, True, 0, 0
    with closed_after(iter_lines(path, form)) as lines:
        for line in islice(lines, num_skipped, None):
            num_fields = line.count("\t") + 1
            width = width or (num_fields if line.strip() else 0)
            is_even = is_even and (num_fields == width or not line.strip())
            if line.startswith('"') or '\t"' in line:
                marked = [field for field in line.rstrip("\r\n").split("\t") if field.startswith('"')]
                num_marked += len(marked)
                num_odd += sum(_QUOTED.fullmatch(field) is None for field in marked)
    if not num_odd:
        return num_marked > 0, 0
    if is_even:
        return False, num_odd
    with closed_after(iter_lines(path, form)) as lines:
        return _is_whole(islice(lines, num_skipped, None)), num_odd


def _is_whole(lines: Iterator[str]) -> bool:
    """Whether lines with tabs, read with quoting, are rows of the same width."""
    width = 0
    try:
        for row in csv.reader(lines, delimiter="\t", strict=True):
            width = width or len(row)
            if row and len(row) != width:
                return False
    except csv.Error:
        return False
    return True
