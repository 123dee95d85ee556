from __future__ import annotations

import collections
import copyreg
import io
import os
import pickle
import pickletools
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from submillion.data.columns import Columns
from submillion.data.read import read_dataset, read_records
from submillion.errors import DataError

datasets.disable_progress_bars()
FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y"])})
SMALL = datasets.Dataset.from_dict({"text": ["a", "b\u00e9", ""], "label": [0, 1, 0]}, features=FEATURES)
FRAME = pd.DataFrame({"id": [7, 8], "text": ["a", None], "label": ["v", "u"], "n": [1.5, 2.0]})

TABLES: dict[str, tuple[Any, list[tuple[str, int | None]]]] = {
    "dataset": (SMALL, [("a", 0), ("b\u00e9", 1), ("", 0)]),
    "selected": (SMALL.select([2, 1]), [("", 0), ("b\u00e9", 1)]),
    "filtered": (SMALL.filter(lambda row: row["label"] == 0), [("a", 0), ("", 0)]),
    "mapped": (SMALL.map(lambda row: {"text": row["text"] + "!"}), [("a!", 0), ("b\u00e9!", 1), ("!", 0)]),
    "joined": (datasets.concatenate_datasets([SMALL.select([0]), SMALL.select([1])]), [("a", 0), ("b\u00e9", 1)]),
    "frame": (FRAME, [("a", 1), ("", 0)]),
    "frame of objects": (FRAME.astype(object), [("a", 1), ("", 0)]),
    "frame of categories": (FRAME.astype({"label": "category"}), [("a", 1), ("", 0)]),
    "frame of python strings": (FRAME.astype({"text": pd.StringDtype("python")}), [("a", 1), ("", 0)]),
    "frame of nullable numbers": (
        pd.DataFrame({"text": ["a", "b"], "label": pd.array([1, 0], dtype="Int64")}),
        [("a", 1), ("b", 0)],
    ),
    "series": (pd.Series(["a", "b"], name="text"), [("a", None), ("b", None)]),
    "series of objects": (pd.Series(["a", "b"], dtype=object), [("a", None), ("b", None)]),
    "array": (np.array(["a", "bb"]), [("a", None), ("bb", None)]),
    "list of texts": (["a", "b"], [("a", None), ("b", None)]),
    "list of dicts": ([{"text": "a", "label": np.int64(1)}, {"text": "b", "label": 0}], [("a", 1), ("b", 0)]),
    "dict of lists": ({"text": ["a", "b"], "label": np.array([1, 0])}, [("a", 1), ("b", 0)]),
}


def write(folder: Path, content: bytes) -> Path:
    path = folder / "rows.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_in_every_protocol(tmp_path: Path, name: str, protocol: int) -> None:
    table, rows = TABLES[name]
    dataset = read_dataset(str(write(tmp_path, pickle.dumps(table, protocol=protocol))))
    records = dataset.splits["all"]
    assert [(record.text, record.label) for record in records] == rows
    assert records[1].source == "rows.pkl:2"


def test_class_names_and_ids_of_pickles(tmp_path: Path) -> None:
    dataset = read_dataset(str(write(tmp_path, pickle.dumps(SMALL))))
    assert dataset.labels is not None
    assert dataset.labels.names == ("x", "y")
    frame = read_dataset(str(write(tmp_path, pickle.dumps(FRAME))))
    assert [record.id for record in frame.splits["all"]] == ["7", "8"]


def test_many_columns_of_one_kind_keep_their_names(tmp_path: Path) -> None:
    columns = {name: [f"{name}{row}" for row in range(3)] for name in ("b", "title", "a", "description")}
    frame = pd.DataFrame({**columns, "m": [1, 2, 3], "k": [4.0, 5.0, 6.0], "n": [7, 8, 9]}).astype(
        dict.fromkeys(columns, object)
    )
    path = str(write(tmp_path, pickle.dumps(frame)))
    assert read_records(path)[2].columns == ("title2", "description2")
    assert [r.columns for r in read_records(path, Columns(text=("n", "m")))] == [("7", "1"), ("8", "2"), ("9", "3")]


