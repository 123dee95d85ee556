"""Decode the arrays in a pickle's tree (numpy, Arrow and pandas) from their bytes and without their own code.

Sizes are compared with the available bytes before anything is allocated, and Arrow arrays are validated in full before
a value is read.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from submillion.tables.allowance import MAX_COLUMNS, Allowance
from submillion.tables.arrow_values import read_slice
from submillion.tables.pickle_tree import Global, Node

Column = Callable[[], list[object]]
"""Function that reads one column; called only for wanted columns."""

MAX_ROWS = 20_000_000

_SLOT_BYTES = 8  # a reference in a list
_CHUNK_BYTES = 8192  # making an array takes as long as copying so many bytes
_MAX_BUFFERS = 8

_DTYPE = re.compile(r"[iu][1248]|f[248]|b1|O8?|[US][0-9]{1,7}")
_MAX_INTEGER_BITS = 64
_NDARRAYS = {"numpy._reconstruct", "numpy._frombuffer"}
_ARROW_TYPES = (
    *("string", "large_string", "utf8", "large_utf8", "null", "bool", "halffloat", "float", "double"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
_MISSING_NODES = {"pandas._nat_unpickle", "pandas.NaT"}
_ARROW_ARRAYS = {"pandas.ArrowStringArray", "pandas.ArrowStringArrayNumpySemantics", "pandas.ArrowExtensionArray"}
_STRING_ARRAYS = {
    "pandas.StringArray",
    "pandas.StringArrayNumpySemantics",
    "pandas.NumpyExtensionArray",
    "pandas.PandasArray",
}
_MASKED_ARRAYS = {"pandas.IntegerArray", "pandas.FloatingArray", "pandas.BooleanArray"}


class UnsupportedError(ValueError):
    """A part of the tree is not a column of texts or numbers."""


class Decoder:
    """Decodes the arrays of one pickle and counts their bytes, since a few bytes may refer to one buffer many times.

    Args:
        allowance: Allowance of the pickle's file.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance

    def read_cell(self, value: object) -> object:
        """Return a plain value for one cell: numpy scalars decoded, missing values as None."""
        if isinstance(value, Global) and value.name in {"pandas.NA", "pandas.NaT"}:
            return None
        if isinstance(value, Node):
            if value.name == "numpy.scalar" and len(value.args) == 2:
                return self._frombuffer(self._read_bytes(value.args[1]), value.args[0], (1,)).tolist()[0]
            if value.name in _MISSING_NODES:
                return None
            raise UnsupportedError(f"a cell is a {value.name}")
        if isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS:
            # Python refuses to write longer numbers, with an untyped error.
            raise UnsupportedError(f"a number of {value.bit_length():,} bits")
        return value

    def read_values(self, value: object) -> list[object]:
        """Return the values of a one-dimensional column of any supported kind.

        Raises:
            UnsupportedError: The column is of another kind.
            ValueError: Sizes or offsets do not fit the bytes.
        """
        if isinstance(value, (list, tuple)):
            self._allowance.charge_bytes(_SLOT_BYTES * len(value))
            return [self.read_cell(item) for item in value]
        if not isinstance(value, Node):
            raise UnsupportedError(f"a column is {describe(value)}")
        if value.name in _NDARRAYS:
            return self._read_plain(value)
        return self.read_arrow(value) if value.name.startswith("pyarrow.") else self._read_pandas(value)

    def _read_plain(self, value: object) -> list[object]:
        if not isinstance(value, Node) or value.name not in _NDARRAYS:
            raise UnsupportedError(f"a column is {describe(value)}")
        array = self.read_ndarray(value)
        if array.ndim != 1:
            raise UnsupportedError(f"a column has {array.ndim} dimensions")
        return self._to_list(array)

    def _read_pandas(self, value: Node) -> list[object]:
        name, state = value.name, value.state
        if name == "pandas._new_Index":
            return self._read_index(value)
        if name == "pandas.Series":
            return self.read_series(value)
        if name == "pandas.__pyx_unpickle_NDArrayBacked" and isinstance(value.args[0], Global):
            return self._read_backed(value.args[0].name, state if state is not None else value.args[-1])
        if name in _ARROW_ARRAYS and isinstance(state, dict):
            return self.read_arrow(state.get("_pa_array", state.get("_data")))
        if name in _MASKED_ARRAYS and isinstance(state, dict):
            # Both sides must be plain arrays: masked arrays nested in both would double the work at every depth.
            pairs = zip(self._read_plain(state["_data"]), self._read_plain(state["_mask"]), strict=True)
            return [None if masked else item for item, masked in pairs]
        return self._read_backed(name, state)

    def _read_index(self, node: Node) -> list[object]:
        kind, state = node.args
        if not isinstance(state, dict):
            raise UnsupportedError("an index has no state")
        if kind == Global("pandas.RangeIndex"):
            numbers = range(state["start"], state["stop"], state["step"])
            if len(numbers) > MAX_COLUMNS:
                raise ValueError(f"an index has {len(numbers):,} names, more than {MAX_COLUMNS:,}")
            return list(numbers)
        return self.read_values(state["data"])

    def _read_backed(self, name: str, state: object) -> list[object]:
        """Read a pandas array that wraps a numpy array: strings, or the codes of categories."""
        parts = list(state.values()) if isinstance(state, dict) else list(state) if isinstance(state, tuple) else []
        arrays = [p for p in parts if isinstance(p, Node) and p.name in _NDARRAYS]
        if len(arrays) != 1:
            raise UnsupportedError(f"a column is a {name}")
        if name in _STRING_ARRAYS:
            return self.read_values(arrays[0])
        dtypes = [p for p in parts if isinstance(p, Node) and p.name == "pandas.CategoricalDtype"]
        if name != "pandas.Categorical" or len(dtypes) != 1:
            raise UnsupportedError(f"a column is a {name}")
        categories = self.read_values(dtypes[0].state["categories"])
        codes = self.read_ndarray(arrays[0]).tolist()
        return [categories[code] if code >= 0 else None for code in codes]

    def read_series(self, node: Node) -> list[object]:
        """Return the values of a pandas Series."""
        columns = self.read_blocks(_get_manager(node))
        if len(columns) != 1:
            raise UnsupportedError("a Series has several columns")
        return next(iter(columns.values()))()

    def read_frame(self, node: Node) -> dict[str, Column]:
        """Return functions that read the columns of a pandas DataFrame, by column name."""
        manager = _get_manager(node)
        _, axes = _get_blocks(manager)
        names = self.read_values(axes[0])
        columns = self.read_blocks(manager)
        if len(columns) != len(names):
            raise ValueError("the column names do not fit the columns")
        result = {read_name(name): columns[position] for position, name in enumerate(names)}
        if len(result) != len(names):
            raise UnsupportedError("the column names of a DataFrame repeat")
        return result

    def read_blocks(self, manager: Node) -> dict[int, Column]:
        """Return functions that read the columns of a pandas block manager, by position."""
        columns: dict[int, Column] = {}
        num_placed = 0
        for values, placement in _get_blocks(manager)[0]:
            if manager.name == "pandas.SingleBlockManager":
                columns[len(columns)] = partial(self.read_values, values)
                continue
            positions = self._read_placement(placement)
            num_placed += len(positions)
            if num_placed > MAX_COLUMNS:
                raise ValueError(f"it has more than {MAX_COLUMNS:,} columns")
            array = self.read_ndarray(values) if isinstance(values, Node) and values.name in _NDARRAYS else None
            if array is not None and array.ndim == 2:
                if len(array) != len(positions):
                    raise ValueError("a block does not fit its place")
                columns.update(
                    {position: partial(self._to_list, row) for position, row in zip(positions, array, strict=True)}
                )
            elif len(positions) == 1:
                columns[positions[0]] = partial(self.read_values, values)
            else:
                raise UnsupportedError("a block has an unknown shape")
        return columns

    def _read_placement(self, placement: object) -> Sequence[int]:
        if isinstance(placement, Node) and placement.name == "pandas.BlockPlacement":
            placement = placement.args[0]
        if isinstance(placement, Node) and placement.name == "builtins.slice":
            start, stop, step = placement.args
            return range(start, stop, 1 if step is None else step)
        return [position for position in self.read_values(placement) if isinstance(position, int)]

    def _to_list(self, array: NDArray[Any]) -> list[object]:
        self._allowance.charge_bytes(_SLOT_BYTES * array.size)
        values: list[object] = array.tolist()
        if array.dtype.kind == "O":
            return [self.read_cell(value) for value in values]
        return [value.decode() if isinstance(value, bytes) else value for value in values]

    def read_ndarray(self, node: Node) -> NDArray[Any]:
        """Return a numpy array from its recorded bytes or objects."""
        if node.name == "numpy._frombuffer":
            buffer, dtype, shape, order, *rest = node.args
            array = _shape(self._frombuffer(self._read_bytes(buffer), dtype, tuple(shape)), shape, order)
            return np.transpose(array, rest[0]) if order == "K" and rest and rest[0] is not None else array
        if not isinstance(node.state, tuple) or len(node.state) != 5:
            raise UnsupportedError("an array has no content")
        _, shape, dtype, is_fortran, content = node.state
        if not isinstance(content, list):
            return _shape(
                self._frombuffer(self._read_bytes(content), dtype, tuple(shape)), shape, "F" if is_fortran else "C"
            )
        if len(content) != _count_items(shape):
            raise ValueError("the shape of an array does not fit its content")
        objects = np.empty(len(content), np.object_)
        for position, item in enumerate(content):
            objects[position] = item
        return _shape(objects, shape, "F" if is_fortran else "C")

    def _frombuffer(self, content: bytes, dtype: object, shape: tuple[int, ...]) -> NDArray[Any]:
        if not isinstance(dtype, Node) or dtype.name != "numpy.dtype" or not isinstance(dtype.args[0], str):
            raise UnsupportedError(f"numbers of type {describe(dtype)}")
        if not _DTYPE.fullmatch(dtype.args[0]):
            raise UnsupportedError(f"numbers of type {dtype.args[0][:20]!r}")
        kind = np.dtype(dtype.args[0])
        if kind.kind == "O" or not kind.itemsize:
            raise ValueError("objects cannot be read from bytes")
        if isinstance(dtype.state, tuple) and dtype.state[1] in ("<", ">"):
            kind = kind.newbyteorder(dtype.state[1])
        if kind.itemsize * _count_items(shape) != len(content):
            raise ValueError("the shape of an array does not fit its bytes")
        if kind.kind == "U" and content and np.frombuffer(content, f"{kind.byteorder}u4").max() > sys.maxunicode:
            # numpy would make strings of such numbers, and the first use of one crashes the process.
            raise ValueError("a text holds a number that is not a character")
        return np.frombuffer(content, kind)

    def _read_bytes(self, value: object) -> bytes:
        if isinstance(value, Node) and value.name in {"builtins.bytearray", "pyarrow.py_buffer"}:
            if value.args[1:] in (("latin1",), ("latin-1",)) and isinstance(value.args[0], str):
                self._allowance.charge_bytes(len(value.args[0]))
                return value.args[0].encode("latin-1")
            return self._read_bytes(value.args[0]) if value.args else b""
        if isinstance(value, bytes):
            self._allowance.charge_bytes(len(value))
        if not isinstance(value, bytes):
            raise UnsupportedError(f"expected bytes, found {describe(value)}")
        return value

    def read_arrow(self, value: object) -> list[object]:
        """Return the values of a recorded Arrow array or chunked array."""
        values: list[object] = []
        chunks = value.args[0] if isinstance(value, Node) and value.name == "pyarrow.chunked_array" else [value]
        for chunk in chunks:
            array = self._make_arrow(chunk)
            array.validate(full=True)
            self._allowance.check_rows(len(values) + len(array))
            self._allowance.charge_bytes(_CHUNK_BYTES + _SLOT_BYTES * len(array))
            values.extend(read_slice(array))
        return values

    def _make_arrow(self, value: object) -> pa.Array:
        if not isinstance(value, Node) or value.name != "pyarrow._restore_array":
            raise UnsupportedError(f"a column is {describe(value)}")
        kind, length, null_count, offset, buffers, children, dictionary = value.args[0]
        if not all(isinstance(n, int) for n in (length, null_count, offset)) or not (
            0 <= length <= MAX_ROWS and 0 <= offset <= MAX_ROWS and -1 <= null_count <= length
        ):
            raise ValueError("an Arrow array has an impossible length")
        if children:
            raise UnsupportedError("a column has nested values")
        if len(buffers) > _MAX_BUFFERS:
            raise ValueError(f"an array has {len(buffers):,} buffers")
        contents = [None if buffer is None else pa.py_buffer(self._read_bytes(buffer)) for buffer in buffers]
        if isinstance(kind, Node) and kind.name == "pyarrow.dictionary":
            codes = pa.Array.from_buffers(_make_type(kind.args[0]), length, contents, null_count, offset)
            codes.validate(full=True)
            values = self._make_arrow(dictionary)
            values.validate(full=True)
            return pa.DictionaryArray.from_arrays(codes, values)
        return pa.Array.from_buffers(_make_type(kind), length, contents, null_count, offset)


