"""Synthetic rows on disk: JSON lines with id, text, label and provenance.

A line is ``{"id": ..., "text": ..., "label": class name, "provenance": {...}}``. The provenance says how the row was
made. Every row has ``method``, ``settings_sha256`` and ``seed``. A row made from one record has ``source_id``,
``source_place`` and ``source_sha256``, and each method may add keys. Every reader of data accepts such a file as a
labelled one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from submillion.data.near import normalise_text
from submillion.errors import DataError
from submillion.records import Record
from submillion.storage.files import write_atomically
from submillion.storage.json_shapes import JsonObject, JsonView
from submillion.tables.table import closed_after
from submillion.tables.text_lines import iter_lines

SYNONYMS_PLACE = "data.synonyms"
"""Name that replaces a file's name for the synonyms that a run makes from its training rows."""

REASONS = {
    "exact": "equal scored rows",
    "near": "nearly equal scored rows",
    "source": "come from scored rows",
}
"""Reasons to leave out synthetic rows: their text appears in validation, test or a watched set, exactly or nearly, or
they were made from a row that appears there, exactly or nearly. The first reason that holds counts."""

_KEYS = ("id", "text", "label", "provenance")
_SOURCE_KEYS = ("source_id", "source_place", "source_sha256")
_SHOWN_PROBLEMS = 10
_SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class SyntheticRow:
    """One synthetic row.

    Attributes:
        id: Id that is unique among all rows trained on together, so it contains method and settings.
        text: Text of the row, never blank.
        label: Name of its class.
        provenance: Origin of the row, from `describe_origin`.
    """

    id: str
    text: str
    label: str
    provenance: JsonView


def describe_origin(
    method: str, settings: JsonView, *, seed: int, source: Record | None = None, **details: Any
) -> JsonObject:
    """Return the provenance of a row.

    Args:
        method: Method that made the row, such as ``synonyms``.
        settings: Everything besides the seed on which the method's result depends; only the digest is kept.
        seed: Seed for the choices.
        source: Record that the row was made from, cleaned; None if there is none.
        details: JSON values that the method adds.
    """
    origin: JsonObject = {"method": method, "settings_sha256": digest_settings(settings), "seed": seed}
    if source is not None:
        origin |= dict(zip(_SOURCE_KEYS, (source.id, source.source, digest_text(source.text)), strict=True))
    return origin | details


def digest_settings(settings: JsonView) -> str:
    """Return the SHA-256 of settings, whatever their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text with case, punctuation and whitespace folded, as for comparing rows."""
    return hashlib.sha256((normalise_text(text) or text.strip()).encode("utf-8", "surrogatepass")).hexdigest()


def format_row(row: SyntheticRow) -> str:
    """Return a row as its line, line end included.

    Raises:
        DataError: The row is not valid.
    """
    values = {key: getattr(row, key) for key in _KEYS}
    if problem := _find_problem(values):
        raise DataError(problem, where=f"synthetic row {row.id!r}")
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"


def parse_row(line: str, *, where: str) -> SyntheticRow:
    """Return the row that a line holds.

    Args:
        line: Line of a file.
        where: Place of the line, for the error message.

    Raises:
        DataError: The line holds no row.
    """
    try:
        values = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"not valid JSON: {reason}", where=where, hint=_HINT) from None
    if problem := _find_problem(values):
        raise DataError(problem, where=where, hint=_HINT)
    return SyntheticRow(**values)


def write_rows(path: Path, rows: Iterable[SyntheticRow]) -> int:
    """Write a file of synthetic rows, whole or not at all, and return their number.

    Raises:
        DataError: A row is not valid, or an id appears twice.
        RunError: The disk is full.
    """
    seen: set[str] = set()

    def write(file: Any) -> None:
        for row in rows:
            if row.id in seen:
                raise DataError(f"the id {row.id!r} appears twice", where=str(path))
            seen.add(row.id)
            file.write(format_row(row).encode())

    write_atomically(path, write)
    return len(seen)


