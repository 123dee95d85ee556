"""The columns that a finished run reads from another file: those it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from submillion.data.columns import NO_ID, Columns
from submillion.data.reading import Reading
from submillion.errors import DataError
from submillion.tables.official import OFFICIAL_NAMES

_LABEL_FLAG = "--label COLUMN, or give the labels separately: --labels FILE with id,label rows"


def fit_columns(
    reading: Reading, present: Sequence[str], asked: Columns, *, where: str, needs_label: bool, needs_id: bool
) -> tuple[Columns, tuple[str, ...]]:
    """Return the columns that a run reads from another file: those of its training data, unless a flag names others.

    Args:
        reading: Reading of the run's training data.
        present: Columns of the file; none for a file of lines, which has only texts.
        asked: Columns that a flag names.
        where: Path of the file, for messages.
        needs_label: Whether the label column is read; predictions do not need it.
        needs_id: Whether the ids must be those of the file, because other files refer to them.

    Returns:
        The columns, and notes on missing columns.

    Raises:
        DataError: A column of the run is missing; the error names it and the flag that chooses another one.
    """
    if not present:
        return asked, ()

    def require(name: str, flag: str, role: str) -> str:
        if not _is_in(name, present):
            raise DataError(
                f"there is no column {name!r}, which this run reads {role} from; the file has "
                f"{', '.join(map(repr, present[:30]))}",
                where=where,
                hint=f"Name the right column of this file: {flag}.",
            )
        return name

    text = asked.text or tuple(require(name, "--text A,B", "its texts") for name in reading.text)
    label = asked.label
    # The official files name no columns, so nobody chose the name of their label column.
    if label is None and needs_label and reading.label is not None and not reading.is_official:
        label = None if tuple(present) == OFFICIAL_NAMES else require(reading.label, _LABEL_FLAG, "labels")
    row_id = asked.id
    notes: tuple[str, ...] = ()
    if row_id is None and reading.id is not None:
        if reading.id == NO_ID or _is_in(reading.id, present):
            row_id = reading.id
        elif needs_id:
            require(reading.id, "--id COLUMN", "ids")
        else:
            notes = (f"{where} has no column {reading.id!r}, which this run reads ids from: row numbers are the ids",)
    return Columns(text, label, row_id), notes


def _is_in(name: str, present: Sequence[str]) -> bool:
    return name in present or name.lower() in {other.lower() for other in present}
