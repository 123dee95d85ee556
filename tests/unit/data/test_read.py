from __future__ import annotations

import csv
import gzip
import hashlib
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from submillion.data import rows as row_reader
from submillion.data.columns import Columns
from submillion.data.label_files import join_labels
from submillion.data.labels import Numbering
from submillion.data.read import digest_source, iter_records, read_dataset, read_records
from submillion.errors import DataError
from submillion.records import LabelSet, Record

ROWS = [("Sports", "Title, one", 'A "quoted" text'), ("World", "Two", "Caf\u00e9"), ("Sports", "", "three")]
OFFICIAL = b'"1","One, two","He said ""yes""\\ and left"\n"2","Three","a\nb"\n"4","Four","d"\n'
NEWS = LabelSet(("World", "Sports", "Business", "Sci/Tech"))


def write(path: Path, content: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def write_csv(path: Path, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([("Label", "TITLE", "description"), *ROWS])


def write_rows(path: Path) -> None:
    name = path.name.removesuffix(".gz")
    table = pa.table({key: [row[i] for row in ROWS] for i, key in enumerate(("Label", "TITLE", "description"))})
    if name.endswith((".csv", ".tsv")):
        write_csv(path, "," if name.endswith(".csv") else "\t")
    elif name.endswith(".jsonl"):
        write(path, "\n".join(json.dumps(row) for row in table.to_pylist()))
    elif name.endswith(".json"):
        write(path, json.dumps(table.to_pylist(), indent=1))
    elif name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=2)
    elif name.endswith(".feather"):
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("rows.csv", (2, 3, 4)),
        ("rows.tsv", (2, 3, 4)),
        ("rows.csv.gz", (2, 3, 4)),
        ("rows.jsonl", (1, 2, 3)),
        ("rows.jsonl.gz", (1, 2, 3)),
        ("rows.json", (1, 2, 3)),
        ("rows.parquet", (1, 2, 3)),
        ("rows.arrow", (1, 2, 3)),
        ("rows.feather", (1, 2, 3)),
    ],
)
def test_all_formats_give_the_same_records(tmp_path: Path, name: str, places: tuple[int, ...]) -> None:
    path = tmp_path / name
    write_rows(path)
    dataset = read_dataset(str(path))
    assert dataset.splits["all"] == [
        Record(str(n), row[1:], 0 if row[0] == "Sports" else 1, f"{name}:{place}")
        for n, (row, place) in enumerate(zip(ROWS, places, strict=True))
    ]
    assert dataset.labels == LabelSet(("Sports", "World"))
    assert dataset.column_names == ("TITLE", "description")
    assert dataset.files == {name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert [r.columns for r in iter_records(str(path))] == [row[1:] for row in ROWS]
    assert {r.label for r in read_records(str(path))} == {None}
    assert [r.label for r in read_records(str(path), labels=NEWS)] == [1, 0, 1]


def test_official_format_has_no_header_and_counts_classes_from_one(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", OFFICIAL)
    write(tmp_path / "test.csv", '"3","x","y"\n')
    write(tmp_path / "classes.txt", "World\nSports\nBusiness\nSci/Tech\n")
    dataset = read_dataset(str(tmp_path))
    assert dataset.labels == NEWS
    assert dataset.column_names == ("title", "description")
    train = dataset.splits["train"]
    assert [(r.id, r.label, r.source) for r in train] == [
        ("0", 0, "train.csv:1"),
        ("1", 1, "train.csv:2"),
        ("2", 3, "train.csv:4"),
    ]
    assert train[0].text == 'One, two He said "yes"\\ and left'
    assert train[1].columns == ("Three", "a\nb")
    assert dataset.splits["test"][0].label == 2
    assert set(dataset.files) == {"train.csv", "test.csv"}


def test_official_format_without_names_of_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", '"1","a","b"\n"2","c","d"\n')
    assert read_dataset(path).labels == LabelSet(("1", "2"))
    assert [r.label for r in read_records(path, labels=NEWS)] == [0, 1]
    # Classes that are only numbered fit files that name them, and those that count from 0, by position.
    numbered = LabelSet(("1", "2", "3", "4"))
    other = write(tmp_path / "other" / "bbc.csv", "label,text\n0,a\n3,b\n")
    assert [r.label for r in read_records(other, labels=numbered)] == [0, 3]
    write(tmp_path / "classes.txt", "World\nSports\nBusiness\nSci/Tech\n")
    assert [r.label for r in read_records(path, labels=numbered)] == [0, 1]


def test_folder_of_splits_with_other_spellings(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    write(tmp_path / "DEV.tsv", "text\tlabel\nc\ty\n")
    write(tmp_path / "test.txt", "one\n\nthree\n")
    write(tmp_path / "notes.md", "ignored")
    dataset = read_dataset(str(tmp_path))
    assert [r.label for r in dataset.splits["validation"]] == [1]
    assert [(r.text, r.label, r.source) for r in dataset.splits["test"]] == [
        ("one", None, "test.txt:1"),
        ("", None, "test.txt:2"),
        ("three", None, "test.txt:3"),
    ]
    assert list(dataset.splits) == ["train", "validation", "test"]


def test_numbered_parts_are_one_split_with_running_ids(tmp_path: Path) -> None:
    for part, rows in enumerate((["a", "b"], ["c"])):
        table = pa.table({"text": rows, "label": [0, 1][: len(rows)]})
        pq.write_table(table, tmp_path / f"train-{part:05d}-of-00002.parquet")
    train = read_dataset(str(tmp_path)).splits["train"]
    assert [(r.id, r.text) for r in train] == [("0", "a"), ("1", "b"), ("2", "c")]
    (tmp_path / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"needs 2 file\(s\), found 1"):
        read_dataset(str(tmp_path))


def test_saved_datasets_are_read_with_their_class_names(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "a"])})
    rows = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features)
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(tmp_path / "both")
    dataset = read_dataset(str(tmp_path / "both"))
    assert dataset.labels == LabelSet(("n", "a"))
    assert [(r.text, r.label) for r in dataset.splits["train"]] == [("x", 1), ("y", 0)]
    assert [(r.text, r.label) for r in dataset.splits["test"]] == [("y", 0)]
    rows.save_to_disk(tmp_path / "one")
    assert [r.label for r in read_dataset(str(tmp_path / "one")).splits["all"]] == [1, 0]
    (tmp_path / "one" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match="a data file is missing"):
        read_dataset(str(tmp_path / "one"))