def read_rows(path: Path) -> list[SyntheticRow]:
    """Read and check a file of synthetic rows.

    Raises:
        DataError: The file is missing or empty, or some lines are not synthetic rows; the first of them are listed.
    """
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), hint="Check the path; nothing was read.")
    rows: dict[str, SyntheticRow] = {}
    problems: list[str] = []
    with closed_after(iter_lines(path)) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = parse_row(line, where=f"{path}:{number}")
            except DataError as error:
                problems.append(f"{error.where}: {error.message}")
                continue
            if row.id in rows:
                problems.append(f"{path}:{number}: the id {row.id!r} appears in an earlier row too")
            rows[row.id] = row
    if problems:
        raise DataError(_list_problems(problems), where=str(path), hint=_HINT)
    if not rows:
        raise DataError("the file holds no rows", where=str(path), hint="It needs at least one synthetic row.")
    return list(rows.values())


_HINT = (
    "Extra rows are JSON lines with id, text, label and provenance, as `submillion augment` writes them; "
    "rows written by people belong in the data itself."
)


def _list_problems(problems: Sequence[str]) -> str:
    more = f"\n... and {len(problems) - _SHOWN_PROBLEMS:,} more" if len(problems) > _SHOWN_PROBLEMS else ""
    return f"{len(problems):,} lines are not synthetic rows\n" + "\n".join(problems[:_SHOWN_PROBLEMS]) + more


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _find_problem(values: Any) -> str:
    """Return the first fault of the values of a row; empty if there is none."""
    if not isinstance(values, dict) or values.keys() != set(_KEYS):
        found = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        return f"expected an object with {', '.join(_KEYS)}; found {found or 'nothing'}"
    for key in ("id", "text", "label"):
        value = values[key]
        if not isinstance(value, str) or not value.strip():
            return f"{key} must be a text that is not blank, got {value!r:.80}"
        if any("\ud800" <= character <= "\udfff" for character in value):
            return f"{key} holds half a character (a surrogate)"
    return _find_problem_of_origin(values["provenance"])


def _find_problem_of_origin(origin: Any) -> str:
    if not isinstance(origin, Mapping):
        return f"provenance must be an object, got {type(origin).__name__}"
    method, digest, seed = (origin.get(key) for key in ("method", "settings_sha256", "seed"))
    if not isinstance(method, str) or not method:
        return f"provenance.method must name what made the row, got {method!r:.80}"
    if not isinstance(digest, str) or len(digest) != _SHA256_DIGITS:
        return f"provenance.settings_sha256 must be a SHA-256, got {digest!r:.80}"
    if not isinstance(seed, int) or isinstance(seed, bool):
        return f"provenance.seed must be a whole number, got {seed!r:.80}"
    given = [key for key in _SOURCE_KEYS if key in origin]
    if given and len(given) < len(_SOURCE_KEYS):
        return f"provenance has {', '.join(given)}; it needs {', '.join(_SOURCE_KEYS)}, or none of them"
    odd = [key for key in given if not isinstance(origin[key], str)]
    return f"provenance.{odd[0]} must be a text, got {origin[odd[0]]!r:.80}" if odd else ""


def describe_file(entry: JsonView) -> str:
    """Return data.json's entry on a file of synthetic rows as a clause without a full stop."""
    counts = {reason: count for reason, count in entry["num_dropped"].items() if count}
    spelled = ", ".join(f"{count:,} {REASONS.get(reason, reason)}" for reason, count in counts.items())
    left_out = f"; {sum(counts.values()):,} left out ({spelled})" if counts else ""
    methods = ", ".join(entry["methods"])
    used = f"{entry['num_used']:,} synthetic rows ({methods}) of {entry['data']}"
    return f"{used} trained on with weight {entry['weight']:g}{left_out}"