def test_frames_of_old_pandas_and_numpy_are_read(tmp_path: Path) -> None:
    # pandas 1.2 kept its blocks in a state, numpy 1 its functions in numpy.core.
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    dtype = b"cnumpy\ndtype\n(VO8\nI0\nI1\ntR(I3\nV|\nNNNI-1\nI-1\nI63\ntb"
    values = reconstruct + b"(I1\n(I1\nI2\nt" + dtype + b"I00\n(Va\nVb\nltb"
    names = reconstruct + b"(I1\n(I1\nt" + dtype + b"I00\n(Vtext\nltb"
    index = b"cpandas.core.indexes.base\n_new_Index\n(cpandas.core.indexes.base\nIndex\n(Vdata\n" + names + b"dtR"
    block = b"(Vvalues\n" + values + b"Vmgr_locs\ncbuiltins\nslice\n(I0\nI1\nI1\ntRd"
    state = b"(NNN(V0.14.1\n(Vaxes\n(" + index + b"NlVblocks\n(" + block + b"lddt"
    manager = b"cpandas.core.internals.managers\nBlockManager\n)\x81" + state + b"b"
    frame = b"\x80\x02cpandas.core.frame\nDataFrame\n)\x81(V_data\n" + manager + b"db."
    assert [record.text for record in read_records(str(write(tmp_path, frame)))] == ["a", "b"]


def test_a_memory_mapped_dataset_is_refused_with_advice(tmp_path: Path) -> None:
    SMALL.save_to_disk(tmp_path / "saved")
    mapped = datasets.load_from_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"(?s)holds only the path of a data file.*to_csv or to_parquet"):
        read_records(str(write(tmp_path, pickle.dumps(mapped))))


# ------------------------------------------------------------------------------------------------ evil pickles