def test_columns_can_be_chosen_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "body,Head,kind,key,text\nb,h,k,i,t\nb2,h2,l,j,t2\n")
    columns = Columns(text=("Head", "body"), label="kind", id="key")
    dataset = read_dataset(path, columns)
    assert [(r.id, r.columns, r.label) for r in dataset.splits["all"]] == [("i", ("h", "b"), 0), ("j", ("h2", "b2"), 1)]
    assert read_dataset(path).splits["all"][0].columns == ("t",)
    with pytest.raises(DataError, match=r"no column 'heed'; the file has 'body', 'Head'(?s:.*)Did you mean 'Head'"):
        read_dataset(path, Columns(text=("heed",)))


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        (["0", "1", "0"], ("0", "1"), [0, 1, 0]),
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        (["5", "3", "10"], ("3", "5", "10"), [1, 0, 2]),
        (["-1", "0", "1"], ("-1", "0", "1"), [0, 1, 2]),
        ([" yes ", "no", "yes"], ("no", "yes"), [1, 0, 1]),
        (["01", "1", "x"], ("01", "1", "x"), [0, 1, 2]),
    ],
)
def test_label_values_are_ids_or_names(
    tmp_path: Path, labels: list[str], names: tuple[str, ...], ids: list[int]
) -> None:
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(f"t,{label}\n" for label in labels))
    dataset = read_dataset(path)
    assert dataset.labels == LabelSet(names)
    assert [r.label for r in dataset.splits["all"]] == ids


def test_unknown_labels_are_listed_with_places_and_count(tmp_path: Path) -> None:
    rows = "".join(f"t,{'World' if n % 2 else 'Wrold'}\n" for n in range(40))
    path = write(tmp_path / "a.csv", "text,label\n" + rows + "t,\n")
    with pytest.raises(DataError) as caught:
        read_records(path, labels=NEWS)
    text = str(caught.value)
    assert "21 of 41 rows" in text
    assert f"{tmp_path}/a.csv:2: unknown label 'Wrold'" in text
    assert "11 more" in text
    assert "World, Sports" in text


