"""Read the extra sets that a run watches, with the columns and the classes of the run's data."""

from __future__ import annotations

from collections.abc import Callable

from submillion.config.run import CleanConfig, WatchConfig
from submillion.data.clean import clean_records
from submillion.data.columns import NO_ID, Columns
from submillion.data.label_files import join_labels
from submillion.data.read import list_columns, read_records
from submillion.data.reading import Reading
from submillion.errors import DataError
from submillion.records import LabelSet, Record


def read_watched(
    watch: WatchConfig, clean: CleanConfig, labels: LabelSet, reading: Reading, *, on_note: Callable[[str], None]
) -> list[Record]:
    """Return the labelled rows of a watched set, cleaned.

    Args:
        watch: Settings of the watched set.
        clean: Cleaning rules of the run.
        labels: Classes of the run.
        reading: Reading of the run's data.
        on_note: Called with a note for every guess.

    Raises:
        DataError: A file cannot be read, or a row has no valid label.
    """
    columns = _choose_columns(watch, reading, on_note)
    if watch.labels is None:
        records = read_records(watch.data, columns, labels=labels, numbering=reading.numbering, on_note=on_note)
    else:
        records = join_labels(
            read_records(watch.data, columns, on_note=on_note),
            watch.labels,
            labels,
            reading.numbering,
            is_official=reading.is_official,
            on_note=on_note,
        )
    missing = [record.source for record in records if record.label is None]
    if missing or not records:
        raise DataError(
            f"{len(missing)} rows have no label" if records else "has no rows",
            where=watch.data,
            hint="Watched sets need labels: give watch.labels, a CSV with id,label.",
        )
    return list(clean_records(records, clean))


def _choose_columns(watch: WatchConfig, reading: Reading, on_note: Callable[[str], None]) -> Columns:
    """Return the columns of the run's data as far as the set has them; the others are found by name."""
    present = {name for names in list_columns(watch.data).values() for name in names}
    text = reading.text if present.issuperset(reading.text) else ()
    if not text:
        missing = ", ".join(repr(name) for name in reading.text if name not in present)
        on_note(
            f"{watch.name}: {watch.data} lacks the column {missing} of the run's data, so its text is found by name"
        )
    label = reading.label if reading.label in present else None
    row_id = reading.id if reading.id == NO_ID or reading.id in present else None
    return Columns(text, label, row_id)
