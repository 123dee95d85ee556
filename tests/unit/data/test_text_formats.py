"""Encodings, compression and JSON as they come, and files that are made to hang or to fill the memory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from submillion.data.read import count_rows, iter_records, read_dataset, read_records
from submillion.data.sources import find_source
from submillion.errors import DataError

TEXT = "I don\u2019t \u201clike\u201d caf\u00e9s for \u20ac5"
TABLE = f"text,label\n{TEXT},a\nplain,b\n"


def pack_zip(content: bytes, name: str = "rows.csv", *, others: tuple[str, ...] = ()) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", b"")
        archive.writestr(f"__MACOSX/._{name}", b"\0")
        archive.writestr(f"folder/{name}", content)
        for other in others:
            archive.writestr(other, content)
    return sink.getvalue()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zip": pack_zip,
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl"])
def test_encodings_are_found_and_named(tmp_path: Path, encoding: str, name: str) -> None:
    content = {"a.csv": TABLE, "a.txt": f"{TEXT}\nplain\n", "a.jsonl": json.dumps({"text": TEXT}, ensure_ascii=False)}
    (tmp_path / name).write_bytes(content[name].encode(encoding))
    dataset = read_dataset(str(tmp_path / name))
    assert dataset.splits["all"][0].text == TEXT
    said = "\n".join(dataset.notes)
    assert ("Windows-1252" in said and "don\u2019t \u201clike\u201d" in said) is (encoding == "cp1252")
    assert ("save it as UTF-8" in said) is (encoding == "cp1252")
    assert ("byte order mark" in said) is encoding.startswith(("utf-16", "utf-32"))


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("\u043f\u0440\u0438\u0432\u0435\u0442", "cp1251"),
        ("\u4f60\u597d\u4e16\u754c", "gb18030"),
        ("\u3053\u3093\u3002", "shift-jis"),
    ],
)
def test_other_encodings_are_refused_with_a_hint_that_keeps_every_character(
    tmp_path: Path, content: str, encoding: str
) -> None:
    (tmp_path / "a.csv").write_bytes(f"text\nok\n{content}\n".encode(encoding))
    with pytest.raises(DataError, match=r"(?s)a.csv:3: byte 0x.. at position 0 .*windows-1252"):
        read_dataset(str(tmp_path / "a.csv"))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt"])
def test_every_text_format_is_read_compressed(tmp_path: Path, packing: str, ending: str) -> None:
    rows = [{"text": TEXT}, {"text": "plain"}]
    contents = {".json": json.dumps(rows), ".txt": f"{TEXT}\nplain", ".csv": TABLE, ".tsv": TABLE.replace(",", "\t")}
    content = contents.get(ending, "\n".join(map(json.dumps, rows))).encode()
    path = tmp_path / f"train{ending}{packing}"
    path.write_bytes(pack_zip(content, f"x{ending}") if packing == ".zip" else PACKINGS[packing](content))
    assert [record.text for record in read_records(str(path))] == [TEXT, "plain"]
    assert find_source(str(tmp_path)).splits == {"train": [path]}


def test_a_zip_file_of_any_name_holds_one_file_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(pack_zip(TABLE.encode()))
    assert [record.text for record in iter_records(str(path))] == [TEXT, "plain"]
    path.write_bytes(pack_zip(TABLE.encode(), others=("test.csv",)))
    with pytest.raises(DataError, match=r"(?s)this one holds folder/rows.csv, test.csv.*Unpack it"):
        read_records(str(path))
    path.write_bytes(pack_zip(TABLE.encode(), "rows.exe"))
    with pytest.raises(DataError, match=r"cannot tell the format of 'rows.exe'"):
        read_records(str(path))


@pytest.mark.parametrize("packing", PACKINGS)
def test_damaged_compressed_files_end_in_one_clear_error(tmp_path: Path, packing: str) -> None:
    whole = PACKINGS[packing](TABLE.encode() * 500)
    path = tmp_path / f"a.csv{packing}"
    for damaged in (whole[: len(whole) // 2], whole[:-3], b"plain text", b"\0" * 40):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cut off or damaged"):
            read_records(str(path))


def test_optional_keys_are_empty_where_they_are_missing(tmp_path: Path) -> None:
    rows = [{"title": "a", "label": "x"}, {"body": "b", "label": "y", "title": None}, {"label": "x", "body": "c"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = read_dataset(str(tmp_path / "a.jsonl"))
    assert [record.columns for record in dataset.splits["all"]] == [("a", ""), ("", "b"), ("", "c")]
    assert "a.jsonl: 1 row lacks 'title', read as empty" in dataset.notes
    assert "a.jsonl: 1 row lacks 'body', read as empty" in dataset.notes


@pytest.mark.parametrize("layout", ["lines", "indented", "one line"])
def test_arrays_of_any_layout_are_streamed(tmp_path: Path, layout: str) -> None:
    rows = [
        {"text": f"{TEXT} [{number}], {{", "nested": [{"a": [1, "]"]}], "label": "ab"[number % 2]}
        for number in range(9000)
    ]
    texts = {
        "lines": " \n[" + ",\n".join(map(json.dumps, rows)) + "]\n\n",
        "indented": json.dumps(rows, indent=2),
        "one line": json.dumps(rows),
    }
    (tmp_path / "a.json").write_text(texts[layout], encoding="utf-8")
    read = read_records(str(tmp_path / "a.json"))
    assert [record.text for record in read] == [row["text"] for row in rows]
    assert read[-1].source == "a.json:9000"


JSON_FAULTS = {
    "cut off": (b'[{"text": "a"}, {"text": ', "a.json:2: not valid JSON"),
    "not closed": (b'[{"text": "a"}', "the array is not closed"),
    "no comma": (b'[{"text": "a"} {"text": "b"}]', "expected a comma or ]"),
    "text behind": (b'[{"text": "a"}] x', "text follows the array"),
    "text behind an object": (b'{"text": "a"} x', "text follows the object"),
    "int of 5,000 digits": (b'{"text": ' + b"9" * 5000 + b"}", "not valid JSON"),
    "deep": (b'[{"text": ' + b"[" * 100_000, "nested too deeply"),
    "label without end": (b'{"text": "a", "label": -1e999}', "label is infinite"),
    "array of arrays": (b"[" * 3_000_000, "a.json:1: "),
    "array of numbers": (b"[" + b"1," * 3_000_000 + b"1]", "expected a JSON object, found int"),
}


@pytest.mark.parametrize("name", JSON_FAULTS)
def test_json_that_is_no_rows_ends_in_one_clear_error(tmp_path: Path, name: str) -> None:
    content, message = JSON_FAULTS[name]
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(str(tmp_path / "a.json"))
    assert len(str(caught.value)) < 1000


def test_what_json_has_no_number_for_is_missing(tmp_path: Path) -> None:
    rows = '{"text": "a", "label": 1}\n{"text": NaN, "label": 0}\n{"text": "c", "label": 1.0}\n'
    (tmp_path / "a.jsonl").write_text(rows, encoding="utf-8")
    dataset = read_dataset(str(tmp_path / "a.jsonl"))
    assert [(record.text, record.label) for record in dataset.splits["all"]] == [("a", 1), ("", 0), ("c", 1)]


def make_bomb(packing: str, block: bytes, num_blocks: int) -> bytes:
    if packing == ".zip":
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.csv", "w") as member:
            for _ in range(num_blocks):
                member.write(block)
        return sink.getvalue()
    packer = {".gz": lambda: gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=9)}
    sink = io.BytesIO()
    opener = packer.get(packing) or (lambda: {".bz2": bz2.open, ".xz": lzma.open}[packing](sink, "wb"))
    with opener() as file:
        for _ in range(num_blocks):
            file.write(block)
    return sink.getvalue()


# Read in a process of its own, whose time and memory beyond what imports take are measured.
MEASURE = """
import resource, sys, time
from submillion.data.read import read_dataset, count_rows
from submillion.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF)
try:
    read_dataset(sys.argv[1]); print("read")