@pytest.mark.parametrize(
    ("content", "place", "label"),
    [
        ("text,label\na,0\nb,4\n", "a.csv:3", "4"),
        ("text,label\na,-1\nb,0\n", "a.csv:2", "-1"),
        ("1,a,b\n5,c,d\n", "a.csv:2", "5"),
    ],
)
def test_label_outside_the_classes_is_refused(tmp_path: Path, content: str, place: str, label: str) -> None:
    with pytest.raises(DataError, match=rf"{place}: unknown label {label}"):
        read_records(write(tmp_path / "a.csv", content), labels=NEWS)


def test_gap_in_the_labels_makes_names_of_them_and_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,0\nb,4\nc,0\nd,4\n")
    dataset = read_dataset(path)
    assert dataset.labels == LabelSet(("0", "4"))
    assert any("the labels 0, 4 leave a gap" in note for note in dataset.notes)
    assert [r.label for r in dataset.splits["all"]] == [0, 1, 0, 1]
    assert [r.label for r in read_dataset(path, labels=LabelSet(("0", "4"))).splits["all"]] == [0, 1, 0, 1]
    with pytest.raises(DataError, match=r"a.csv:3: the label 4 lies outside 0..1"):
        read_dataset(path, numbering=Numbering("ids", 0, is_asked=True))


