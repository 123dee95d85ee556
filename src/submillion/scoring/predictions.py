"""Predictions written to csv, jsonl or parquet as they arrive, in the order of the rows, completely or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

from submillion.data.columns import Columns
from submillion.data.label_files import ID, LABEL, LABEL_ID, LabelChoice, Spelling, choose_spelling
from submillion.data.legibility import Legibility, describe_legibility
from submillion.data.read import count_rows, iter_records, list_inputs
from submillion.errors import ConfigError, RunError
from submillion.model.sources import find_base
from submillion.progress import Progress, Silent
from submillion.records import LabelSet, Prediction, Record
from submillion.run.folder import refuse_overwriting
from submillion.scoring.run_model import RunModel
from submillion.storage.files import write_atomically
from submillion.storage.json_shapes import JsonObject

FORMATS = (".csv", ".jsonl", ".parquet")
ROW_GROUP = 8192
"""Number of rows in a parquet row group, which are held in memory at once."""

SHOWN_BLANK = 5

# A spreadsheet computes a cell that starts with one of these instead of showing it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Written:
    """Facts about a file of predictions.

    Attributes:
        num_rows: Number of rows.
        num_blank: Number of rows without any text, whose labels are meaningless.
        blank_ids: Ids of the first rows without text.
    """

    num_rows: int
    num_blank: int
    blank_ids: tuple[str, ...]

    def describe_blank(self) -> list[str]:
        """Return a sentence about the rows without text, if there are any."""
        if not self.num_blank:
            return []
        more = ", ..." if self.num_blank > len(self.blank_ids) else ""
        return [
            f"{self.num_blank:,} of {self.num_rows:,} rows have no text, so their labels are meaningless: "
            f"ID {', '.join(self.blank_ids)}{more}"
        ]


@dataclass(frozen=True)
class PredictedFile:
    """A file of predictions, with remarks for its reader.

    Attributes:
        out: The file.
        num_rows: Number of rows, one for each row that was read, in the same order.
        num_blank: Number of rows without any text, whose labels are meaningless.
        notes: Remarks on guesses in reading, the spelling of classes, and how much of the texts reached the model.
    """

    out: Path
    num_rows: int
    num_blank: int
    notes: tuple[str, ...]


def predict_file(
    load: Callable[[], RunModel],
    source: str,
    out: Path,
    *,
    asked: Columns,
    labels: LabelChoice | None = None,
    probabilities: bool = False,
    defuse_formulas: bool = False,
    progress: Progress | None = None,
) -> PredictedFile:
    """Predict the rows of a file and write one row for each, in order. The new file is complete or does not exist.

    Args:
        load: Function that loads the model, called once the output is known to be possible.
        source: The file to read, in any format that training reads.
        out: The file to write: .csv, .jsonl or .parquet.
        asked: Columns to read, if they are not the run's.
        labels: ``ids`` for positions from 0, ``names`` for class names; None for the spelling in the training rows.
        probabilities: Whether to add a column ``probability_<class>`` per class.
        defuse_formulas: Whether to put a quote before csv cells that a spreadsheet would compute.
        progress: Receiver of stages, counts and notes.

    Raises:
        ConfigError: The output cannot be written or would overwrite something important.
        DataError: The file is missing or damaged, or lacks a column of the run.
        RunError: The disk is full.
    """
    progress, notes = progress or Silent(), list[str]()
    tell = partial(_tell, notes, progress)
    check_out(out, defuse_formulas=defuse_formulas, inputs=list_inputs(source))
    progress.start("load")
    model = load()
    refuse_overwriting(out, [find_base(model.config.model.base, model.config.model.revision).folder], where=str(out))
    columns = model.choose_columns(source, asked, tell)
    progress.start("read")
    # A row that cannot be read is reported before hours of work, not after them.
    num_rows = count_rows(source, columns, on_note=tell)
    progress.finish()
    spelling = choose_spelling(model.labels, model.reading, labels, write=defuse if defuse_formulas else str)
    if spelling.note:
        tell(spelling.note)
    progress.start("predict", num_rows)
    read = _Read()
    written = write_predictions(
        out,
        iter_records(source, columns),
        lambda rows: model.predict(rows, progress=progress, on_read=read.add),
        model.labels,
        spelling=spelling,
        probabilities=probabilities,
        defuse_formulas=defuse_formulas,
    )
    progress.finish()
    progress.note(f"{written.num_rows:,} predictions")
    for note in (*written.describe_blank(), *describe_legibility(read.to_json(), what="texts")):
        tell(note)
    return PredictedFile(out, written.num_rows, written.num_blank, tuple(notes))


def _tell(notes: list[str], progress: Progress, note: str) -> None:
    notes.append(note)
    progress.note(note)


class _Read:
    """How much of the texts reached the model, summed over a stream."""

    def __init__(self) -> None:
        self._sum: Legibility | None = None

    def add(self, part: Legibility) -> None:
        self._sum = part if self._sum is None else self._sum + part

    def to_json(self) -> JsonObject:
        return {} if self._sum is None else self._sum.to_json()


def check_out(out: Path, *, defuse_formulas: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output file that cannot be written or would overwrite something important, before any work is done.

    Args:
        out: The output file.
        defuse_formulas: Whether cells will be defused.
        inputs: Input files.

    Raises:
        ConfigError: The ending is unknown, the folder is missing, the name is a folder, the format has no cells to
            defuse, or the file is an input or belongs to a run.
    """
    if out.suffix not in FORMATS:
        raise ConfigError(
            f"{out.suffix or out.name!r} is not a format for predictions",
            where=str(out),
            hint=f"End the name with one of {', '.join(FORMATS)}.",
        )
    if not out.parent.is_dir():
        raise ConfigError("there is no such folder", where=str(out), hint=f"Make it first: mkdir -p {out.parent}")
    if out.is_dir():
        raise ConfigError("is a folder", where=str(out), hint="Name a file in it.")
    if defuse_formulas and out.suffix != ".csv":
        raise ConfigError(
            f"has no effect on {out.suffix}",
            where="--defuse-formulas",
            hint="Only csv cells can be read as formulas; leave the flag out.",
        )
    refuse_overwriting(out, inputs, where=str(out))


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
    """Predict records and write one row for each, in order. The file appears when the last row is done.

    Args:
        out: The file, whose ending gives the format.
        records: Records of any number; only a few are held at once.
        predict: Function that yields one prediction per record, in order.
        labels: Classes of the run.
        spelling: Value of the column `Label` for each class.
        probabilities: Whether to add one column per class.
        defuse_formulas: Whether to put a quote before csv cells that a spreadsheet would compute.

    Raises:
        RunError: The disk is full, or a prediction does not belong to its row.
    """
    header = [ID, LABEL, *([LABEL_ID] if spelling.with_ids else [])]
    header += [f"probability_{name}" for name in labels] if probabilities else []
    num_rows, num_blank, blank_ids = 0, 0, list[str]()

    def iter_rows() -> Iterator[list[object]]:
        nonlocal num_rows, num_blank
        waiting = deque[str]()

        def note_ids() -> Iterator[Record]:
            for record in records:
                waiting.append(record.id)
                yield record

        for prediction in predict(note_ids()):
            if not waiting or waiting.popleft() != prediction.id:
                raise RunError(f"the prediction of row {prediction.id!r} is out of order", where=str(out))
            row: list[object] = [prediction.id, spelling.values[prediction.label_id]]
            if spelling.with_ids:
                row.append(prediction.label_id)
            if probabilities:
                row += prediction.probabilities
            num_rows += 1
            num_blank += not prediction.has_text
            if not prediction.has_text and num_blank <= SHOWN_BLANK:
                blank_ids.append(prediction.id)
            yield row
        if waiting:
            raise RunError(f"{len(waiting)} rows have no prediction", where=str(out))

    writers: dict[str, Callable[[IO[bytes]], None]] = {
        ".csv": lambda file: _write_csv(file, header, iter_rows(), defuse_formulas),
        ".jsonl": lambda file: _write_jsonl(file, header, iter_rows()),
        ".parquet": lambda file: _write_parquet(file, header, iter_rows(), spelling),
    }
    _write(out, writers[out.suffix])
    return Written(num_rows, num_blank, tuple(blank_ids))


def _write(out: Path, write: Callable[[IO[bytes]], None]) -> None:
    try:
        write_atomically(out, write)
    except RunError as error:
        if error.hint:
            # The general advice is about runs, but a prediction can simply be repeated.
            hint = "Free some space and run the command again; an existing file is unchanged."
            raise RunError(error.message, where=error.where, hint=hint) from error
        raise


def defuse(cell: object) -> object:
    """Return a cell with a quote before it if a spreadsheet would read its text as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def _write_csv(file: IO[bytes], header: Sequence[str], rows: Iterator[list[object]], defuse_formulas: bool) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([defuse(cell) for cell in row] if defuse_formulas else row)
    text.detach()


def _write_jsonl(file: IO[bytes], header: Sequence[str], rows: Iterator[list[object]]) -> None:
    for row in rows:
        line = json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False)
        file.write(line.encode("utf-8", "backslashreplace") + b"\n")


def _write_parquet(file: IO[bytes], header: Sequence[str], rows: Iterator[list[object]], spelling: Spelling) -> None:
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
