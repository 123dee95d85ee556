"""Valid files of rows in every format, which the driver damages."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import feather

TEXTS = (
    "The river council met at dawn", "Störche, größer als Bäume", "a,b; c\td", 'She said: "run"', "", "日本語の記事",
    "line one\nline two", "&lt;b&gt;Dollar&lt;/b&gt; falls", "emoji \U0001f600", "Rates rise to 4.5 %", "x",
    "nine lives",
)  # fmt: skip
NAMES = ("World", "Sports", "Business")
HUGGINGFACE = {
    "huggingface": json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": list(NAMES)}}}})
}


def make_rows(count: int = 12) -> list[dict[str, Any]]:
    return [{"id": f"r{n}", "text": TEXTS[n % 12] + f" {n}", "label": NAMES[n % 3]} for n in range(count)]


def _csv(header: tuple[str, ...], rows: list[dict[str, Any]], **options: Any) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, **options)
    writer.writerow(header)
    writer.writerows([row.get(name, "") for name in header] for row in rows)
    return file.getvalue().encode()


def make_csv() -> list[bytes]:
    rows = make_rows()
    official = "".join(f'"{n % 4 + 1}","Title {n}","About {n}, and more"\n' for n in range(12)).encode()
    numbered = [{**row, "label": n % 3, "title": f"T{n}", "description": row["text"]} for n, row in enumerate(rows)]
    return [
        _csv(("text", "label"), rows),
        b"\xef\xbb\xbf" + _csv(("id", "text", "label"), rows, quoting=csv.QUOTE_ALL),
        _csv(("label", "title", "description"), numbered, lineterminator="\n"),
        _csv(("id", "text"), rows),
        official,
    ]


def make_tsv() -> list[bytes]:
    clean = [{**row, "text": row["text"].translate({9: " ", 10: " ", 34: "'"})} for row in make_rows()]
    return [_csv(("text", "label"), clean, delimiter="\t"), _csv(("id", "text", "label"), clean, delimiter="\t")]


def make_jsonl() -> list[bytes]:
    rows = make_rows()
    plain = "".join(json.dumps(row) + "\n" for row in rows)
    numbers = "".join(
        json.dumps({"text": row["text"], "label": n % 2, "n": 1.5}, ensure_ascii=False) + "\n"
        for n, row in enumerate(rows)
    )
    return [plain.encode(), numbers.encode()]


def make_json() -> list[bytes]:
    return [json.dumps(make_rows()).encode(), json.dumps(make_rows(), indent=1).encode(), *make_jsonl()[:1]]


def make_txt() -> list[bytes]:
    return ["\n".join(text.replace("\n", " ") for text in TEXTS).encode() + b"\n"]


def make_zip(name: str, contents: list[bytes]) -> list[bytes]:
    packed = []
    for content in contents:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        packed.append(file.getvalue())
    return packed


def make_tables() -> list[pa.Table]:
    """Return tables of ordinary and of odd columns."""
    rows = make_rows()
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    ids = [n % 3 for n in range(12)]
    day = datetime.datetime(2020, 1, 1)
    dense = pa.UnionArray.from_dense(pa.array([0] * 12, pa.int8()), pa.array(range(12), pa.int32()), [pa.array(texts)])
    odd: dict[str, pa.Array] = {
        "dictionary": pa.array(texts).dictionary_encode(),
        "large": pa.array(texts, pa.large_string()),
        "view": pa.array(texts, pa.string_view()),
        "binary": pa.array([text.encode() for text in texts]),
        "fixed": pa.array([b"abcd"] * 12, pa.binary(4)),
        "null": pa.nulls(12),
        "list": pa.array([[text] for text in texts]),
        "struct": pa.array([{"a": text} for text in texts]),
        "union": dense,
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([5, 12], pa.int32()), pa.array(["a", "b"])),
        "time": pa.array([day] * 12),
        "decimal": pa.array([decimal.Decimal("1.50")] * 12),
        "bool": pa.array([True, False] * 6),
        "some": pa.array([text if n % 2 else None for n, text in enumerate(texts)]),
        "map": pa.array([[("k", text)] for text in texts], pa.map_(pa.string(), pa.string())),
        "half": pa.array(np.arange(12, dtype=np.float16)),
    }
    plain = [
        pa.table({"text": texts, "label": labels}),
        pa.table(
            {"id": [row["id"] for row in rows], "text": texts, "label": pa.array(ids, pa.int64())}
        ).replace_schema_metadata(HUGGINGFACE),
        pa.table({"text": texts * 50, "label": pa.array(labels * 50).dictionary_encode()}),
        pa.table({"title": texts, "description": texts, "class_index": pa.array([i + 1 for i in ids], pa.int8())}),
    ]
    return plain + [pa.table({"text": column, "label": labels}) for column in odd.values()]


def make_parquet() -> list[bytes]:
    files = []
    for number, table in enumerate(make_tables()):
        for options in (
            {"compression": ("NONE", "SNAPPY", "ZSTD", "GZIP", "LZ4", "BROTLI")[number % 6]},
            {"row_group_size": 5, "data_page_version": "2.0", "use_dictionary": False, "write_page_checksum": True},
        ):
            file = io.BytesIO()
            try:
                pq.write_table(table, file, **options)
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
                continue
            files.append(file.getvalue())
    return files


def make_arrow() -> list[bytes]:
    files = []
    for number, table in enumerate(make_tables()):
        options = pa.ipc.IpcWriteOptions(compression=(None, None, "zstd", "lz4")[number % 4])
        for new in (pa.ipc.new_stream, pa.ipc.new_file):
            file = io.BytesIO()
            with new(file, table.schema, options=options) as writer:
                writer.write_table(table, 7)
            files.append(file.getvalue())
    return files


def make_feather() -> list[bytes]:
    files = []
    for table in make_tables()[:6]:
        file = io.BytesIO()
        feather.write_feather(table, file, compression="lz4")
        files.append(file.getvalue())
    return files


def make_pickles() -> list[bytes]:
    import datasets
    import pandas as pd

    rows = make_rows()
    texts = [row["text"] for row in rows]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(NAMES))})
    small = datasets.Dataset.from_dict({"text": texts, "label": [n % 3 for n in range(12)]}, features=features)
    frame = pd.DataFrame(rows)
    tables = [
        small, small.select([3, 1, 2]), datasets.concatenate_datasets([small.select([0, 1]), small.select([4])]), frame,
        frame.astype(object), frame.astype({"label": "category"}), frame.astype({"text": pd.StringDtype("python")}),
        frame.assign(label=pd.array([n % 3 for n in range(12)], dtype="Int64")), pd.Series(texts, name="text"),
        np.array(texts), texts, rows, {"text": texts, "label": np.arange(12) % 3},
        [{"text": text, "label": np.int64(n)} for n, text in enumerate("abcd")],
    ]  # fmt: skip
    return [pickle.dumps(table, protocol=protocol) for table in tables for protocol in (0, 2, 4, 5)]


def make_saved_folder() -> dict[str, bytes]:
    table = make_tables()[1]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "data.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, 5)
        content = path.read_bytes()
    info = {"features": {"text": {"dtype": "string", "_type": "Value"}}, "citation": "", "splits": {}}
    state = {
        "_data_files": [{"filename": "data-00000-of-00001.arrow"}],
        "_fingerprint": "a1",
        "_format_type": None,
        "_split": "train",
    }
    return {
        "state.json": json.dumps(state).encode(),
        "dataset_info.json": json.dumps(info).encode(),
        "data-00000-of-00001.arrow": content,
    }


def _pack_each(make: Callable[[], list[bytes]], pack: Callable[[bytes], bytes]) -> list[bytes]:
    return [pack(content) for content in make()]


def _pack_in_zip(name: str, make: Callable[[], list[bytes]]) -> list[bytes]:
    return make_zip(name, make())


def iter_formats() -> Iterator[tuple[str, Callable[[], list[bytes]], tuple[str, ...]]]:
    """Yield (ending of the file's name, its valid contents, ways to change one)."""
    texts: dict[str, tuple[Callable[[], list[bytes]], tuple[str, ...]]] = {
        ".csv": (make_csv, ("bytes",)),
        ".tsv": (make_tsv, ("bytes",)),
        ".jsonl": (make_jsonl, ("bytes", "jsonl")),
        ".ndjson": (make_jsonl, ("bytes", "jsonl")),
        ".json": (make_json, ("bytes", "json")),
        ".txt": (make_txt, ("bytes",)),
    }
    for ending, (make, ways) in texts.items():
        yield ending, make, ways
        yield f"{ending}.gz", partial(_pack_each, make, partial(gzip.compress, compresslevel=1)), ("bytes", "gzip")
        yield f"{ending}.bz2", partial(_pack_each, make, partial(bz2.compress, compresslevel=1)), ("bytes", "bz2")
        yield f"{ending}.xz", partial(_pack_each, make, partial(lzma.compress, preset=0)), ("bytes", "xz")
        yield f"{ending}.zip", partial(_pack_in_zip, f"rows{ending}", make), ("bytes", "zip")
    yield ".parquet", make_parquet, ("bytes",)
    yield ".arrow", make_arrow, ("bytes",)
    yield ".feather", make_feather, ("bytes",)
    yield ".pkl", make_pickles, ("bytes",)
