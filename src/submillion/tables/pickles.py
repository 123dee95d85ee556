"""Read rows from pickles of datasets in memory, pandas frames, lists and dicts. Nothing in them is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from submillion.errors import DataError
from submillion.tables.allowance import Allowance, check_num_columns
from submillion.tables.arrow import BinaryTable, find_class_names
from submillion.tables.pickle_tree import Node, parse_pickle
from submillion.tables.pickle_values import Column, Decoder, UnsupportedError, describe, read_name

_HINT = (
    "A pickle may hold a datasets.Dataset in memory, a pandas DataFrame or Series, or a list or dict of texts. "
    "Save anything else as CSV or parquet."
)


def open_pickle(path: Path) -> BinaryTable:
    """Open a pickle of rows.

    Raises:
        DataError: The pickle would run code, is damaged, holds no table, or refers to its content so often that it
            would fill the memory.
    """
    content = parse_pickle(path)
    size = path.stat().st_size
    try:
        columns, class_names = _Finder(path, Allowance(path, size)).find_columns(content)
    except _DAMAGE as error:
        raise _explain(error, path) from None
    check_num_columns(path, len(columns))
    names = tuple(columns)

    def iter_rows(wanted: Sequence[int]) -> Iterator[tuple[int, Sequence[object]]]:
        allowance = Allowance(path, size)
        try:
            found, _ = _Finder(path, allowance).find_columns(content)
            values = [found[names[position]]() for position in wanted]
        except _DAMAGE as error:
            raise _explain(error, path) from None
        if len({len(column) for column in values}) > 1:
            raise DataError("its columns have different lengths", where=str(path), hint="Write the file again.")
        allowance.charge_rows(max(map(len, values), default=0))
        for column in values:
            # A shared text is in memory once, but it is cleaned and encoded for every row.
            allowance.charge_bytes(sum(len(value) for value in column if isinstance(value, str)))
        yield from enumerate(zip(*values, strict=True), start=1)

    return BinaryTable(names, iter_rows, class_names)


# Decoding crafted or damaged content can raise these errors, but nothing in the tree is executed.
_DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError, RecursionError,
    ZeroDivisionError, pa.ArrowException,
)  # fmt: skip

_MAX_PARTS = 1_000_000
"""Most columns in all tables that a data set joins."""


def _explain(error: BaseException, path: Path) -> DataError:
    if isinstance(error, DataError):
        return error
    if isinstance(error, UnsupportedError):
        return DataError(f"holds no table of texts: {error}", where=str(path), hint=_HINT)
    return DataError(f"the pickle is damaged: {error!s:.200}", where=str(path), hint="Write the file again.")


class _Finder:
    """Finds the columns in the tree of a pickle; their values are decoded on request.

    Args:
        path: Path of the file, for messages.
        allowance: Allowance that counts the decoded values.
    """

    def __init__(self, path: Path, allowance: Allowance) -> None:
        self._path = path
        self._allowance = allowance
        self._decoder = Decoder(allowance)
        self._num_parts = 0

    def find_columns(self, content: object) -> tuple[Mapping[str, Column], Mapping[str, tuple[str, ...]]]:
        """Return functions that read the columns, and class names, by name."""
        if isinstance(content, list):
            return self._columns_of_list(content), {}
        if isinstance(content, dict):
            if not content or not all(isinstance(value, (list, tuple, Node)) for value in content.values()):
                raise UnsupportedError("some values of the dict are not columns")
            return {read_name(key): partial(self._decoder.read_values, value) for key, value in content.items()}, {}
        if isinstance(content, Node):
            if content.name == "datasets.Dataset":
                return self._columns_of_dataset(content)
            if content.name == "pandas.DataFrame":
                return self._decoder.read_frame(content), {}
            if content.name == "pandas.Series":
                name = content.state.get("_name", content.state.get("name"))
                return {name if isinstance(name, str) else "text": lambda: self._decoder.read_series(content)}, {}
            if content.name.startswith("numpy."):
                return {"text": lambda: self._decoder.read_values(content)}, {}
        raise UnsupportedError(f"found {describe(content)}")

    def _columns_of_list(self, rows: list[Any]) -> Mapping[str, Column]:
        if not all(isinstance(row, dict) for row in rows):
            return {"text": lambda: self._decoder.read_values(rows)}
        names = list(rows[0]) if rows else []
        checked: set[int] = set()  # a shared row is checked once
        for number, row in enumerate(rows, start=1):
            if id(row) not in checked and row.keys() != rows[0].keys():
                raise UnsupportedError(f"row {number} has other keys than the first")
            checked.add(id(row))
        return {read_name(name): partial(self._read_key, rows, name) for name in names}

    def _read_key(self, rows: list[dict[Any, Any]], key: object) -> list[object]:
        return self._decoder.read_values([row[key] for row in rows])

    def _columns_of_dataset(self, dataset: Node) -> tuple[Mapping[str, Column], Mapping[str, tuple[str, ...]]]:
        state = dataset.state
        columns, class_names = self._columns_of_table(state["_data"])
        if (chosen := state.get("_indices")) is not None:
            rows, _ = self._columns_of_table(chosen)
            columns = {name: partial(_take, column, rows["indices"]) for name, column in columns.items()}
        return columns, {**_class_names_of_info(state.get("_info")), **class_names}

    def _columns_of_table(
        self, table: object, *, is_part: bool = False
    ) -> tuple[dict[str, Column], dict[str, tuple[str, ...]]]:
        """Return the columns of a table of `datasets`, which wraps an Arrow table or joins several."""
        if not isinstance(table, Node):
            raise UnsupportedError(f"the data set is {describe(table)}")
        if table.name.startswith("datasets."):
            state = table.state if isinstance(table.state, dict) else {}
            if "path" in state:
                place = state["path"] if isinstance(state["path"], str) else describe(state["path"])
                raise DataError(
                    f"the pickle holds only the path of a data file, not its rows: {place[:200]!r}",
                    where=str(self._path),
                    hint="Save the data set with to_csv or to_parquet instead of pickle.",
                )
            if "blocks" in state:
                # datasets never nests these, and each level of a table joined with itself would double the work.
                if is_part:
                    raise UnsupportedError("joined tables are nested in joined tables")
                return self._columns_of_blocks(state["blocks"])
            return self._columns_of_table(state.get("table"), is_part=is_part)
        if table.name not in {"pyarrow._reconstruct_table", "pyarrow._reconstruct_record_batch"}:
            raise UnsupportedError(f"the data set is a {table.name}")
        arrays, schema = table.args
        fields, *metadata = schema.args
        self._num_parts += 1 + len(arrays)
        if self._num_parts > _MAX_PARTS:
            raise ValueError(f"the tables that it joins have more than {_MAX_PARTS:,} columns")
        columns: dict[str, Column] = {}
        for array, field in zip(arrays, fields, strict=True):
            columns[read_name(field.args[0])] = partial(self._decoder.read_values, array)
        known = metadata[0] if metadata and isinstance(metadata[0], dict) else {}
        self._allowance.charge_bytes(sum(len(value) for value in known.values() if isinstance(value, bytes)))
        return columns, find_class_names(known)

    def _columns_of_blocks(self, blocks: list[Any]) -> tuple[dict[str, Column], dict[str, tuple[str, ...]]]:
        """Join blocks: tables within a row of blocks go side by side, and rows of blocks below each other."""
        parts: list[dict[str, Column]] = []
        class_names: dict[str, tuple[str, ...]] = {}
        for block in blocks:
            joined: dict[str, Column] = {}
            for table in block if isinstance(block, list) else [block]:
                columns, names = self._columns_of_table(table, is_part=True)
                joined.update(columns)
                class_names.update(names)
            parts.append(joined)
        if any(part.keys() != parts[0].keys() for part in parts):
            raise UnsupportedError("its blocks have different columns")
        return {name: partial(self._concatenate, [part[name] for part in parts]) for name in parts[0]}, class_names

    def _concatenate(self, columns: Sequence[Column]) -> list[object]:
        values: list[object] = []
        for column in columns:
            values.extend(column())
            self._allowance.check_rows(len(values))
        return values


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
    labels = {
        read_name(name): feature.state["names"]
        for name, feature in fields
        if isinstance(feature, Node) and feature.name == "datasets.ClassLabel" and feature.state.get("names")
    }
    known = {id(names): names for names in labels.values()}
    spelled = {key: tuple(read_name(item) for item in names) for key, names in known.items()}
    return {name: spelled[id(names)] for name, names in labels.items()}
