from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

READ = """
import json, sys
from submillion.data.read import read_dataset
from submillion.errors import SubmillionError
data, revision = json.loads(sys.argv[1])
try:
    dataset = read_dataset(data, revision=revision)
except SubmillionError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
else:
    splits = {name: [[r.id, r.text, r.label, r.source] for r in rows] for name, rows in dataset.splits.items()}
    print(json.dumps({"splits": splits, "labels": dataset.labels and dataset.labels.names}))
"""
CARD = b"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': World
          '1': Sports
          '10': Tenth
---
# News
"""

Read = Callable[..., dict[str, Any]]


def make_parquet(texts: list[str], labels: list[int], names: list[str] | None = None) -> bytes:
    table = pa.table({"text": texts, "label": pa.array(labels, pa.int64())})
    if names:
        features = {"text": {"_type": "Value"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


@pytest.fixture
def read(hub: Any, tmp_path: Path) -> Read:
    def run(data: str, revision: str | None = None, **environment: str) -> dict[str, Any]:
        variables = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")}
        variables |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
        command = [sys.executable, "-c", READ, json.dumps([data, revision])]
        done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    return run


def make_news() -> dict[str, bytes]:
    return {
        "README.md": CARD,
        "data/train-00000-of-00002.parquet": make_parquet(["a b", "c d"], [0, 1]),
        "data/train-00001-of-00002.parquet": make_parquet(["e f"], [10 - 8]),
        "data/test-00000-of-00001.parquet": make_parquet(["g h"], [1]),
        "evil.py": b"raise SystemExit('never fetched')",
    }


def test_parquet_data_set_with_card_is_read_and_cached(hub: Any, read: Read) -> None:
    repo = hub.add_repo("datasets", "someone/news", make_news())
    answer = read("hf:someone/news")
    assert answer["labels"] == ["World", "Sports", "Tenth"]
    assert answer["splits"]["train"] == [
        ["0", "a b", 0, "train-00000-of-00002.parquet:1"],
        ["1", "c d", 1, "train-00000-of-00002.parquet:2"],
        ["2", "e f", 2, "train-00001-of-00002.parquet:1"],
    ]
    assert answer["splits"]["test"] == [["0", "g h", 1, "test-00000-of-00001.parquet:1"]]
    assert not any("evil" in request for request in hub.requests)
    assert read("hf:someone/news", repo.commit) == answer

    assert read("hf:someone/news", HF_HUB_OFFLINE="1") == answer
    hub.stop()
    assert read("hf:someone/news") == answer
    assert read("hf:someone/news", repo.commit) == answer


def test_class_names_come_from_the_parquet_schema_where_the_card_has_none(hub: Any, read: Read) -> None:
    train = make_parquet(["a", "b"], [1, 0], ["North", "South"])
    hub.add_repo("datasets", "someone/plain", {"data/train-00000-of-00001.parquet": train})
    answer = read("hf:someone/plain")
    assert answer["labels"] == ["North", "South"]
    assert [row[2] for row in answer["splits"]["train"]] == [1, 0]


def test_text_formats_are_read_too(hub: Any, read: Read) -> None:
    files = {"train.csv": b"text,label\na,x\nb,y\n", "validation.csv": b"text,label\nc,y\n"}
    hub.add_repo("datasets", "someone/text", files)
    answer = read("hf:someone/text")
    assert answer["labels"] == ["x", "y"]
    assert answer["splits"]["validation"] == [["0", "c", 1, "validation.csv:2"]]


def test_interrupted_download_leaves_no_half_data_set(hub: Any, read: Read) -> None:
    repo = hub.add_repo("datasets", "someone/news", make_news())
    hub.fault, hub.cut_files = "cut", {"data/train-00001-of-00002.parquet"}
    answer = read("hf:someone/news")
    assert answer["error"] == "DataError"
    assert "hf:someone/news" in answer["text"]
    assert hub.url in answer["text"]
    for revision in (None, repo.commit):
        assert read("hf:someone/news", revision, HF_HUB_OFFLINE="1")["error"] == "DataError"
    hub.fault = None
    assert len(read("hf:someone/news")["splits"]["train"]) == 3


@pytest.mark.parametrize("fault", ["missing", "gated", "error"])
def test_refusals_say_what_was_tried(hub: Any, read: Read, fault: str) -> None:
    hub.fault = fault
    answer = read("hf:someone/news")
    assert answer["error"] == "DataError"
    assert hub.url in answer["text"]
    assert "earlier download" in answer["text"]


def test_no_network_is_a_data_error(hub: Any, read: Read) -> None:
    hub.stop()
    assert "refused" in read("hf:someone/news")["text"]
    assert "HF_HUB_OFFLINE is set" in read("hf:someone/news", HF_HUB_OFFLINE="1")["text"]


def test_several_configurations_or_no_rows_are_refused(hub: Any, read: Read) -> None:
    train = make_parquet(["a", "b"], [0, 1])
    hub.add_repo("datasets", "someone/many", {"de/train.parquet": train, "en/train.parquet": train})
    assert "several configurations: de, en" in read("hf:someone/many")["text"]
    hub.add_repo("datasets", "someone/script", {"news.py": b"", "README.md": b"# no header"})
    assert "no files of rows" in read("hf:someone/script")["text"]


def test_an_existing_path_wins(read: Read, tmp_path: Path) -> None:
    folder = tmp_path / "hf:someone" / "news"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text("text,label\na,x\nb,y\n")
    assert len(read("hf:someone/news")["splits"]["train"]) == 2
