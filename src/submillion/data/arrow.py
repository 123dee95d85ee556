"""Read parquet and Arrow files batch by batch, each validated in full before a value is touched.

Arrow trusts the offsets in its buffers; crafted ones crash the process at the first read, so nothing is read from a
batch that has not passed ``validate(full=True)``. It also allocates what a file promises, so sizes are compared with
the file's own before anything is unpacked.
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

from submillion.data.allowance import MAX_RATIO, Allowance, check_num_columns
from submillion.data.arrow_messages import iter_promises
from submillion.data.arrow_values import holds_texts, is_flat, measure_texts, read_slice
from submillion.data.parquet_pages import iter_pages, read_columns
from submillion.data.table import MAX_FIELD_CHARS, field_too_long
from submillion.errors import DataError

BATCH_ROWS = 4096

MAX_PAGE_BYTES = 128 << 20
"""Largest page of a parquet column, unpacked, unless it has a fair share of that in the file: most have 1 MB."""

MAX_PAGE_VALUES = 16 << 20
_MAX_FOOTER_BYTES = 64 << 20
_MAX_ROW_GROUPS = 100_000
_BATCH_BYTES = 64 << 20
_MAX_CHARACTER_BYTES = 4  # of UTF-8
_MAX_JSON_BYTES = 64 << 20
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
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
        LookupError,
        AttributeError,
    ) as error:
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
        DataError: The file is cut off or damaged, or has more columns or row groups than can be read.
    """
    with damage_is_data_error(path, "parquet"):
        _read_footer(path)
        with pq.ParquetFile(path) as file:
            check_num_columns(path, file.metadata.num_columns)
            schema, num_groups = file.schema_arrow, file.num_row_groups
    if num_groups > _MAX_ROW_GROUPS:
        raise DataError(
            f"the file has {num_groups:,} row groups, more than {_MAX_ROW_GROUPS:,}",
            where=str(path),
            hint="Write it again with larger row groups.",
        )

    def iter_batches(wanted: Sequence[int], allowance: Allowance) -> Iterator[pa.RecordBatch]:
        names = [schema.names[position] for position in wanted]
        texts = [name for name in names if _is_text(schema.field(name).type)]
        # Read piece by piece: a row group can be the whole file, and would be held at once. Repeated texts stay as
        # they are stored, a dictionary and positions in it.
        with (
            pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False, read_dictionary=texts) as file,
            path.open("rb") as pages,
        ):
            allowance.charge_rows(file.metadata.num_rows)
            for group, columns in enumerate(read_columns(_read_footer(path))):
                rows = _choose_rows(columns, set(names), pages, path)
                for batch in file.iter_batches(rows, row_groups=[group], columns=names):
                    # A name with a dot brings nested columns along.
                    yield batch.select(names)

    return _make_table(path, "parquet", schema, iter_batches, path.stat().st_size)


