"""Read rows from pickles: datasets in memory, pandas frames, lists and dicts. Nothing in them is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from submillion.data.arrow import BinaryTable, find_class_names
from submillion.data.pickle_tree import Node, parse_pickle
from submillion.data.pickle_values import (
    MAX_ROWS,
    Column,
    UnsupportedError,
    describe,
    read_cell,
    read_frame,
    read_name,
    read_series,
    read_values,
)
from submillion.errors import DataError

_HINT = (
    "A pickle may hold a datasets.Dataset in memory, a pandas DataFrame or Series, or a list or dict of texts; "
    "anything else is better saved as CSV or parquet."
)


def open_pickle(path: Path) -> BinaryTable:
    """Open a pickle of rows.

    Raises:
        DataError: It would run code, is damaged, or holds no table.
    """
    content = parse_pickle(path)
    try:
        columns, class_names = _find_columns(content, path)
    except DataError:
        raise
    except _DAMAGE as error:
        raise _explain(error, path) from None

    names = tuple(columns)

    def iter_rows(wanted: Sequence[int]) -> Iterator[tuple[int, Sequence[object]]]:
        try:
            values = [columns[names[position]]() for position in wanted]
        except _DAMAGE as error:
            raise _explain(error, path) from None
        if len({len(column) for column in values}) > 1:
            raise DataError("its columns have different lengths", where=str(path), hint="Write the file again.")
        yield from enumerate(zip(*values, strict=True), start=1)

    return BinaryTable(names, iter_rows, class_names)


# What crafted or damaged content can raise while it is decoded; the trees that cause it are inert.
_DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError, RecursionError,
    ZeroDivisionError, pa.ArrowException,
)  # fmt: skip


def _explain(error: BaseException, path: Path) -> DataError:
    if isinstance(error, DataError):
        return error
    if isinstance(error, UnsupportedError):
        return DataError(f"holds no table of texts: {error}", where=str(path), hint=_HINT)
    return DataError(f"the pickle is damaged: {error!s:.200}", where=str(path), hint="Write the file again.")


def _find_columns(content: object, path: Path) -> tuple[Mapping[str, Column], Mapping[str, tuple[str, ...]]]:
    if isinstance(content, list):
        return _columns_of_list(content), {}
    if isinstance(content, dict):
        if not content or not all(isinstance(value, (list, tuple, Node)) for value in content.values()):
            raise UnsupportedError("a dict whose values are not all columns")
        return {read_name(key): partial(read_values, value) for key, value in content.items()}, {}
    if isinstance(content, Node):
        if content.name == "datasets.Dataset":
            return _columns_of_dataset(content, path)
        if content.name == "pandas.DataFrame":
            return read_frame(content), {}
        if content.name == "pandas.Series":
            name = content.state.get("_name", content.state.get("name"))
            return {name if isinstance(name, str) else "text": lambda: read_series(content)}, {}
        if content.name.startswith("numpy."):
            return {"text": lambda: read_values(content)}, {}
    raise UnsupportedError(f"found {describe(content)}")


def _columns_of_list(rows: list[Any]) -> Mapping[str, Column]:
    if not all(isinstance(row, dict) for row in rows):
        return {"text": lambda: read_values(rows)}
    names = list(rows[0]) if rows else []
    for number, row in enumerate(rows, start=1):
        if row.keys() != rows[0].keys():
            raise UnsupportedError(f"row {number} has other keys than the first")
    return {read_name(name): partial(_read_key, rows, name) for name in names}


def _read_key(rows: list[dict[Any, Any]], key: object) -> list[object]:
    return [read_cell(row[key]) for row in rows]


def _columns_of_dataset(dataset: Node, path: Path) -> tuple[Mapping[str, Column], Mapping[str, tuple[str, ...]]]:
    state = dataset.state
    columns, class_names = _columns_of_table(state["_data"], path)
    if (chosen := state.get("_indices")) is not None:
        rows, _ = _columns_of_table(chosen, path)
        columns = {name: partial(_take, column, rows["indices"]) for name, column in columns.items()}
    return columns, {**_class_names_of_info(state.get("_info")), **class_names}


def _take(column: Column, row_numbers: Column) -> list[object]:
    values, numbers = column(), row_numbers()
    if not all(isinstance(number, int) and 0 <= number < len(values) for number in numbers):
        raise ValueError("a row number lies outside the table")
    return [values[number] for number in numbers if isinstance(number, int)]


def _class_names_of_info(info: object) -> dict[str, tuple[str, ...]]:
    features = info.state.get("features") if isinstance(info, Node) and isinstance(info.state, dict) else None
    if not isinstance(features, Node):
        return {}
    fields = [
        *(features.args[0].items() if features.args and isinstance(features.args[0], dict) else ()),
        *features.pairs,
    ]
    return {
        read_name(name): tuple(read_name(item) for item in feature.state["names"])
        for name, feature in fields
        if isinstance(feature, Node) and feature.name == "datasets.ClassLabel" and feature.state.get("names")
    }


def _columns_of_table(table: object, path: Path) -> tuple[dict[str, Column], dict[str, tuple[str, ...]]]:
    """Return the columns of a table of `datasets`, which wraps an Arrow table or joins several."""
    if not isinstance(table, Node):
        raise UnsupportedError(f"a data set in {describe(table)}")
    if table.name.startswith("datasets."):
        state = table.state if isinstance(table.state, dict) else {}
        if "path" in state:
            raise DataError(
                f"the pickle holds only the path of a data file, not its rows: {str(state['path'])[:200]!r}",
                where=str(path),
                hint="Save the data set with to_csv or to_parquet instead of pickle.",
            )
        if "blocks" in state:
            return _columns_of_blocks(state["blocks"], path)
        return _columns_of_table(state.get("table"), path)
    if table.name not in {"pyarrow._reconstruct_table", "pyarrow._reconstruct_record_batch"}:
        raise UnsupportedError(f"a data set in {table.name}")
    arrays, schema = table.args
    fields, *metadata = schema.args
    columns: dict[str, Column] = {}
    for array, field in zip(arrays, fields, strict=True):
        columns[read_name(field.args[0])] = partial(read_values, array)
    known = metadata[0] if metadata and isinstance(metadata[0], dict) else {}
    return columns, find_class_names(known)


def _columns_of_blocks(blocks: list[Any], path: Path) -> tuple[dict[str, Column], dict[str, tuple[str, ...]]]:
    """Join blocks: tables side by side within a row of blocks, rows of blocks one below the other."""
    parts: list[dict[str, Column]] = []
    class_names: dict[str, tuple[str, ...]] = {}
    for block in blocks:
        joined: dict[str, Column] = {}
        for table in block if isinstance(block, list) else [block]:
            columns, names = _columns_of_table(table, path)
            joined.update(columns)
            class_names.update(names)
        parts.append(joined)
    if any(part.keys() != parts[0].keys() for part in parts):
        raise UnsupportedError("blocks with different columns")
    return {name: partial(_concatenate, [part[name] for part in parts]) for name in parts[0]}, class_names


def _concatenate(columns: Sequence[Column]) -> list[object]:
    values: list[object] = []
    for column in columns:
        values.extend(column())
        if len(values) > MAX_ROWS:
            raise ValueError("more rows than a file can hold")
    return values
