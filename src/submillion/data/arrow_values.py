"""Turn slices of validated Arrow columns into Python values, and say beforehand how long their texts are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_VIEW_BYTES = 16


def is_flat(kind: pa.DataType) -> bool:
    """Return whether a type is one of texts, numbers, truth values or nothing, stored in whatever way."""
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        inner = kind.value_type
        return not (types.is_dictionary(inner) or types.is_run_end_encoded(inner)) and is_flat(inner)
    return bool(
        _has_texts(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def holds_texts(kind: pa.DataType) -> bool:
    """Return whether a column of a type holds texts, stored in whatever way."""
    is_shared = pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    return _has_texts(kind.value_type if is_shared else kind)


def _has_texts(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def measure_texts(column: pa.Array) -> tuple[int, int]:
    """Return the bytes of all texts in a column, each counted as often as it appears, and of its longest; else 0, 0."""
    parts = _find_parts(column)
    values = column if parts is None else parts[0]
    if not _has_texts(values.type):
        return 0, 0
    lengths = _measure_each(values)
    if parts is not None:
        lengths = lengths[parts[1][parts[1] >= 0]]
    return int(lengths.sum()), int(lengths.max(initial=0))


def _measure_each(texts: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_string_view(texts.type):
        views = texts.buffers()[1]
        if views is None:
            return np.zeros(len(texts), np.int64)
        lengths = np.frombuffer(views, np.int32)[:: _VIEW_BYTES // 4]
        return lengths[texts.offset : texts.offset + len(texts)].astype(np.int64)
    measured = pc.binary_length(texts).fill_null(0)
    return np.asarray(measured.to_numpy(zero_copy_only=False)).astype(np.int64)


def read_slice(column: pa.Array) -> list[object]:
    """Return the values of a column; where texts are stored once and referred to, they are decoded once."""
    parts = _find_parts(column)
    if parts is None:
        values: list[object] = column.to_pylist()
        return values
    stored, codes = parts
    used, places = np.unique(codes, return_inverse=True)
    known = stored.take(pa.array(np.maximum(used, 0))).to_pylist() if len(stored) else [None] * len(used)
    if len(used) and used[0] < 0:
        known[0] = None
    return [known[place] for place in places.tolist()]


def _find_parts(column: pa.Array) -> tuple[pa.Array, NDArray[Any]] | None:
    """Return the stored values and each row's position in them (negative: none); None where values are not shared."""
    if pa.types.is_dictionary(column.type):
        codes = np.asarray(
            column.indices.fill_null(-1 if column.indices.null_count else 0).to_numpy(zero_copy_only=False)
        )
        return column.dictionary, codes.astype(np.int64)
    if pa.types.is_run_end_encoded(column.type):
        ends = np.asarray(column.run_ends.to_numpy(zero_copy_only=False))
        rows = np.arange(column.offset, column.offset + len(column))
        return column.values, np.searchsorted(ends, rows, side="right")
    return None