class Reduce:
    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def make_evil(sentinel: Path) -> dict[str, bytes]:
    command = f"touch {sentinel}"
    shell = command.encode()
    text = b"X" + struct.pack("<I", len(shell)) + shell
    return {
        "reduce": pickle.dumps(Reduce(os.system, command)),
        "reduce inside a list": pickle.dumps(["a", Reduce(os.system, command)]),
        "reduce inside a frame": pickle.dumps(pd.Series(["a", Reduce(os.system, command)], dtype=object)),
        "reduce as a label": pickle.dumps({"text": ["a", "b"], "label": Reduce(os.system, command)}),
        "reduce in a column nobody wants": pickle.dumps({"text": ["a", "b"], "z": Reduce(os.system, command)}),
        "global": b"cposix\nsystem\n(S'" + shell + b"'\ntR.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R.",
        "inst": b"(S'" + shell + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + shell + b"'\no.",
        "newobj ex": b"\x80\x04csubprocess\nPopen\n(" + text + b"t}(X\x05\x00\x00\x00shell\x88u\x92.",
        "newobj ex of an allowed class": b"\x80\x04cpandas\nDataFrame\n)}X\x03\x00\x00\x00_mgr" + text + b"s\x92.",
        "eval": b'c__builtin__\neval\n(S\'__import__("os").system("' + shell + b"\")'\ntR.",
        "getattr chain": b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR(S'"
        + shell
        + b"'\ntR.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x10os.system.__call__\x93" + text + b"\x85R.",
        "dotted name below an allowed class": b"\x80\x04\x8c\x06pandas\x8c\x12DataFrame.__init__\x93"
        + text
        + b"\x85R.",
        "module of an allowed package": b"cpandas.core.computation.eval\neval\n(S'" + shell + b"'\ntR.",
        "numpy runstring": b"cnumpy.testing\nrundocs\n(S'" + shell + b"'\ntR.",
        "datasets loader": b"cdatasets\nload_dataset\n(S'" + shell + b"'\ntR.",
        "codecs beyond latin-1": b"c_codecs\nencode\n(V" + shell + b"\nVrot13\ntR.",
        "build on a global": b"cpandas\nDataFrame\n}S'__setstate__'\ncos\nsystem\nsb.",
        "build with setstate": b"cpandas\nDataFrame\n)\x81}S'__setstate__'\ncos\nsystem\nsbS'" + shell + b"'\nb.",
        "build on a call's result": b"cnumpy\ndtype\n(S'O8'\ntR(cos\nsystem\nS'" + shell + b"'\ntb.",
        "call of a built object": b"cpandas\nDataFrame\n)\x81(S'" + shell + b"'\ntR.",
        "extension": b"\x80\x02\x82\xf0)R.",
        "extension 2": b"\x80\x02\x83\xf0\x00)R.",
        "persistent id": b"Pos.system\n.",
        "binary persistent id": b"S'" + shell + b"'\nQ.",
        "set items of a global": b"ccollections\nOrderedDict\n)Rcos\nsystem\nS'" + shell + b"'\ns.",
        "partial": b"cfunctools\npartial\n(cos\nsystem\nS'" + shell + b"'\ntR)R.",
    }


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.mark.parametrize("name", make_evil(Path("x")))
def test_no_evil_pickle_is_executed(tmp_path: Path, sentinel: Path, name: str) -> None:
    copyreg.add_extension("os", "system", 0xF0)
    try:
        with pytest.raises(DataError) as caught:
            read_records(str(write(tmp_path, make_evil(sentinel)[name])))
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert not sentinel.exists()
    assert "rows.pkl" in caught.value.where


def test_these_pickles_are_evil(tmp_path: Path, sentinel: Path) -> None:
    # The samples would prove nothing if they were broken.
    for name in ("reduce", "global", "stack global", "inst", "obj", "getattr chain", "reduce in a column nobody wants"):
        sentinel.unlink(missing_ok=True)
        pickle.loads(make_evil(sentinel)[name])
        assert sentinel.exists(), name


def test_the_refused_callable_is_named(tmp_path: Path, sentinel: Path) -> None:
    with pytest.raises(DataError, match=r"posix\.system.*nothing in it was executed"):
        read_records(str(write(tmp_path, make_evil(sentinel)["global"])))


def nest(opening: bytes, depth: int, closing: bytes = b"") -> bytes:
    return b"\x80\x02" + opening * depth + b"N" + closing * depth


BOMBS = {
    "number of too many bytes": b"(cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'i8'\ntRc__builtin__\nbytearray\n"
    b"(S'aaaaaaaaaaaaaaaa'\nS'latin1'\ntRtRl.",
    "integer too long to write": b"\x80\x02]\x8b" + struct.pack("<i", 9000) + b"\x11" * 9000 + b"a.",
    "huge memo index": b"\x80\x02Nr\xff\xff\xff\xff.",
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", (1 << 63) - 1) + b"x.",
    "huge integer": b"I" + b"9" * 100_000 + b"\n.",
    "negative length": b"\x80\x02\x8b\xff\xff\xff\xffx.",
    "deep tuples": nest(b"", 0) + b"\x85" * 500_000 + b".",
    "deep tuple as a key": b"\x80\x02}N" + b"\x85" * 500_000 + b"Ns.",
    "deep lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "a list in itself": b"]q\x00h\x00a.",
    "no end": b"]",
    "nothing": b"",
    "only a mark": b"(.",
    "text": b"hello, I am no pickle",
    "array of impossible shape": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    b"(I1\n(L99999999999L\nt"
    b"cnumpy\ndtype\n(S'i8'\ntRI00\nS''\ntb.",
    "array of objects from bytes": b"cnumpy.core.numeric\n_frombuffer\n(c__builtin__\nbytearray\n"
    b"(S'aaaaaaaa'\nS'latin1'\ntR"
    b"cnumpy\ndtype\n(S'O8'\ntR(I1\ntS'C'\ntR.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_damage_end_in_a_data_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        read_records(str(write(tmp_path, BOMBS[name])))


def test_a_pickle_of_very_many_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.pkl"
    path.write_bytes(pickle.dumps([{"text": f"text {number}"} for number in range(50)]))
    assert len(read_records(str(path))) == 50
    monkeypatch.setattr("submillion.tables.pickle_tree._MAX_OPCODES", 100)
    with pytest.raises(DataError, match="too many parts"):
        read_records(str(path))


def test_crafted_arrow_offsets_are_caught_before_a_read(tmp_path: Path) -> None:
    content = bytearray(pickle.dumps(SMALL, protocol=5))
    offsets = struct.pack("<4i", 0, 1, 4, 4)
    assert content.count(offsets) == 1
    for crafted in ((0, 1 << 30, 1 << 30, 1 << 30), (-5, 1, 4, 4), (0, 4, 1, 4)):
        changed = bytes(content).replace(offsets, struct.pack("<4i", *crafted))
        with pytest.raises(DataError, match="damaged"):
            read_records(str(write(tmp_path, changed)))


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    rng = random.Random(5)
    samples = [pickle.dumps(table, protocol=protocol) for table, _ in TABLES.values() for protocol in (2, 5)]
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(1500):
        content = bytearray(rng.choice(samples))
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.choice([0, 1, 127, 255, rng.randrange(256)])
        path = write(tmp_path, bytes(content))
        try:
            read_dataset(str(path))
            outcomes["read"] += 1
        except DataError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 500


def test_size_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("submillion.tables.pickle_tree.MAX_PICKLE_BYTES", 10)
    with pytest.raises(DataError, match="more than 10"):
        read_records(str(write(tmp_path, pickle.dumps(["text"] * 5))))


def test_all_callables_of_real_tables_are_allowed_and_no_others() -> None:
    from submillion.tables.pickle_tree import _ALLOWED

    def is_allowed(module: str, name: str) -> bool:
        return any(modules.fullmatch(module) and names.fullmatch(name) for modules, names in _ALLOWED)

    for module, name in [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("pandas", "eval"),
    ]:
        assert not is_allowed(module, name)
    for table, _ in TABLES.values():
        for opcode, arg, _ in pickletools.genops(io.BytesIO(pickle.dumps(table, protocol=2))):
            if opcode.name == "GLOBAL":
                assert is_allowed(*str(arg).split(" "))
