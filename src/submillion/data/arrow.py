"""Read parquet and Arrow files batch by batch, each validated in full before a value is touched.

Arrow trusts the offsets in its buffers; crafted ones crash the process at the first read, so nothing is read from a
batch that has not passed ``validate(full=True)``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from submillion.errors import DataError

BATCH_ROWS = 4096
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class BinaryTable:
    """Rows of a binary file.

    Attributes:
        names: Column names in file order.
        iter_rows: Takes positions of wanted columns; yields (1-based row number, their values).
        class_names: Class names in label order, by column, where the file carries them.
        strings: Positions of the columns that can hold texts; None where every column can.
    """

    names: tuple[str, ...]
    iter_rows: Callable[[Sequence[int]], Iterator[tuple[int, Sequence[object]]]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strings: tuple[int, ...] | None = None


@contextmanager
def damage_is_data_error(path: Path, kind: str) -> Iterator[None]:
    """Turn what pyarrow raises on damaged input into a `DataError` that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"the {kind} file is cut off or damaged: {str(error).splitlines()[0] if str(error) else error!r}",
            where=str(path),
            hint="Fetch or write the file again.",
        ) from None


def open_parquet(path: Path) -> BinaryTable:
    """Open a parquet file; reads its footer only.

    Raises:
        DataError: The file is cut off or damaged.
    """
    with damage_is_data_error(path, "parquet"), pq.ParquetFile(path) as file:
        schema = file.schema_arrow

    def iter_batches(wanted: Sequence[int]) -> Iterator[pa.RecordBatch]:
        # Read piece by piece: a row group can be the whole file, and would be held at once.
        with pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False) as file:
            # Names with dots mean nested fields to pyarrow, so columns are picked after reading where one has a dot.
            names = [schema.names[position] for position in wanted]
            columns = None if any("." in name for name in names) else names
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield batch.select(names)

    return _make_table(path, "parquet", schema, iter_batches)


def open_arrow(path: Path) -> BinaryTable:
    """Open an Arrow file, of the stream format (as `datasets` writes) or the file format (Feather 2).

    Raises:
        DataError: The file is cut off or damaged.
    """
    return _open_arrow_files(path, [path])


def open_saved_folder(folder: Path) -> BinaryTable:
    """Open a folder written by ``Dataset.save_to_disk``.

    Raises:
        DataError: It is none, or its files are missing or damaged.
    """
    state = read_json_file(folder / "state.json")
    files = state.get("_data_files")
    names: list[Any] = (
        [item.get("filename") for item in files if isinstance(item, dict)] if isinstance(files, list) else []
    )
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise DataError("names no data files", where=str(folder / "state.json"), hint="Save the data set again.")
    if state.get("_indices_files"):
        raise DataError(
            "was saved with a row mapping", where=str(folder), hint="Save again with a newer version of datasets."
        )
    return _open_arrow_files(folder, [folder / name for name in names])


def read_json_file(path: Path) -> dict[str, Any]:
    """Read a small JSON object that stands beside data files.

    Raises:
        DataError: It is missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(values, dict):
        raise DataError(f"expected an object, found {type(values).__name__}", where=str(path))
    return values


def _open_arrow_files(path: Path, files: Sequence[Path]) -> BinaryTable:
    for file in files:
        if not file.is_file():
            raise DataError("a data file is missing", where=str(file), hint="Copy the whole folder again.")
    with damage_is_data_error(path, "Arrow"), _open_reader(files[0]) as reader:
        schema = reader.schema

    def iter_batches(wanted: Sequence[int]) -> Iterator[pa.RecordBatch]:
        for file in files:
            with damage_is_data_error(file, "Arrow"), _open_reader(file) as reader:
                if reader.schema.names != schema.names:
                    raise DataError("its columns differ from those of the first file", where=str(file))
                is_file = isinstance(reader, pa.ipc.RecordBatchFileReader)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader
                for batch in batches:
                    # Checked whole, before the unwanted columns go: selecting reads nothing.
                    yield batch.select(list(wanted))

    return _make_table(path, "Arrow", schema, iter_batches)


@contextmanager
def _open_reader(path: Path) -> Iterator[Any]:
    # A plain file, not a memory map: a file that shrinks under a map kills the process.
    with pa.OSFile(str(path), "rb") as source:
        magic = source.read(6)
        source.seek(0)
        with pa.ipc.open_file(source) if magic == b"ARROW1" else pa.ipc.open_stream(source) as reader:
            yield reader


def _make_table(
    path: Path, kind: str, schema: pa.Schema, iter_batches: Callable[[Sequence[int]], Iterator[pa.RecordBatch]]
) -> BinaryTable:
    def iter_rows(wanted: Sequence[int]) -> Iterator[tuple[int, Sequence[object]]]:
        number = 0
        with damage_is_data_error(path, kind):
            for batch in iter_batches(wanted):
                batch.validate(full=True)
                # A batch can be the whole file; as Python values, only a part of it exists at a time.
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    part = batch.slice(start, BATCH_ROWS)
                    for values in zip(*(column.to_pylist() for column in part.columns), strict=True):
                        number += 1
                        yield number, values

    strings = tuple(position for position, kind in enumerate(schema.types) if _holds_text(kind))
    return BinaryTable(tuple(schema.names), iter_rows, find_class_names(schema.metadata or {}), strings)


def _holds_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def find_class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the class names that `datasets` stores under the key ``huggingface`` of a schema, by column."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {
        column: tuple(str(name) for name in feature["names"])
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }
