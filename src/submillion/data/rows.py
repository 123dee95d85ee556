"""Turn the rows of a table into records with texts, raw labels and unique ids."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from submillion.data.columns import Selection
from submillion.errors import DataError
from submillion.records import Record
from submillion.tables.table import MAX_FIELD_CHARS, Table, Tell, closed_after, ignore_note, shorten

_ENDLESS = (math.inf, -math.inf)


def iter_labelled(
    path: Path, table: Table, selection: Selection, *, first_row: int = 0, on_note: Tell = ignore_note
) -> Iterator[tuple[Record, object]]:
    """Yield every row as a record without label, together with its raw label (None without a label column).

    Args:
        path: Path of the file, for places.
        table: Table of the opened file.
        selection: Columns to read.
        first_row: Number of the file's first row, if a split has several files.
        on_note: Called at the end with a note on rows left out.

    Raises:
        DataError: A value is not text, or an id is empty or repeated.
    """
    wanted = [*selection.text, *(name for name in (selection.label, selection.id) if name is not None)]
    num_text = len(selection.text)
    name = path.name
    # Hashes of the ids: a set of the texts themselves would take twice the memory.
    seen: set[int] = set()
    with closed_after(table.iter_rows([table.names.index(name) for name in wanted], on_note)) as rows:
        for number, (place, values) in enumerate(rows, start=first_row):
            source = f"{name}:{place}"
            # Nearly all values are short ASCII strings, which need no work.
            texts = tuple(
                [
                    value
                    if type(value) is str and value.isascii() and len(value) <= MAX_FIELD_CHARS
                    else _to_text(value, source)
                    for value in values[:num_text]
                ]
            )
            record_id = str(number)
            if selection.id is not None:
                record_id = _to_text(values[-1], source).strip()
                code = hash(record_id)
                is_new = code not in seen or not _appears_earlier(path, table, selection, record_id, place)
                seen.add(code)
                if not record_id or not is_new:
                    problem = (
                        f"the id {shorten(record_id)} appears in an earlier row too" if record_id else "the id is empty"
                    )
                    raise DataError(
                        problem,
                        where=f"{path}:{place}",
                        hint=f"Ids in column {shorten(selection.id)} must be unique; with --id none "
                        "(data.id: none), row numbers are the ids.",
                    )
            raw = values[num_text] if selection.label is not None else None
            if raw is not None and (not isinstance(raw, (str, int, float)) or raw in _ENDLESS):
                what = "infinite" if isinstance(raw, float) else f"a value of type {type(raw).__name__}"
                raise DataError(
                    f"the label is {what}, neither a name nor a number",
                    where=f"{path}:{place}",
                    hint="Choose the label column with --label.",
                )
            yield Record(record_id, texts, None, source), raw


def _appears_earlier(path: Path, table: Table, selection: Selection, record_id: str, place: int) -> bool:
    """Read the file again up to a place, and return whether an earlier row has an id."""
    assert selection.id is not None
    with closed_after(table.iter_rows([table.names.index(selection.id)])) as rows:
        for earlier, (value,) in rows:
            if earlier >= place:
                break
            if _to_text(value, f"{path.name}:{earlier}").strip() == record_id:
                return True
    return False


def _to_text(value: object, source: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        if isinstance(value, (int, float)):
            return "" if isinstance(value, float) and math.isnan(value) else str(value)
        raise DataError(
            f"expected text, found a value of type {type(value).__name__}",
            where=source,
            hint="Write one object a row; pandas does so with to_json(orient='records', lines=True)."
            if isinstance(value, dict)
            else "Choose the text columns with --text.",
        )
    if len(value) > MAX_FIELD_CHARS:
        raise DataError(f"a field is longer than {MAX_FIELD_CHARS:,} characters", where=source, hint="Shorten it.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"the text holds half a character (surrogate {value[error.start]!r})",
                where=source,
                hint="The file was written from damaged text; remove the character.",
            ) from None
    return value
