"""Predictions to a file, as they come: csv, jsonl or parquet, in the order of the rows, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from submillion.errors import ConfigError, RunError
from submillion.records import LabelSet, Prediction, Record
from submillion.rundir import write_atomically

FORMATS = (".csv", ".jsonl", ".parquet")
ROW_GROUP = 8192
"""Rows of a parquet row group; what is held in memory at once."""

# What makes a spreadsheet compute a cell instead of showing it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def check_out(out: Path, *, defuse_formulas: bool) -> None:
    """Refuse an output file that could not be written, before any work is done.

    Raises:
        ConfigError: An unknown ending, a missing folder, a folder in its place, or defusing where there are no cells.
    """
    if out.suffix not in FORMATS:
        raise ConfigError(
            f"{out.suffix or out.name!r} is no format that predictions are written in",
            where=f"--out {out}",
            hint=f"End the name with one of {', '.join(FORMATS)}.",
        )
    if not out.parent.is_dir():
        raise ConfigError("there is no such folder", where=f"--out {out}", hint=f"Make it first: mkdir -p {out.parent}")
    if out.is_dir():
        raise ConfigError("is a folder", where=f"--out {out}", hint="Name a file in it.")
    if defuse_formulas and out.suffix != ".csv":
        raise ConfigError(
            f"has no effect on {out.suffix}",
            where="--defuse-formulas",
            hint="Only csv cells can be taken for formulas; leave the flag out.",
        )


def write_predictions(
    out: Path,
    records: Iterable[Record],
    predict: Callable[[Iterable[Record]], Iterator[Prediction]],
    labels: LabelSet,
    *,
    names: bool,
    probabilities: bool,
    defuse_formulas: bool,
) -> int:
    """Predict records and write one row for each, in order; the file appears when the last one is done.

    Args:
        out: The file; its ending is the format.
        records: Rows of any number; few are held at once.
        predict: Yields one prediction a record, in order.
        labels: The classes.
        names: Write class names instead of label ids.
        probabilities: Add one column a class.
        defuse_formulas: Put a quote before csv cells that a spreadsheet would compute.

    Returns:
        The number of rows.

    Raises:
        RunError: The disk is full, or a prediction does not belong to its row.
    """
    header = ["ID", "Label"]
    if probabilities:
        header += [f"probability_{name}" for name in labels]
    num_rows = 0

    def iter_rows() -> Iterator[list[Any]]:
        nonlocal num_rows
        waiting: deque[str] = deque()

        def note_ids() -> Iterator[Record]:
            for record in records:
                waiting.append(record.id)
                yield record

        for prediction in predict(note_ids()):
            if not waiting or waiting.popleft() != prediction.id:
                raise RunError(f"the prediction of row {prediction.id!r} is out of order", where=str(out))
            row: list[Any] = [prediction.id, prediction.label if names else prediction.label_id]
            if probabilities:
                row += prediction.probabilities
            num_rows += 1
            yield row
        if waiting:
            raise RunError(f"{len(waiting)} rows have no prediction", where=str(out))

    writers: dict[str, Callable[[IO[bytes]], None]] = {
        ".csv": lambda file: _write_csv(file, header, iter_rows(), defuse_formulas),
        ".jsonl": lambda file: _write_jsonl(file, header, iter_rows()),
        ".parquet": lambda file: _write_parquet(file, header, iter_rows(), names),
    }
    try:
        write_atomically(out, writers[out.suffix])
    except RunError as error:
        if error.hint:
            # The general advice is about runs; a prediction is simply made again.
            hint = "Free some space and run the command again; a file that was there before is as it was."
            raise RunError(error.message, where=error.where, hint=hint) from error
        raise
    return num_rows


def defuse(cell: object) -> object:
    """Return a cell with a quote before it where a spreadsheet would take its text for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def _write_csv(file: IO[bytes], header: Sequence[str], rows: Iterator[list[Any]], defuse_formulas: bool) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([defuse(cell) for cell in row] if defuse_formulas else row)
    text.detach()


def _write_jsonl(file: IO[bytes], header: Sequence[str], rows: Iterator[list[Any]]) -> None:
    for row in rows:
        line = json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False)
        file.write(line.encode("utf-8", "backslashreplace") + b"\n")


def _write_parquet(file: IO[bytes], header: Sequence[str], rows: Iterator[list[Any]], names: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = [pa.string(), pa.string() if names else pa.int64(), *[pa.float64()] * (len(header) - 2)]
    schema = pa.schema(list(zip(header, types, strict=True)))
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            columns = [pa.array(column, kind) for column, kind in zip(zip(*group, strict=True), types, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