def test_split_whose_labels_are_withheld_has_none(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\na,0\nb,1\n")
    write(tmp_path / "test.csv", "text,label\na,-1\nb,-1\n")
    assert [r.label for r in read_dataset(str(tmp_path)).splits["test"]] == [None, None]


def test_labels_are_joined_by_id(tmp_path: Path) -> None:
    records = [Record(str(n), (f"t{n}",), None, f"u.csv:{n + 2}") for n in range(5)]
    path = write(tmp_path / "labels.csv", "ID,Label,confidence\n3,Sports,high\n1,0,low\n")
    with pytest.raises(DataError, match=r"labels.csv:2: the id '9' belongs to no row"):
        join_labels(records, write(tmp_path / "wrong" / "labels.csv", "id,label\n9,0\n"), NEWS)
    assert [(r.id, r.label, r.source) for r in join_labels(records, path, NEWS)] == [
        ("1", 0, "u.csv:3"),
        ("3", 1, "u.csv:5"),
    ]
    for content, message in [
        ("id,label\n1,0\n1,1\n", "appears twice"),
        ("id,label\n1,7\n", "unknown label 7"),
        ("a,b\n", "no column 'id'"),
    ]:
        with pytest.raises(DataError, match=message):
            join_labels(records, write(tmp_path / "labels.csv", content), NEWS)


HEADER = "text,label\n"
BAD: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("a.csv", b"", "the file is empty"),
    "header only": ("a.csv", HEADER.encode(), "no rows"),
    "blank lines only": ("a.csv", b"\n\n", "no rows"),
    "empty json": ("a.jsonl", b"\n", "no rows"),
    "NUL byte": ("a.csv", b"text\nok\na\0b\n", r"a.csv:3: the line holds a NUL byte"),
    "NUL byte in txt": ("a.txt", b"ok\n\0\n", r"a.txt:2: .*NUL"),
    "damaged UTF-8": ("a.csv", b"text\nna\xc3\xafve\ncaf\xe9\n", r"a.csv:3: byte 0xe9 at position 3"),
    "invalid UTF-8 in the header": ("a.csv", b"t\x81xt\nok\n", r"a.csv:1: byte 0x81"),
    "damaged UTF-16": ("a.csv", "text\nok\n".encode("utf-16")[:-1], "begins like UTF-16, but is not"),
    "ragged row": ("a.csv", b"text,label\na,0\nb\n", r"a.csv:3: the row has 1 field, the rows before it 2"),
    "ragged official row": ("a.csv", b"1,a,b\n2,c\n", r"a.csv:2: the row has 2 fields"),
    "unclosed quote": ("a.csv", b'text\nok\n"never closed\nmore\n', r"a.csv:3: broken quoting"),
    "text after a quote": ("a.csv", b'text\n"a"b\n', r"a.csv:2: broken quoting"),
    "no text column": ("a.csv", b"foo,bar\n1,2\n", "found no text column; the file has 'foo', 'bar'"),
    "names appear twice": ("a.csv", b"text,text\n1,2\n", "column names appear twice: 'text'"),
    "repeated id": ("a.csv", b"id,text\n1,a\n2,b\n1,c\n", r"a.csv:4: the id '1' appears in an earlier row"),
    "empty id": ("a.csv", b"id,text\n,a\n", r"a.csv:2: the id is empty"),
    "10 MB in one field": (
        "a.csv",
        b"text\nok\n" + b"x" * 10_000_000 + b"\n",
        r"a.csv:3: a field is longer than 1,048,576",
    ),
    "10 MB in one line": ("a.txt", b"x" * 10_000_000, r"a.txt:1: a field is longer"),
    "10 MB in one value": ("a.jsonl", b'{"text": "' + b"x" * 10_000_000 + b'"}', r"a.jsonl:1: a field is longer"),
    "endless line": ("a.csv", b"x" * 17_000_000, r"a.csv:1: the line is longer than"),
    "cut gzip": ("a.csv.gz", gzip.compress(b"text\n" + bytes(range(48, 120)) * 999)[:-20], "cut off or damaged"),
    "no gzip": ("a.csv.gz", b"text\nplain\n", "cut off or damaged"),
    "broken json": ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a.jsonl:2: not valid JSON"),
    "deep json": ("a.jsonl", b'{"text": ' + b"[" * 200_000, r"a.jsonl:1: not valid JSON"),
    "json without objects": ("a.jsonl", b"3\n", r"a.jsonl:1: expected a JSON object, found int"),
    "array without objects": ("a.json", b"[1]", r"a.json:1: expected a JSON object, found int"),
    "json with two spellings": (
        "a.jsonl",
        b'{"text": "a"}\n{"Text": "b"}\n',
        r"a.jsonl: the name of the text column appears in 2 spellings: 'text', 'Text'",
    ),
    "json with a key twice": ("a.jsonl", b'{"text": "a", "text": "b"}\n', r"a.jsonl:1: not valid JSON: the key 'text'"),
    "endless label": ("a.jsonl", b'{"text": "a", "label": Infinity}\n', r"a.jsonl:1: the label is infinite"),
    "half a character": ("a.jsonl", b'{"text": "\\ud800"}\n', r"a.jsonl:1: the text holds half a character"),
    "text is a list": ("a.jsonl", b'{"text": ["a"]}\n', r"a.jsonl:1: expected text, found a value of type list"),
    "label is a list": ("a.jsonl", b'{"text": "a", "label": [1]}\n', r"a.jsonl:1: the label is a value of type list"),
    "no parquet": ("a.parquet", b"PAR1 nonsense", "parquet file is cut off or damaged"),
    "no arrow": ("a.arrow", b"nonsense nonsense", "Arrow file is cut off or damaged"),
    "unknown ending": ("a.xlsx", b"PK", "cannot tell the format of 'a.xlsx'"),
    "one class": ("a.csv", b"text,label\na,x\nb,x\n", "a.csv: every row has the same label, 'x'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_clear_error(tmp_path: Path, name: str) -> None:
    file, content, message = BAD[name]
    path = write(tmp_path / file, content)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
def test_binary_files_cut_anywhere_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_rows(path)
    content = path.read_bytes()
    assert len(read_records(str(path))) == 3
    for size in range(1, len(content) - 8, max(1, len(content) // 40)):
        path.write_bytes(content[:size])
        with pytest.raises(DataError):
            read_records(str(path))


@pytest.mark.parametrize("crafted", [(0, 1 << 30, 1 << 30), (-5, 7, 13), (0, 13, 7)])
def test_crafted_arrow_offsets_are_caught_before_a_read(tmp_path: Path, crafted: tuple[int, ...]) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"text": ["abcdefg", "hijklm"]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    offsets = struct.pack("<3i", 0, 7, 13)
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, struct.pack("<3i", *crafted)))
    with pytest.raises(DataError, match="cut off or damaged"):
        read_records(str(path))


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.csv: there is no such file"):
        read_dataset(str(tmp_path / "nowhere.csv"))
    write(tmp_path / "data.csv", "text\na\n")
    with pytest.raises(DataError, match=r"found no train, validation or test file; it holds data.csv"):
        read_dataset(str(tmp_path))
    write(tmp_path / "dev.csv", "text\na\n")
    write(tmp_path / "val.csv", "text\na\n")
    with pytest.raises(DataError, match=r"the validation split needs 1 file\(s\), found 2: dev.csv, val.csv"):
        read_dataset(str(tmp_path))


def test_several_splits_are_no_single_file(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text\na\n")
    write(tmp_path / "test.csv", "text\na\n")
    with pytest.raises(DataError, match=r"expected one file, found train.csv, test.csv"):
        read_records(str(tmp_path))


def test_splits_with_different_text_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "title,description\na,b\n")
    write(tmp_path / "test.csv", "text\na\n")
    with pytest.raises(DataError, match="different text columns"):
        read_dataset(str(tmp_path))


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbftext,label\r\na,x\r\nb,y\r\n")
    assert [(r.text, r.label) for r in read_dataset(path).splits["all"]] == [("a", 0), ("b", 1)]
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo")
    assert [r.text for r in iter_records(path)] == ["one", "two"]


def test_missing_values_are_empty_texts_and_rows_never_vanish(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": null}\n{"text": 3}\n{"text": ""}\n')
    assert [(r.id, r.text) for r in read_records(path)] == [("0", ""), ("1", "3"), ("2", "")]
    path = write(tmp_path / "a.csv", 'text\na\n""\nb\n')
    assert [r.text for r in read_records(path)] == ["a", "", "b"]


def write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "txt", "parquet", "arrow"])
def test_streaming_needs_constant_memory(tmp_path: Path, suffix: str) -> None:
    path, text, num_rows = tmp_path / f"a.{suffix}", "word " * 200, 20_000
    writers: dict[str, Callable[[], Any]] = {
        "csv": lambda: write(path, "text\n" + f"{text}\n" * num_rows),
        "txt": lambda: write(path, f"{text}\n" * num_rows),
        "jsonl": lambda: write(path, (json.dumps({"text": text}) + "\n") * num_rows),
        # One row group and one batch: the worst that a writer can do.
        "parquet": lambda: pq.write_table(
            pa.table({"text": [text] * num_rows}),
            path,
            row_group_size=num_rows,
            compression="none",
            use_dictionary=False,
        ),
        "arrow": lambda: write_arrow(path, pa.table({"text": [text] * num_rows})),
    }
    writers[suffix]()
    arrow_before, arrow_peak, count = pa.total_allocated_bytes(), 0, 0
    tracemalloc.start()
    try:
        for _ in iter_records(str(path)):
            count += 1
            arrow_peak = max(arrow_peak, pa.total_allocated_bytes() - arrow_before)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == num_rows
    # The texts together have 20 MB. A batch of the Arrow formats is read and checked as a whole.
    assert peak < 8_000_000
    assert arrow_peak < (50_000_000 if suffix == "arrow" else 12_000_000)


def write_ids(path: Path, ids: list[str]) -> Path:
    path.write_text("id,text\n" + "".join(f"{row_id},text {n}\n" for n, row_id in enumerate(ids)), encoding="utf-8")
    return path


def test_thousands_of_ids_are_told_apart(tmp_path: Path) -> None:
    ids = [str(number) for number in range(5000)]
    assert [record.id for record in iter_records(str(write_ids(tmp_path / "a.csv", ids)))] == ids
    again = write_ids(tmp_path / "b.csv", [*ids, "2741"])
    stream = iter_records(str(again))
    assert [next(stream).id for _ in ids] == ids
    with pytest.raises(DataError, match=r"b.csv:5002: the id '2741' appears in an earlier row too"):
        next(stream)


def test_ids_of_equal_hashes_are_compared_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "hash", len, raising=False)
    ids = ["a", "b", "cc", "dd", "e"]
    assert [record.id for record in read_records(str(write_ids(tmp_path / "a.csv", ids)))] == ids
    with pytest.raises(DataError, match=r"b.csv:7: the id 'dd' appears in an earlier row too"):
        read_records(str(write_ids(tmp_path / "b.csv", [*ids, " dd "])))


def test_the_digest_of_a_source_is_of_all_that_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text("text,label\na,x\nb,y\n", encoding="utf-8")
    seen = {digest_source(str(folder))}
    for change in (
        lambda: (folder / "test.csv").write_text("text,label\na,x\nc,y\n", encoding="utf-8"),
        lambda: (folder / "test.csv").rename(folder / "dev.csv"),
        lambda: (folder / "classes.txt").write_text("y\nx\n", encoding="utf-8"),
    ):
        change()
        seen.add(digest_source(str(folder)))
    seen.add(digest_source(str(folder), Columns(label="text")))
    seen.add(digest_source(str(folder / "train.csv")))
    assert len(seen) == 6
    (folder / "notes.md").write_text("not data", encoding="utf-8")
    assert digest_source(str(folder)) in seen
    before = digest_source(str(folder / "train.csv"))
    (folder / "classes.txt").unlink()
    assert digest_source(str(folder / "train.csv")) != before
