"""Predictions to a file, as they come: csv, jsonl or parquet, in the order of the rows, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from submillion.data.label_files import ID, LABEL, LABEL_ID, Spelling
from submillion.errors import ConfigError, RunError
from submillion.records import LabelSet, Prediction, Record
from submillion.rundir import refuse_overwriting, write_atomically

FORMATS = (".csv", ".jsonl", ".parquet")
ROW_GROUP = 8192
"""Rows of a parquet row group; what is held in memory at once."""

SHOWN_BLANK = 5

# What makes a spreadsheet compute a cell instead of showing it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Written:
    """What a file of predictions holds.

    Attributes:
        num_rows: Its rows.
        num_blank: Rows without any text, whose labels say nothing.
        blank_ids: Ids of the first of these.
    """

    num_rows: int
    num_blank: int
    blank_ids: tuple[str, ...]


def check_out(out: Path, *, defuse_formulas: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output file that could not be written or would destroy something, before any work is done.

    Args:
        out: The file.
        defuse_formulas: Whether cells are to be defused.
        inputs: Files that are read.

    Raises:
        ConfigError: An unknown ending, a missing folder, a folder in its place, defusing where there are no cells, or
            a file that is read or belongs to a run.
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
    refuse_overwriting(out, inputs, where=f"--out {out}")


def write_predictions(
    out: Path,
    records: Iterable[Record],
    predict: Callable[[Iterable[Record]], Iterator[Prediction]],
    labels: LabelSet,
    *,
    spelling: Spelling,
    probabilities: bool,
    defuse_formulas: bool,
) -> Written:
    """Predict records and write one row for each, in order; the file appears when the last one is done.

    Args:
        out: The file; its ending is the format.
        records: Rows of any number; few are held at once.
        predict: Yields one prediction a record, in order.
        labels: The classes.
        spelling: What the column `Label` holds for each class.
        probabilities: Add one column a class.
        defuse_formulas: Put a quote before csv cells that a spreadsheet would compute.

    Raises:
        RunError: The disk is full, or a prediction does not belong to its row.
    """
    header = [ID, LABEL, *([LABEL_ID] if spelling.with_ids else [])]
    if probabilities:
        header += [f"probability_{name}" for name in labels]
    num_rows = num_blank = 0
    blank_ids: list[str] = []

    def iter_rows() -> Iterator[list[Any]]:
        nonlocal num_rows, num_blank
        waiting: deque[str] = deque()

        def note_ids() -> Iterator[Record]:
            for record in records:
                waiting.append(record.id)
                yield record

        for prediction in predict(note_ids()):
            if not waiting or waiting.popleft() != prediction.id:
                raise RunError(f"the prediction of row {prediction.id!r} is out of order", where=str(out))
            row: list[Any] = [prediction.id, spelling.values[prediction.label_id]]
            if spelling.with_ids:
                row.append(prediction.label_id)
            if probabilities:
                row += prediction.probabilities
            num_rows += 1
            if not prediction.has_text:
                num_blank += 1
                if num_blank <= SHOWN_BLANK:
                    blank_ids.append(prediction.id)
            yield row
        if waiting:
            raise RunError(f"{len(waiting)} rows have no prediction", where=str(out))

    writers: dict[str, Callable[[IO[bytes]], None]] = {
        ".csv": lambda file: _write_csv(file, header, iter_rows(), defuse_formulas),
        ".jsonl": lambda file: _write_jsonl(file, header, iter_rows()),
        ".parquet": lambda file: _write_parquet(file, header, iter_rows(), spelling),
    }
    try:
        write_atomically(out, writers[out.suffix])
    except RunError as error:
        if error.hint:
            # The general advice is about runs; a prediction is simply made again.
            hint = "Free some space and run the command again; a file that was there before is as it was."
            raise RunError(error.message, where=error.where, hint=hint) from error
        raise
    return Written(num_rows, num_blank, tuple(blank_ids))


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


def _write_parquet(file: IO[bytes], header: Sequence[str], rows: Iterator[list[Any]], spelling: Spelling) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    label = pa.int64() if isinstance(spelling.values[0], int) else pa.string()
    ids = [pa.int64()] if spelling.with_ids else []
    types = [pa.string(), label, *ids]
    schema = pa.schema(list(zip(header, [*types, *[pa.float64()] * (len(header) - len(types))], strict=True)))
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            columns = [
                pa.array(column, kind) for column, kind in zip(zip(*group, strict=True), schema.types, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
