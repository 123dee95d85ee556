"""Parse a pickle into an inert tree: no name in it is imported, and nothing is called.

A pickle is a program for a small stack machine. This machine builds lists, dicts, strings and numbers, but an object
becomes a `Node` that only records the callable and its arguments. Callables outside a fixed list are refused by name,
so that a harmful pickle is not taken for data.
"""

from __future__ import annotations

import pickletools
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submillion.errors import DataError

MAX_PICKLE_BYTES = 1 << 30
"""Largest file that is read; it is held in memory as a whole."""

_MAX_OPCODES = 100_000_000

_ALLOWED: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(module), re.compile(names))
    for module, names in (
        (r"builtins|__builtin__", "slice|bytearray|bytes|set|frozenset|object"),
        (r"_codecs", "encode"),
        (r"copyreg|copy_reg", "_reconstructor"),
        (r"collections", "OrderedDict"),
        (r"datetime", "datetime|date|timezone|timedelta"),
        (r"numpy(\._?core\.(multiarray|numeric))?", "_reconstruct|ndarray|dtype|_frombuffer|scalar"),
        (
            r"pyarrow\.lib",
            "_reconstruct_table|_reconstruct_record_batch|chunked_array|_restore_array|py_buffer|schema|field|struct|"
            "type_for_alias|dictionary|list_|large_list|map_|timestamp|time32|time64|duration|decimal128",
        ),
        (
            r"datasets\.(arrow_dataset|table|info|splits|features(\.\w+)?|utils\.version)",
            "Dataset|Table|InMemoryTable|MemoryMappedTable|ConcatenationTable|DatasetInfo|PostProcessedInfo|"
            "SupervisedKeysData|NamedSplit|Split|SplitDict|SplitInfo|Version|Features|Value|ClassLabel|Sequence|List|"
            "LargeList|Translation|TranslationVariableLanguages|Array[2-5]D|Image|Audio",
        ),
        (
            r"pandas(\.arrays|\._libs\.(internals|arrays|missing|tslibs\.\w+)|"
            r"\.core\.(frame|series|internals\.\w+|indexes\.\w+|dtypes\.dtypes|arrays\.\w+))?",
            "DataFrame|Series|BlockManager|SingleBlockManager|_unpickle_block|new_block|BlockPlacement|_new_Index|Index|"
            "RangeIndex|Int64Index|UInt64Index|Float64Index|CategoricalIndex|DatetimeIndex|_new_DatetimeIndex|"
            "__pyx_unpickle_NDArrayBacked|ArrowStringArray(Numpy(Semantics)?)?|ArrowExtensionArray|StringArray(Numpy"
            "Semantics)?|Categorical|CategoricalDtype|StringDtype|ArrowDtype|IntegerArray|FloatingArray|BooleanArray|"
            "U?Int(8|16|32|64)Dtype|Float(32|64)Dtype|BooleanDtype|DatetimeArray|TimedeltaArray|DatetimeTZDtype|"
            "NA|NaT|_nat_unpickle|_unpickle_timestamp|Timestamp|NumpyExtensionArray|PandasArray|NumpyEADtype|PandasDtype",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Global:
    """A callable that a pickle names.

    Attributes:
        name: Package and name, such as ``pandas.DataFrame``, without the modules between them.
    """

    name: str


@dataclass(eq=False, slots=True)
class Node:
    """An object that a pickle asks to build.

    Attributes:
        name: Name of the callable, as in `Global.name`.
        args: Arguments of the call.
        state: State to set on the result, if any.
        pairs: Key and value pairs to store in it.
    """

    name: str
    args: tuple[Any, ...]
    state: Any = None
    pairs: list[tuple[object, object]] = field(default_factory=list)


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Opcodes that push their argument."""


class _Mark:
    """Marks the beginning of a group of values on the stack."""


_MARK = _Mark()


def parse_pickle(path: Path) -> object:
    """Return the content of a pickle as plain Python values, with a `Node` for every object.

    Raises:
        DataError: The pickle names a callable that no table needs, is damaged, or is too large.
    """
    size = path.stat().st_size
    if size > MAX_PICKLE_BYTES:
        raise DataError(
            f"the pickle has {size:,} bytes, more than {MAX_PICKLE_BYTES:,}",
            where=str(path),
            hint="Save the rows as parquet.",
        )
    machine = _Machine(path)
    try:
        with warnings.catch_warnings():
            # Old text opcodes are unescaped as Python literals, and warnings about odd escapes do not matter here.
            warnings.simplefilter("ignore", DeprecationWarning)
            return machine.run(pickletools.genops(path.read_bytes()))
    except DataError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, AttributeError) as error:
        raise DataError(
            f"is not a pickle, or is cut off or damaged: {error}", where=str(path), hint="Write the file again."
        ) from None


class _Machine:
    """The stack machine; every opcode that is not in `run` or its table is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.spelled: dict[str, bytes] = {}
        self.actions: dict[str, Callable[[Any], None]] = {
            "POP": lambda _: self.pop(),
            "POP_MARK": lambda _: self.drop_group(),
            "DUP": lambda _: self.stack.append(self.stack[-1]),
            "MARK": lambda _: self.stack.append(_MARK),
            "NONE": lambda _: self.stack.append(None),
            "NEWTRUE": lambda _: self.stack.append(True),
            "NEWFALSE": lambda _: self.stack.append(False),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_SET": lambda _: self.stack.append([]),
            "APPEND": lambda _: self.append([self.pop()]),
            "APPENDS": lambda _: self.append(self.pop_group()),
            "ADDITEMS": lambda _: self.append(self.pop_group()),
            "SETITEM": lambda _: self.set_items([self.stack.pop(-2), self.pop()]),
            "SETITEMS": lambda _: self.set_items(self.pop_group()),
            "LIST": lambda _: self.stack.append(self.pop_group()),
            "FROZENSET": lambda _: self.stack.append(self.pop_group()),
            "TUPLE": lambda _: self.stack.append(tuple(self.pop_group())),
            "TUPLE1": lambda _: self.stack.append((self.pop(),)),
            "TUPLE2": lambda _: self.stack.append((self.stack.pop(-2), self.pop())),
            "TUPLE3": lambda _: self.stack.append((self.stack.pop(-3), self.stack.pop(-2), self.pop())),
            "DICT": lambda _: self.push_dict(self.pop_group()),
            "GET": self.recall,
            "BINGET": self.recall,
            "LONG_BINGET": self.recall,
            "PUT": self.remember,
            "BINPUT": self.remember,
            "LONG_BINPUT": self.remember,
            "MEMOIZE": lambda _: self.remember(len(self.memo)),
            "GLOBAL": lambda arg: self.push_global(*arg.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self.push_global(self.stack.pop(-2), self.pop()),
            "REDUCE": lambda _: self.push_node(self.stack.pop(-2), self.pop()),
            "NEWOBJ": lambda _: self.push_node(self.stack.pop(-2), self.pop()),
            "BUILD": lambda _: self.build(self.pop()),
        }

    def run(self, opcodes: Iterator[tuple[pickletools.OpcodeInfo, object, int | None]]) -> object:
        """Execute the opcodes and return the value that is left on the stack."""
        for count, (opcode, arg, _) in enumerate(opcodes):
            if count > _MAX_OPCODES:
                raise DataError("the pickle has too many parts", where=str(self.path), hint="Save the rows as parquet.")
            name = opcode.name
            if name in _VALUES:
                self.stack.append(bytes(arg) if isinstance(arg, bytearray) else arg)
            elif name in self.actions:
                self.actions[name](arg)
            elif name == "STOP":
                return self.pop()
            elif name not in {"PROTO", "FRAME"}:
                raise self.refuse(f"{name} {arg}" if arg is not None else name)
        raise ValueError("it has no end")

    def refuse(self, what: str) -> DataError:
        """Return the error for a pickle that asks for more than data."""
        return DataError(
            f"the pickle asks for {what[:120]!r}, which no table of texts needs; nothing in it was executed",
            where=str(self.path),
            hint="Do not open this file elsewhere unless you trust its source. Save data as CSV or parquet instead.",
        )

    def pop(self) -> Any:
        """Take the top value, which must not be a mark."""
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    def pop_group(self) -> list[object]:
        """Take all values down to the last mark."""
        group: list[object] = []
        while (value := self.stack.pop()) is not _MARK:
            group.append(value)
        group.reverse()
        return group

    def drop_group(self) -> None:
        """Forget all values down to the last mark."""
        self.pop_group()

    def append(self, values: list[object]) -> None:
        """Append to the list on top; sets are kept as lists, since hashing nested values could overflow the stack."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("values are appended to something that is not a list")
        target.extend(values)

    def set_items(self, group: list[object]) -> None:
        """Store pairs in the dict or object on top."""
        target = self.stack[-1]
        pairs = list(zip(group[::2], group[1::2], strict=True))
        if isinstance(target, Node):
            target.pairs.extend(pairs)
        elif isinstance(target, dict):
            for key, value in pairs:
                # Keys must be flat, since the hash of a deeply nested tuple overflows the stack of the process.
                if not isinstance(key, (str, bytes, int, float, type(None))):
                    raise self.refuse(f"a dictionary key of type {type(key).__name__}")
                target[key] = value
        else:
            raise ValueError("items are set on something that is not a dictionary")

    def push_dict(self, group: list[object]) -> None:
        """Push a new dict."""
        self.stack.append({})
        self.set_items(group)

    def recall(self, index: Any) -> None:
        """Push a remembered value."""
        self.stack.append(self.memo[int(index)])

    def remember(self, index: Any) -> None:
        """Remember the top value; the index is a dict's key, so that a huge one costs nothing."""
        if self.stack[-1] is _MARK:
            raise ValueError("a value is missing")
        self.memo[int(index)] = self.stack[-1]

    def push_global(self, module: object, name: object) -> None:
        """Push the name of a callable, if a table may need it."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a callable has no name")
        if not any(modules.fullmatch(module) and names.fullmatch(name) for modules, names in _ALLOWED):
            raise self.refuse(f"{module}.{name}")
        package = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module.partition(".")[0])
        self.stack.append(Global(f"{package}.{name}"))

    def push_node(self, function: object, args: object) -> None:
        """Push a record of a call instead of its result."""
        if not isinstance(function, Global):
            raise self.refuse(f"a call of {type(function).__name__}")
        if not isinstance(args, tuple):
            raise ValueError("a call has no arguments")
        if function.name == "copyreg._reconstructor" and args and isinstance(args[0], Global):
            function, args = args[0], ()
        if function.name in {"_codecs.encode", "builtins.bytes"}:
            # Pickles before protocol 3 spell bytes like this, also as dictionary keys.
            self.stack.append(self.spell_bytes(args))
        else:
            self.stack.append(Node(function.name, args))

    def build(self, state: object) -> None:
        """Record the state of the object on top."""
        target = self.stack[-1]
        if not isinstance(target, Node):
            raise self.refuse(f"a change of {type(target).__name__}")
        target.state = state

    def spell_bytes(self, args: tuple[object, ...]) -> bytes:
        """Return the bytes that a text spells, as the same object for the same text, since it may be shared."""
        text, encoding = (*args, "latin1") if len(args) == 1 else args or ("", "latin1")
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError("bytes have an unknown spelling")
        if text not in self.spelled:
            self.spelled[text] = text.encode("latin-1")
        return self.spelled[text]
