"""Small files that unpack to gigabytes are refused in seconds, by caps that name themselves; repetition is read."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from submillion.data import allowance, arrow
from submillion.data.read import iter_records, read_dataset, read_records
from submillion.errors import DataError

LONG = "a " * 500_000
MANY = 20_000_000


@contextmanager
def small_and_quick() -> Iterator[None]:
    """Hold the block to 5 s of processor time and 256 MiB on top of what the process has."""
    Path("/proc/self/clear_refs").write_text("5")
    before, started = read_peak(), time.process_time()
    yield
    assert time.process_time() - started < 5
    assert read_peak() - before < 256 << 20


def read_peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def codes(count: int) -> pa.Array:
    return pa.array(np.zeros(count, np.int8))


def share_view(count: int) -> pa.Array:
    """Return string views that all show one long text."""
    _, views, *data = pa.array([LONG, LONG], pa.string_view()).buffers()
    return pa.Array.from_buffers(pa.string_view(), count, [None, pa.py_buffer(views.to_pybytes()[:16] * count), *data])


ARROW: dict[str, tuple[Callable[[], pa.Array], str | None, str]] = {
    "null column": (lambda: pa.nulls(MANY), None, "20,000,000 rows in .* more than the 2,097,152 allowed"),
    "one run": (
        lambda: pa.RunEndEncodedArray.from_arrays(pa.array([MANY], pa.int32()), pa.array(["x"])),
        None,
        "20,000,000 rows in",
    ),
    "dictionary": (lambda: pa.DictionaryArray.from_arrays(codes(6000), [LONG]), None, "unpack to 3,906 MiB or more"),
    "run of a long text": (
        lambda: pa.RunEndEncodedArray.from_arrays(pa.array([6000], pa.int32()), pa.array([LONG])),
        None,
        "unpack to 3,906 MiB or more",
    ),
    "views": (lambda: share_view(6000), None, "unpack to 3,906 MiB or more"),
    "zstd": (lambda: pa.array(["b" * 10_000]).take(codes(100_000)), "zstd", "unpack to 95. MiB or more"),
    "lz4": (lambda: pa.array(["b" * 10_000]).take(codes(100_000)), "lz4", "unpack to 95. MiB or more"),
    "lists of nothing": (
        lambda: pa.FixedSizeListArray.from_arrays(pa.nulls(100_000_000), 50_000_000),
        None,
        "column 'text' is of type fixed_size_list.*neither texts nor numbers",
    ),
}


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("name", ARROW)
def test_arrow_bombs_are_refused(tmp_path: Path, name: str, new: Callable[..., Any]) -> None:
    make, compression, message = ARROW[name]
    path = tmp_path / "a.arrow"
    table = pa.table({"text": make()})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema, options=options) as writer:
        writer.write_table(table)
    del table
    for read in (lambda: list(iter_records(str(path))), lambda: read_dataset(str(path))):
        with small_and_quick(), pytest.raises(DataError, match=message):
            read()


def test_arrow_columns_are_counted(tmp_path: Path) -> None:
    table = pa.table({f"c{number}": ["x"] for number in range(allowance.MAX_COLUMNS + 1)})
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, tmp_path / "a.parquet")
    for name in ("a.arrow", "a.parquet"):
        with small_and_quick(), pytest.raises(DataError, match="10,001 columns, more than 10,000"):
            read_records(str(tmp_path / name))


PARQUET: dict[str, tuple[Callable[[], pa.Array], dict[str, Any], str]] = {
    "null column": (lambda: pa.nulls(MANY, pa.string()), {"row_group_size": MANY}, "20,000,000 rows in"),
    "one value": (
        lambda: pa.DictionaryArray.from_arrays(codes(MANY), ["x"]),
        {"row_group_size": MANY, "compression": "zstd"},
        "20,000,000 rows in",
    ),
    "dictionary": (lambda: pa.DictionaryArray.from_arrays(codes(6000), [LONG]), {}, "unpack to 3,906 MiB or more"),
    "page": (
        lambda: pa.array([LONG]).take(codes(300)),
        {"compression": "zstd", "use_dictionary": False},
        "a page of column 'text' has 300 values in 300,0.* bytes, more than",
    ),
    "list": (lambda: pa.array([["a"]]), {}, "column 'text' is of type list"),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_bombs_are_refused(tmp_path: Path, name: str) -> None:
    make, options, message = PARQUET[name]
    pq.write_table(pa.table({"text": make()}), tmp_path / "a.parquet", **options)
    for read in (lambda path: list(iter_records(path)), read_dataset):
        with small_and_quick(), pytest.raises(DataError, match=message):
            read(str(tmp_path / "a.parquet"))


def test_a_page_header_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": ["abcdefg"]}), file, compression="none", use_dictionary=False)
    content = file.getvalue()
    # Every number of 32 bits in the first page's header, its sizes and the number of its values, becomes 2**31 - 1.
    places = [place for place in range(4, 30) if content[place] == 0x15]
    assert len(places) >= 4
    for place in places:
        (tmp_path / "a.parquet").write_bytes(content[: place + 1] + b"\xfe\xff\xff\xff\x0f" + content[place + 2 :])
        with small_and_quick(), pytest.raises(DataError):
            read_records(str(tmp_path / "a.parquet"))


# A footer whose statistics of sizes do not fit the column; asking the library for that column ends the process.
DAMAGED_STATISTICS = (
    "c-jka3^EjD5$$3TeZuS`Dj~`s#K54jRsU}SD}yUL!zO=olYsn7i~-S2Ghd1>_*%j6f2wt9&dEiQoAUGDr*65S(OGkAk&dT8>"
    "%~9q`&gHod1)6UbIo5aQo3sa`~Huvw^^iKNo`|RSyyoG(6dc-FJ~{0p4*z+(vjccrd=;-6n&dnV7Y)*k8y~o-(^P)?Nz^K+J"
    "v@Fe%sQ1I$&$gl>0vx<T9VL_6u@R)>4zvP*BlQl~)z)pY*o*Y%a5fjPTaZpGUsR{7sU*&C0u<Wli|Jp3S)n_staB6gbD}`_9"
    "F^Th5+0?v9+i<!ayC?q`Ni)`frHb@SooMQUr$v+n(QR4*r<iHYH?i2K9PC87+XZ&*Y<bVN6BiVBFbiL%L<F=&W9o4)kfoHZ|"
    "2&3oLq?!}53Pj+=Hm`X4ym<S3oKm*B);VJ_|12d4jfs>J?Uce}%Y{o80CWe>3DrcOhS^)#rPBg#=Xdo<D736<1Ft7sEhvygN"
    "q_6=Q!3Ft6CB+;-mQ!hQW?pJ>G0-swm_+SR9m5LNAi)7s1b2hNf~^b;8BixM)vI_;l4P=GsApg`EA<p*k+d;okYFoL&PdHo6"
    "lGx$<xyplU@1whC{bnbkpb!f3$W%SCZ*;;MZ`96O3Fy;s4>Wh@<^I8un9;)G>Gy5WyJn)ifv+5>tRvjAQVE9IzZnuh%zw%2>"
    "~EwBerE3qokvx8ql3UYmm){*blMb9kbX!Mzv*ZYP(o*cpKB;4c3xuFmuIT@dAxe;}F}x&LAlx!Q&Vd<R5MY2>^)&O!^>T=?D"
    "UWju7DO=veOPl<w%}=$P*4oDLRqa&mNZ1u;qjfa=S^N}WMODp)oUq93RUDCq9!nC$2R<_AJFfn`HO;g*1PBBUH0K~he|k>Or"
    "BNnn0DR7oI|E(Z~wAR5T`0LepvlP8Gu%>p{g0&E|W{XkhqWc$HZd!Tp~tOO_+l#}Wa=!npQkY|ukC`c?SEKM!ZO)e<VO)M(P"
    "FIOl_Eh^5;&r>im(=*UBl+*zx6HrQtV`5+k02Utr;7>(|"
)


def test_damaged_statistics_of_a_column_end_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(zlib.decompress(base64.b85decode(DAMAGED_STATISTICS)))
    script = "import sys; from submillion.data.read import read_records; read_records(sys.argv[1])"
    process = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert "DataError" in process.stderr
    assert process.returncode == 1


def test_two_million_rows_of_a_few_texts_are_read(tmp_path: Path) -> None:
    count = 2_000_000
    texts = pa.DictionaryArray.from_arrays(pa.array(np.arange(count) % 20, pa.int8()), [f"text {n}" for n in range(20)])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 2 * count
    found = 0
    Path("/proc/self/clear_refs").write_text("5")
    before = read_peak()
    for found, record in enumerate(iter_records(str(tmp_path / "a.parquet")), start=1):
        if found % 400_000 == 7:
            assert record.text == f"text {(found - 1) % 20}"
    assert found == count
    assert read_peak() - before < 128 << 20


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_shared_values_keep_their_order_their_gaps_and_their_slices(tmp_path: Path, suffix: str) -> None:
    rows = [None if n % 7 == 3 else f"text {n % 5}" for n in range(9000)]
    columns = {"text": pa.array(rows).dictionary_encode()}
    if suffix == "arrow":
        columns["label"] = pa.DictionaryArray.from_arrays(
            pa.array([1, None, 0] * 3000, pa.int8()), pa.array(["x", None])
        )
        columns["id"] = pa.RunEndEncodedArray.from_arrays(
            pa.array(range(1, 9001), pa.int32()), pa.array(map(str, range(9000)))
        )
    table = pa.table(columns).slice(5)
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path, row_group_size=5000)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, 6000)
    records = list(iter_records(str(path)))
    assert [record.text for record in records] == [row or "" for row in rows[5:]]
    if suffix == "arrow":
        assert [record.id for record in records] == [str(n) for n in range(5, 9000)]


def test_a_stream_without_its_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"text": ["a", "b"]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, 1)
    content = path.read_bytes()
    assert content.endswith(b"\xff\xff\xff\xff\0\0\0\0")
    path.write_bytes(content[:-8])
    with pytest.raises(DataError, match="the mark of its end is missing"):
        read_records(str(path))


def test_names_that_are_no_utf8_are_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"textual": ["a", "b"]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(path.read_bytes().replace(b"textual", b"te\xfftual"))
    with pytest.raises(DataError, match="Arrow file is cut off or damaged"):
        read_records(str(path))


def test_saved_folders_read_no_files_from_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.arrow"
    table = pa.table({"text": ["secret"]})
    with pa.OSFile(str(elsewhere), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    folder = tmp_path / "saved"
    folder.mkdir()
    for name in ("../elsewhere.arrow", str(elsewhere), "..", "", "\0", "x" * 300, 3):
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(DataError):
            read_records(str(folder))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "link.arrow"}]}))
    (folder / "link.arrow").symlink_to(elsewhere)
    with pytest.raises(DataError, match="leads out of the folder"):
        read_records(str(folder))


# ---------------------------------------------------------------------------------------------------------- pickles


def pickle_table(table: pa.Table) -> bytes:
    """Return a pickled dataset that holds a table as it is."""
    dataset = datasets.Dataset.from_dict({"text": ["a"]})
    dataset._data = datasets.table.InMemoryTable(table)
    return pickle.dumps(dataset)


def nest_blocks(depth: int) -> bytes:
    """Return a dataset whose table is joined with itself, again and again."""
    content = b"cpyarrow.lib\n_reconstruct_table\n(]cpyarrow.lib\nschema\n(]tRtR"  # no columns, so no rows to count
    for _ in range(depth):
        joined = b"cdatasets.table\nConcatenationTable\n)\x81}X\x06\0\0\0blocks]("
        content = joined + content + b"q\x01h\x01esb"
    return b"\x80\x02cdatasets.arrow_dataset\nDataset\n)\x81}X\x05\0\0\0_data" + content + b"sb."


def nest_masks(depth: int) -> bytes:
    """Return a Series whose masked array has a masked array as values and as mask, again and again."""
    masked = b"cpandas.arrays\nIntegerArray\n)\x81"
    content = b"]"
    for _ in range(depth):
        content = masked + b"}(X\x05\0\0\0_data" + content + b"q\x01X\x05\0\0\0_maskh\x01ub"
    return b"\x80\x02}X\x04\0\0\0text" + content + b"s."


TUPLES = b")" + b"q\x01h\x01\x86" * 60  # a tuple of itself twice, sixty times: 2**60 leaves in 240 bytes
FROM_BUFFER = b"cnumpy.core.numeric\n_frombuffer\n"
EMPTY_BLOCK = (
    b"\x80\x02cpandas\nDataFrame\n)\x81}X\x04\0\0\0_mgrcpandas.core.internals.managers\nBlockManager\n("
    b"(cpandas._libs.internals\n_unpickle_block\n("
    + FROM_BUFFER
    + b"(C\0cnumpy\ndtype\nX\x02\0\0\0i8\x85R(J\0\x2d\x31\x01J\0\0\0\0tX\x01\0\0\0CtR"
    b"cbuiltins\nslice\n(J\0\0\0\0J\0\x2d\x31\x01J\x01\0\0\0tRJ\x02\0\0\0tRt"
    b"(cpandas\n_new_Index\n(cpandas\nRangeIndex\n}(X\x05\0\0\0startJ\0\0\0\0X\x04\0\0\0stopJ\0\x2d\x31\x01"
    b"X\x04\0\0\0stepJ\x01\0\0\0utRttRsb."
)
PICKLES: dict[str, Callable[[], bytes]] = {
    "nested joins": lambda: nest_blocks(60),
    "nested masks": lambda: nest_masks(60),
    "path of nested tuples": lambda: b"\x80\x02cdatasets.arrow_dataset\nDataset\n)\x81}X\x05\0\0\0_data"
    b"cdatasets.table\nMemoryMappedTable\n)\x81}X\x04\0\0\0path"
    + TUPLES
    + b"sbsb.",
    "twenty million empty columns": lambda: EMPTY_BLOCK,
    "one row of many keys, many times": lambda: pickle.dumps([{f"k{n}": "x" for n in range(9000)}] * 400_000),
    "one long text, many times": lambda: pickle.dumps({"text": [LONG] * 6000}),
    "one long text as bytes, many times": lambda: b"\x80\x02]X" + struct.pack("<I", len(LONG)) + LONG.encode()
    + b"q\x01c_codecs\nencode\nq\x020(" + b"h\x02h\x01\x85R" * 20_000 + b"e.",
    "one null array": lambda: pickle_table(pa.table({"text": pa.nulls(MANY)})),
    "a dictionary of one long text": lambda: pickle_table(
        pa.table({"text": pa.DictionaryArray.from_arrays(codes(6000), [LONG[:200_000]])})
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_pickled_bombs_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.pkl"
    path.write_bytes(PICKLES[name]())
    for read in (lambda: read_dataset(str(path)), lambda: list(iter_records(str(path)))):
        with small_and_quick(), pytest.raises(DataError):
            read()


def test_a_byte_order_of_nested_tuples_is_not_hashed(tmp_path: Path) -> None:
    path = tmp_path / "rows.pkl"
    dtype = b"cnumpy\ndtype\nX\x02\0\0\0i8\x85RK\x01" + TUPLES + b"\x86b"
    path.write_bytes(b"\x80\x03" + FROM_BUFFER + b"(C\x08\x07\0\0\0\0\0\0\0" + dtype + b"(J\x01\0\0\0tX\x01\0\0\0CtR.")
    with small_and_quick():
        assert [record.text for record in read_records(str(path))] == ["7"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_that_are_no_characters_make_no_texts(tmp_path: Path, order: str) -> None:
    path = tmp_path / "rows.pkl"
    content = pickle.dumps(np.array(["ab", "cd"], f"{order}U2"))
    path.write_bytes(content)
    assert [record.text for record in read_records(str(path))] == ["ab", "cd"]
    number = struct.Struct(f"{order}I")
    path.write_bytes(content.replace(number.pack(ord("b")), number.pack(0x110000)))
    with pytest.raises(DataError, match="no character"):
        read_records(str(path))


def test_repeated_rows_of_pickles_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.pkl"
    path.write_bytes(pickle.dumps([{"text": "a"}] * 200_000))
    assert len(read_records(str(path))) == 200_000
    masked = pd.DataFrame({"text": ["a", "b"], "n": pd.array([1, None], dtype="Int64")})
    path.write_bytes(pickle.dumps(masked))
    assert [record.text for record in read_records(str(path))] == ["a", "b"]


def test_one_text_beyond_the_length_of_a_field_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.arrow"
    batch = pa.record_batch([pa.array(["a" * 20_000_000]), pa.array(["x"])], names=["text", "label"])
    with pa.ipc.new_file(path, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_batch(batch)
    monkeypatch.setattr(arrow, "read_slice", lambda part: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match="a field is longer than 1,048,576 characters"):
        read_records(str(path))