except DataError as error:
    print(type(error).__name__, str(error)[:300].replace(chr(10), " "))
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss - before.ru_maxrss)
"""


def measure_reading(path: Path) -> tuple[str, float, float]:
    """Return how reading ended, the seconds of processor time and the MiB that it took."""
    process = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    end, figures = process.stdout.splitlines()
    seconds, kib = map(float, figures.split())
    return end, seconds, kib / 1024


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("block", [b"x" * 100_000, b"text,label\n" * 10_000, b"a\n" * 50_000, b'"' * 100_000])
def test_bombs_are_refused_within_seconds_and_megabytes(tmp_path: Path, packing: str, block: bytes) -> None:
    path = tmp_path / f"a.csv{packing}"
    path.write_bytes(make_bomb(packing, block, 200))
    assert path.stat().st_size < 1_000_000
    end, seconds, mib = measure_reading(path)
    assert "unpacks to more than 60 times its size" in end
    assert seconds < 5
    assert mib < 64


def make_many_keys() -> bytes:
    return b"".join(b'{"text":"a","k%d":1}\n' % number for number in range(60_000))


TIRING: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a key of its own in every row": ("a.jsonl", make_many_keys),
    "rows of one letter": ("a.csv", lambda: b"text,label\n" + b"a,b\na,c\n" * 100_000),
    "a wide header and no rows": ("a.csv", lambda: b"text," + b"," * 1_000_000 + b"\n"),
    "a wide header of other signs": ("a.csv", lambda: b"a;" * 500_000 + b"\n" + b"b;" * 500_000),
    "marks without an end": ("a.csv", lambda: b'text\n"' + b"x\n" * 500_000),
    "marks of tabs": ("a.tsv", lambda: b"text\tlabel\n" + b'"\t' * 500_000),
    "returns": ("a.csv", lambda: b"\r" * 1_000_000),
    "blank lines": ("a.csv", lambda: b"\n" * 1_000_000),
    "blank array": ("a.json", lambda: b"[" + b" " * 4_000_000),
    "one long string": ("a.json", lambda: b'[{"text": "' + b"x" * 4_000_000),
    "empty objects": ("a.json", lambda: b"[" + b"{}," * 100_000 + b"{}]"),
    "high bytes": ("a.csv", lambda: b"text\n" + b"\xe9 " * 1_000_000),
    "long western word": ("a.csv", lambda: b"text\n" + b"x" * 900_000 + b"\xe9"),
}


@pytest.mark.parametrize("name", TIRING)
def test_tiring_files_end_within_seconds_and_megabytes(tmp_path: Path, name: str) -> None:
    file, make = TIRING[name]
    content = make()
    (tmp_path / file).write_bytes(content)
    num_rows = content.count(b"\n") + content.count(b"{")
    _, seconds, mib = measure_reading(tmp_path / file)
    assert seconds < 5
    assert mib < 64 + (60 * len(content) + 400 * num_rows) / 2**20


def test_an_empty_file_of_rows_is_said_before_it_is_scored(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no rows"):
        count_rows(str(tmp_path / "a.csv"))


def test_a_zip_file_whose_directory_is_damaged_is_refused(tmp_path: Path) -> None:
    """Names that are said to be UTF-8 and are not end in an error of the codec, not of zipfile."""
    path = tmp_path / "archive.zip"
    content = pack_zip(TABLE.encode(), "é.csv")
    path.write_bytes(content.replace("é".encode(), b"\x8e\x8e"))
    with pytest.raises(DataError, match="cannot be unpacked") as caught:
        read_records(str(path))
    assert caught.value.where == str(path)


def test_a_zip_file_whose_member_has_no_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(pack_zip(TABLE.encode()).replace(b"folder/rows.csv", b"\0older/rows.csv"))
    with pytest.raises(DataError):
        read_records(str(path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_words_that_show_an_encoding_are_of_the_line_that_needs_it(tmp_path: Path, end: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(end.join(["text,label", "plain,a", "caf\u00e9 au lait,b", "more,a", ""]).encode("cp1252"))
    assert any("says 'caf\u00e9 au lait" in note for note in read_dataset(str(path)).notes)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl", "a.json", "a.csv.gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_mark_that_ends_files_of_dos_is_left_out(tmp_path: Path, name: str, encoding: str) -> None:
    rows = [{"text": "one \x1a two", "label": "a"}, {"text": "three", "label": "b"}]
    ending = name.split(".")[1]
    lines = ["\t".join(row.values()) if ending == "tsv" else ",".join(row.values()) for row in rows]
    content = {
        "csv": "\n".join(["text,label", *lines, ""]),
        "tsv": "\n".join(["text\tlabel", *lines, ""]),
        "txt": "one \x1a two\nthree\n",
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "json": json.dumps(rows),
    }[ending]
    for mark in ("\x1a", ""):
        written = (content + mark).encode(encoding)
        (tmp_path / name).write_bytes(gzip.compress(written) if name.endswith(".gz") else written)
        dataset = read_dataset(str(tmp_path / name))
        assert [record.text for record in dataset.splits["all"]] == ["one \x1a two", "three"]
        assert any("Ctrl-Z" in note for note in dataset.notes) is bool(mark)


def test_columns_written_as_objects_are_refused_with_the_way_to_write_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"text": {"0": "rain", "1": "snow"}, "label": {"0": "a", "1": "b"}}')
    with pytest.raises(DataError, match="orient='records'"):
        read_dataset(str(path))