def describe(value: object) -> str:
    """Return the kind of a value, for messages."""
    return value.name if isinstance(value, (Node, Global)) else type(value).__name__


def _get_manager(node: Node) -> Node:
    state = node.state if isinstance(node.state, dict) else {}
    manager = state.get("_mgr", state.get("_data"))
    if not isinstance(manager, Node):
        raise UnsupportedError(f"a {node.name} has no blocks")
    return manager


def read_name(name: object) -> str:
    """Return the name of a column, which is a string or a number."""
    if not isinstance(name, (str, int)):
        raise UnsupportedError(f"a column name is {describe(name)}")
    return str(name)


def _get_blocks(manager: Node) -> tuple[list[tuple[object, object]], Sequence[object]]:
    """Return (values, placement) pairs and the axes.

    Managers of pandas before 1.3 have them in a state, and later ones in the arguments of a call.
    """
    if isinstance(manager.state, tuple) and len(manager.state) >= 4:
        parts = manager.state[3]["0.14.1"]
        return [(block["values"], block["mgr_locs"]) for block in parts["blocks"]], parts["axes"]
    blocks, axes = manager.args
    blocks = blocks if isinstance(blocks, (list, tuple)) else [blocks]
    axes = axes if isinstance(axes, (list, tuple)) else [axes]
    if not all(isinstance(b, Node) and b.name in {"pandas._unpickle_block", "pandas.new_block"} for b in blocks):
        raise UnsupportedError(f"a {manager.name} has unknown blocks")
    return [(b.args[0], b.args[1]) for b in blocks], axes


def _shape(array: NDArray[Any], shape: Sequence[int], order: str) -> NDArray[Any]:
    return np.reshape(array, tuple(shape), order="F" if order == "F" else "C")


def _count_items(shape: Sequence[int]) -> int:
    if len(shape) > 2 or not all(isinstance(n, int) and 0 <= n <= MAX_ROWS for n in shape):
        raise ValueError(f"an array of {len(shape)} dimensions, or of more than {MAX_ROWS:,} rows")
    return math.prod(shape)


def _make_type(kind: object) -> pa.DataType:
    if not isinstance(kind, Node) or kind.name != "pyarrow.type_for_alias":
        raise UnsupportedError(f"a column of type {describe(kind)}")
    if kind.args[0] not in _ARROW_TYPES:
        raise UnsupportedError(f"a column of type {describe(kind.args[0])}")
    return pa.type_for_alias(kind.args[0])
