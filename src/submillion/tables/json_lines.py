"""Read files of JSON objects, one a line or in one array over the whole file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from submillion.errors import DataError
from submillion.tables.table import Row, Table, Tell, closed_after, count_things, shorten
from submillion.tables.text_lines import MAX_LINE_CHARS, TextForm, examine_text, iter_lines, iter_text

_BETWEEN = re.compile(r"[\s]*")
_MISSING = object()


def open_json(path: Path) -> Table:
    """Open a file of JSON objects; its columns are the keys of all rows, in the order in which they first appear.

    Raises:
        DataError: The file cannot be read, holds no rows, or holds something that is not an object.
    """
    form = examine_text(path)
    keys: dict[str, None] = {}
    known: set[tuple[str, ...]] = set()
    with closed_after(_iter_objects(path, form, _CAREFUL)) as rows:
        for _, row in rows:
            names = tuple(row)
            if names not in known:
                keys.update(dict.fromkeys(row))
                known = {names}  # most rows have the keys of the row before
    if not known:
        raise DataError("the file holds no rows", where=str(path), hint="It needs one JSON object a line.")
    names = tuple(keys)

    def read(wanted: Sequence[int], on_note: Tell) -> Iterator[Row]:
        wanted_keys = [names[position] for position in wanted]
        num_missing = dict.fromkeys(wanted_keys, 0)
        num_keys = len(names)
        with closed_after(_iter_objects(path, form, _PLAIN)) as rows:
            for place, row in rows:
                if len(row) == num_keys:
                    yield place, [row[key] for key in wanted_keys]
                    continue
                values = [row.get(key, _MISSING) for key in wanted_keys]
                for position, value in enumerate(values):
                    if value is _MISSING:
                        num_missing[wanted_keys[position]] += 1
                        values[position] = None
                yield place, values
        for key, number in num_missing.items():
            if number:
                on_note(f"{path.name}: {count_things(number, 'row lacks', 'rows lack')} {shorten(key)}, read as empty")

    return Table(names, read, notes=form.notes)


def _iter_objects(path: Path, form: TextForm, decoder: json.JSONDecoder) -> Iterator[tuple[int, dict[str, object]]]:
    first = next((text.lstrip() for text in iter_text(path, form) if text.strip()), "")
    if first.startswith("["):
        yield from _iter_array(path, form, decoder)
        return
    with closed_after(iter_lines(path, form)) as lines:
        for number, whole in enumerate(lines, start=1):
            if line := whole.strip():
                yield number, _parse_object(path, number, line, decoder)


def _iter_array(path: Path, form: TextForm, decoder: json.JSONDecoder) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the elements of an array, with their numbers as places, while little more than one is in memory."""
    pieces = _Pieces(iter_text(path, form), decoder)
    pieces.skip_blanks()
    pieces.position += 1
    number = 0
    while True:
        where = f"{path}:{number + 1}"
        mark = pieces.skip_blanks()
        if mark == "]":
            pieces.position += 1
            if pieces.skip_blanks():
                raise DataError(
                    "not valid JSON: text follows the array", where=where, hint="Write one array, or lines."
                )
            return
        if number:
            if mark != ",":
                reason = "the array is not closed" if not mark else f"expected a comma or ], found {mark!r}"
                raise DataError(f"not valid JSON: {reason}", where=where, hint="Write one JSON object a line.")
            pieces.position += 1
            pieces.skip_blanks()
        number += 1
        yield number, _check_object(pieces.take(f"{path}:{number}"), f"{path}:{number}")


class _Pieces:
    """The text of an array; only the part that is being parsed is in memory."""

    def __init__(self, texts: Iterator[str], decoder: json.JSONDecoder) -> None:
        self._decoder = decoder
        self._text = ""
        self._texts = texts
        self.position = 0

    def skip_blanks(self) -> str:
        """Move behind blanks, and return the character there, or nothing at the end."""
        while True:
            match = _BETWEEN.match(self._text, self.position)
            self.position = match.end() if match is not None else self.position
            if self.position < len(self._text):
                return self._text[self.position]
            if not self._read_on(1):
                return ""

    def take(self, where: str) -> Any:
        """Parse the value that begins here, and move behind it."""
        while True:
            try:
                value, self.position = self._decoder.raw_decode(self._text, self.position)
            except (ValueError, RecursionError) as error:
                # An incomplete value is tried again with twice as much text, so all tries together take linear time.
                num_chars = len(self._text) - self.position
                is_cut = num_chars <= MAX_LINE_CHARS and not isinstance(error, RecursionError)
                if is_cut and self._read_on(num_chars):
                    continue
                raise _bad_json(error, where) from None
            return value  # a number may continue in the next piece, but is refused anyway

    def _read_on(self, num_chars: int) -> bool:
        added, size = [], 0
        for text in self._texts:
            added.append(text)
            size += len(text)
            if size >= num_chars:
                break
        self._text = self._text[self.position :] + "".join(added)
        self.position = 0
        return size > 0


def _keep_pairs(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {shorten(twice)} appears twice in one object")
    return values


# Repeated keys are looked for once, since that takes time.
_CAREFUL, _PLAIN = json.JSONDecoder(object_pairs_hook=_keep_pairs), json.JSONDecoder()


def _parse_object(path: Path, number: int, line: str, decoder: json.JSONDecoder) -> dict[str, object]:
    try:
        value, end = decoder.raw_decode(line)
        if end != len(line):
            raise ValueError(f"text follows the object: {shorten(line[end:])}")
    except (ValueError, RecursionError) as error:
        raise _bad_json(error, f"{path}:{number}") from None
    return value if type(value) is dict else _check_object(value, f"{path}:{number}")


def _bad_json(error: Exception, where: str) -> DataError:
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return DataError(f"not valid JSON: {reason}", where=where, hint="Write one JSON object a line.")


def _check_object(value: Any, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise DataError(
            f"expected a JSON object, found {type(value).__name__}", where=where, hint="Write one object a line."
        )
    return value
