"""Find rows that a stray quotation mark has swallowed: one field holds the end of its row and other rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from submillion.data.table import count_things, shorten
from submillion.errors import DataError

NUM_COMPARED = 20_000
"""Rows of one line with which a suspicious row is compared."""

MAX_VALUES = 1000
"""Distinct values that a column of classes has at most."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_NUMBER = re.compile(r"\s*[-+]?[0-9]+(?:[.,][0-9]+)?\s*")


class SwallowedRows:
    """Refuses rows over several lines that are several rows.

    Such a row, taken apart at its line ends, has as many fields on every line as the table has columns. A text of
    several lines can have that by chance, so the parts are compared with the rows that stand on one line: where these
    have a column of few values or of numbers, the parts must have them too.

    Args:
        path: The file.
        separator: What separates its fields.
        iter_plain: Gives the rows that stand on one line, from the first one on at every call.
    """

    def __init__(self, path: Path, separator: str, iter_plain: Callable[[], Iterator[list[str]]]) -> None:
        self._path = path
        self._separator = separator
        self._iter_plain = iter_plain
        self._tests: dict[int, Callable[[str], bool]] | None = None
        self._num_checked = self._num_doubtful = self._most_lines = 0
        self._first = self._longest = ""

    def check(self, row: Sequence[str], where: str) -> None:
        """Look at a row that spans several lines.

        Args:
            row: Its fields.
            where: Its place, for the message.

        Raises:
            DataError: It is several rows.
        """
        width = len(row)
        if width < 2:
            return
        self._num_checked += 1
        parts = [line.split(self._separator) for line in _LINE_END.split(self._separator.join(row))]
        if len(parts) < 2 or any(len(part) != width for part in parts):
            return
        opened = next((position for position, field in enumerate(row) if "\n" in field or "\r" in field), 0)
        if self._tests is None:
            self._tests = self._learn_columns(width)
        tests = {position: test for position, test in self._tests.items() if position != opened}
        if not tests:
            self._doubt(where, len(parts))
        if tests:
            is_swallowed = all(test(part[position]) for part in parts for position, test in tests.items())
        else:
            is_swallowed = len(parts) >= (4 if width > 2 else 10)
        if is_swallowed:
            raise DataError(
                f"a quotation mark swallows {len(parts)} rows: the field it opens is {shorten(row[opened], 100)}",
                where=where,
                hint="Put the whole text in quotation marks and write each one inside twice; or, if the file has no "
                "quoting, save it with tabs as .tsv.",
            )

    def _doubt(self, where: str, num_lines: int) -> None:
        """Count a row that no other tells from several: a text of several lines has as many separators by chance."""
        self._num_doubtful += 1
        self._first = self._first or where.rpartition(":")[2]
        if num_lines > self._most_lines:
            self._most_lines, self._longest = num_lines, where.rpartition(":")[2]

    def describe_doubt(self) -> str:
        """Return what is doubtful of the rows that `check` let pass, without a full stop; empty where nothing is."""
        if not self._num_doubtful:
            return ""
        rows = count_things(self._num_checked, "row stands", "rows stand")
        taken = "it" if self._num_checked == 1 else f"{self._num_doubtful:,} of them, the first on line {self._first},"
        return (
            f"{rows} on several lines, and {taken} would also be rows of one line each; the longest is on line "
            f"{self._longest} and has {self._most_lines}: look whether a quotation mark there is not closed"
        )

    def _learn_columns(self, width: int) -> dict[int, Callable[[str], bool]]:
        """Return a test of its values for every column that holds few of them, or numbers."""
        rows = [row for row in islice(self._iter_plain(), NUM_COMPARED) if len(row) == width][1:]
        tests: dict[int, Callable[[str], bool]] = {}
        for position in range(min(width, MAX_VALUES)):
            values = {row[position] for row in rows}
            if 0 < len(values) <= min(MAX_VALUES, len(rows) / 3):
                tests[position] = values.__contains__
            elif values and all(map(_NUMBER.fullmatch, values)):
                tests[position] = lambda value: _NUMBER.fullmatch(value) is not None
        return tests