def _read_footer(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little")
        if length > min(_MAX_FOOTER_BYTES, size - 8):
            raise ValueError(f"its footer has {length:,} bytes")
        file.seek(size - 8 - length)
        return file.read(length)


def _choose_rows(columns: Sequence[tuple[str, int, int]], names: set[str], pages: Any, path: Path) -> int:
    """Check the pages of the wanted columns in a row group, and return how many rows to decode at a time."""
    rows = BATCH_ROWS
    size = path.stat().st_size
    for name, start, num_bytes in columns:
        if name not in names:
            continue
        if start < 0 or not 0 <= num_bytes <= size - start:
            raise ValueError(f"column {name!r} goes beyond the file")
        for page in iter_pages(pages, start, num_bytes):
            allowed = max(MAX_PAGE_BYTES, MAX_RATIO * page.num_packed)
            if page.num_bytes > allowed or page.num_values > MAX_PAGE_VALUES:
                raise DataError(
                    f"a page of column {name!r} has {page.num_values:,} values in {page.num_bytes:,} "
                    f"bytes, more than the {MAX_PAGE_VALUES:,} values or {allowed:,} bytes allowed",
                    where=str(path),
                    hint="If the file is sound, write it again with smaller pages.",
                )
            if not page.is_dictionary and page.num_values:
                rows = min(rows, max(1, _BATCH_BYTES * page.num_values // max(1, page.num_bytes)))
    return rows


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
    if not names or not all(_is_file_name(name) for name in names):
        raise DataError("names no data files", where=str(folder / "state.json"), hint="Save the data set again.")
    if state.get("_indices_files"):
        raise DataError(
            "was saved with a row mapping", where=str(folder), hint="Save again with a newer version of datasets."
        )
    files = [folder / name for name in names]
    for file in files:
        if file.is_symlink() and file.resolve().parent != folder.resolve():
            raise DataError("leads out of the folder", where=str(file), hint="Copy the file itself into the folder.")
    return _open_arrow_files(folder, files)


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name and name != ".." and "\0" not in name and len(name) < 256


def read_json_file(path: Path) -> dict[str, Any]:
    """Read a small JSON object that stands beside data files.

    Raises:
        DataError: It is missing or damaged.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError(f"it has more than {_MAX_JSON_BYTES:,} bytes")
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
    with damage_is_data_error(files[0], "Arrow"), _open_reader(files[0]) as reader:
        schema = reader.schema
        check_num_columns(files[0], len(schema))

    def iter_batches(wanted: Sequence[int], allowance: Allowance) -> Iterator[pa.RecordBatch]:
        for file in files:
            with damage_is_data_error(file, "Arrow"):
                _check_promises(file, allowance)
                with _open_reader(file) as reader:
                    if reader.schema.remove_metadata() != schema.remove_metadata():
                        raise DataError("its columns differ from those of the first file", where=str(file))
                    for batch in reader:
                        yield batch.select(list(wanted))

    return _make_table(path, "Arrow", schema, iter_batches, sum(file.stat().st_size for file in files))


_FILE_MAGIC, _FILE_START = b"ARROW1", 8
_OLD_MAGIC = b"FEA1"


def _check_promises(path: Path, allowance: Allowance) -> None:
    """Hold what the messages of a file promise against the allowance, and against the file's footer if it has one."""
    # Memory for what is unpacked: what of it are texts is counted once more when they are read.
    unpacked = Allowance(path, path.stat().st_size)
    num_batches = 0
    with path.open("rb") as file:
        is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        file.seek(_FILE_START if is_file else 0)
        for promise in iter_promises(file, path.stat().st_size):
            unpacked.charge_bytes(promise.num_bytes)
            if promise.is_batch:
                allowance.charge_rows(promise.num_rows)
                num_batches += 1
            else:
                unpacked.charge_rows(promise.num_rows)
    if is_file:
        with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
            if reader.num_record_batches != num_batches:
                raise ValueError(f"it holds {num_batches} batches, and its footer tells {reader.num_record_batches}")


@contextmanager
def _open_reader(path: Path) -> Iterator[Any]:
    # A plain file, not a memory map: a file that shrinks under a map kills the process.
    with pa.OSFile(str(path), "rb") as source:
        magic = source.read(len(_FILE_MAGIC))
        if magic.startswith(_OLD_MAGIC):
            raise DataError(
                "is of version 1 of Feather, which is not read", where=str(path), hint="Write it again as version 2."
            )
        # The file format is a stream between a mark and a footer. Its batches are read as a stream too, so that those
        # that were checked are those that are read.
        source.seek(_FILE_START if magic == _FILE_MAGIC else 0)
        with pa.ipc.open_stream(source) as reader:
            yield reader


def _make_table(
    path: Path,
    kind: str,
    schema: pa.Schema,
    iter_batches: Callable[[Sequence[int], Allowance], Iterator[pa.RecordBatch]],
    size: int,
) -> BinaryTable:
    with damage_is_data_error(path, kind):
        names = tuple(schema.names)
        class_names = find_class_names(schema.metadata or {})
        strings = tuple(position for position, kind in enumerate(schema.types) if holds_texts(kind))

    def iter_rows(wanted: Sequence[int]) -> Iterator[tuple[int, Sequence[object]]]:
        for position in wanted:
            _require_flat(schema.field(position), path)
        allowance = Allowance(path, size)
        number = 0
        with damage_is_data_error(path, kind):
            for batch in iter_batches(wanted, allowance):
                batch.validate(full=True)
                # A batch can be the whole file; as Python values, only a part of it exists at a time.
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    parts = [column.slice(start, BATCH_ROWS) for column in batch.columns]
                    for part in parts:
                        num_bytes, longest = measure_texts(part)
                        allowance.charge_bytes(num_bytes)
                        if longest > MAX_FIELD_CHARS * _MAX_CHARACTER_BYTES:
                            raise field_too_long(str(path))
                    for values in zip(*map(read_slice, parts), strict=True):
                        number += 1
                        yield number, values
            if number != allowance.num_rows:
                raise ValueError(f"it holds {number:,} rows, and says that it has {allowance.num_rows:,}")

    return BinaryTable(names, iter_rows, class_names, strings)


def _require_flat(column: pa.Field, path: Path) -> None:
    if not is_flat(column.type):
        raise DataError(
            f"column {column.name!r} is of type {str(column.type)[:80]}, neither texts nor numbers",
            where=str(path),
            hint="Choose the columns with --text, --label and --id, or save the texts as strings.",
        )


def _is_text(kind: pa.DataType) -> bool:
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
