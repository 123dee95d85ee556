from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.integration.hub_server import HubServer, Repo

FIND = """
import json, sys
from submillion.errors import SubmillionError
from submillion.model.sources import {function}
try:
    found = {function}(*json.loads(sys.argv[1]))
except SubmillionError as error:
    print(json.dumps({{"error": type(error).__name__, "exit_code": error.exit_code, "text": str(error)}}))
else:
    print(json.dumps(found if isinstance(found, dict) else vars(found), default=str))
"""
LOAD = """
import json, sys
from submillion.model.sources import find_base
from transformers import AutoModel, AutoTokenizer
base = find_base(sys.argv[1])
model = AutoModel.from_pretrained(base.folder, add_pooling_layer=False)
tokens = AutoTokenizer.from_pretrained(base.folder)(["The bank said"], return_tensors="pt")
print(json.dumps({"states": model.eval()(**tokens)[0].flatten().tolist()}))
"""
READ = """
import json, sys
from submillion.data.read import read_dataset
from submillion.errors import SubmillionError
try:
    data = read_dataset(*json.loads(sys.argv[1])[:1], revision=json.loads(sys.argv[1])[1])
except SubmillionError as error:
    print(json.dumps({"error": type(error).__name__, "exit_code": error.exit_code, "text": str(error)}))
else:
    splits = {name: [[*row.columns, row.label] for row in rows] for name, rows in data.splits.items()}
    print(json.dumps({"splits": splits, "labels": data.labels and data.labels.names, "files": data.files}))
"""

RunPython = Callable[..., dict[str, Any]]


def assert_asked_once(hub: HubServer) -> None:
    """Check that an unresponsive hub is given up at once: retries with their pauses would last minutes."""
    assert len([request for request in hub.requests if "/someone/" in request]) == 1, hub.requests


@pytest.fixture
def run_python(hub: HubServer, tmp_path: Path) -> RunPython:
    """Return `run(code, *arguments, **environment)`: a fresh process that uses the test's server as the hub."""

    def run(code: str, *arguments: str, **environment: str) -> dict[str, Any]:
        variables = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")}
        variables |= {"XDG_CACHE_HOME": str(tmp_path / "caches"), "NO_PROXY": "127.0.0.1", **environment}
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    return run


@pytest.fixture
def find(run_python: RunPython) -> RunPython:
    def call(*arguments: str | None, function: str = "find_base", **environment: str) -> dict[str, Any]:
        return run_python(FIND.format(function=function), json.dumps(arguments), **environment)

    return call


def test_downloads_once_and_loads_the_same_model(
    hub: HubServer, find: RunPython, run_python: RunPython, tiny_roberta: Path
) -> None:
    repo = hub.add_folder("models", "someone/tiny", tiny_roberta)
    found = find("someone/tiny")
    assert (found["origin"], found["revision"], found["name"]) == ("hub", repo.commit, "someone/tiny")
    folder = Path(found["folder"])
    for path in tiny_roberta.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()

    hub.stop()
    again = find("someone/tiny")
    assert again == {**found, "origin": "cache"}
    assert find("someone/tiny", repo.commit)["origin"] == "cache"
    downloaded = run_python(LOAD, "someone/tiny")
    assert downloaded == run_python(LOAD, str(tiny_roberta))
    assert len(downloaded["states"]) > 0


def test_downloads_only_what_an_encoder_needs(hub: HubServer, find: RunPython, tiny_roberta: Path) -> None:
    repo = hub.add_folder("models", "someone/tiny", tiny_roberta)
    extra = ("pytorch_model.bin", "modeling_tiny.py", "onnx/model.onnx", "README.md", "onnx/config.json", "x.msgpack")
    repo.files.update(dict.fromkeys(extra, b"not wanted"))
    found = find("someone/tiny")
    assert sorted(path.name for path in Path(found["folder"]).iterdir()) == sorted(os.listdir(tiny_roberta))
    fetched = {request.rpartition("/")[2] for request in hub.requests if request.startswith("GET /someone")}
    assert fetched == set(os.listdir(tiny_roberta))


def test_configuration_alone_needs_no_weights(hub: HubServer, find: RunPython, tiny_roberta: Path) -> None:
    hub.add_folder("models", "someone/tiny", tiny_roberta)
    config = find("someone/tiny", function="load_base_config")
    assert config == json.loads((tiny_roberta / "config.json").read_text())
    assert not any("safetensors" in request for request in hub.requests)
    hub.stop()
    assert find("someone/tiny", function="load_base_config") == config
    # A config.json alone in the cache is not accepted as a whole model.
    failed = find("someone/tiny")
    assert failed["exit_code"] == 5
    assert "is incomplete: no model.safetensors" in failed["text"]


def test_an_interrupted_download_is_not_taken_for_whole(hub: HubServer, find: RunPython, tiny_roberta: Path) -> None:
    repo = hub.add_folder("models", "someone/tiny", tiny_roberta)
    hub.fault, hub.cut_files = "cut", {"model.safetensors"}
    failed = find("someone/tiny")
    assert (failed["error"], failed["exit_code"]) == ("ModelError", 5)
    assert "someone/tiny" in failed["text"]
    assert "could not be read" in failed["text"]

    for revision in (None, repo.commit):
        failed = find("someone/tiny", revision, HF_HUB_OFFLINE="1")
        assert failed["exit_code"] == 5
    assert "is incomplete: no model.safetensors" in failed["text"]
    hub.fault = None
    found = find("someone/tiny")
    assert found["origin"] == "hub"
    content = (Path(found["folder"]) / "model.safetensors").read_bytes()
    assert content == (tiny_roberta / "model.safetensors").read_bytes()


def test_an_interrupted_update_leaves_the_old_download_usable(
    hub: HubServer, find: RunPython, tiny_roberta: Path
) -> None:
    hub.add_folder("models", "someone/tiny", tiny_roberta)
    found = find("someone/tiny")
    repo = hub.add_repo("models", "someone/tiny", {**hub.repos["models", "someone/tiny"].files, "README.md": b"New."})
    repo.files["model.safetensors"] = bytes(reversed(repo.files["model.safetensors"]))
    hub.fault, hub.cut_files = "cut", {"model.safetensors"}
    assert find("someone/tiny", repo.commit)["exit_code"] == 5
    assert find("someone/tiny", HF_HUB_OFFLINE="1") == {**found, "origin": "cache"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "does not exist or is private"),
        ("gated", "is gated: accept its terms"),
        ("error", "HTTP status 500"),
        ("silent", "Timeout"),
    ],
)
@pytest.mark.parametrize("function", ["find_base", "load_base_config"])
def test_refusals_are_told_in_plain_words(
    hub: HubServer, find: RunPython, tiny_roberta: Path, *, fault: Any, words: str, function: str
) -> None:
    hub.add_folder("models", "someone/tiny", tiny_roberta)
    hub.fault = fault
    failed = find("someone/tiny", function=function, HF_HUB_ETAG_TIMEOUT="1")
    assert (failed["error"], failed["exit_code"]) == ("ModelError", 5)
    assert words in failed["text"]
    assert "local hub cache: not in" in failed["text"]
    assert "--base minilm-l6" in failed["text"]
    assert_asked_once(hub)


def test_an_unreachable_hub_is_named(hub: HubServer, find: RunPython) -> None:
    hub.stop()
    failed = find("roberta-base")
    assert failed["exit_code"] == 5
    for place in ("installed package", "local hub cache", "hub: FacebookAI/roberta-base", "ConnectError"):
        assert place in failed["text"]


def test_offline_is_named_as_the_reason(hub: HubServer, find: RunPython) -> None:
    failed = find("someone/tiny", HF_HUB_OFFLINE="1")
    assert "hub: HF_HUB_OFFLINE is set" in failed["text"]
    assert "Unset HF_HUB_OFFLINE" in failed["text"]
    assert hub.requests == []


def test_an_unknown_revision(hub: HubServer, find: RunPython, tiny_roberta: Path) -> None:
    hub.add_folder("models", "someone/tiny", tiny_roberta)
    assert "has no revision v9" in find("someone/tiny", "v9")["text"]


def test_the_pinned_commit_is_asked_for(hub: HubServer, find: RunPython, tiny_roberta: Path) -> None:
    hub.add_folder("models", "FacebookAI/roberta-base", tiny_roberta)
    failed = find("roberta-base")
    assert "has no revision e2da8e2f811d1448a5b465c236feacd80ffbac7b" in failed["text"]
    assert find("roberta-base", "main")["name"] == "roberta-base"


@pytest.mark.parametrize(
    ("missing", "added", "words"),
    [
        ("model.safetensors", "pytorch_model.bin", "only the pickled pytorch_model.bin"),
        ("tokenizer.json", "README.md", "no tokenizer"),
        ("config.json", "README.md", "no config.json"),
    ],
)
def test_an_unusable_repository_is_refused_before_any_download(
    hub: HubServer, find: RunPython, tiny_roberta: Path, *, missing: str, added: str, words: str
) -> None:
    repo = hub.add_folder("models", "someone/tiny", tiny_roberta)
    del repo.files[missing]
    repo.files[added] = b"0"
    failed = find("someone/tiny")
    assert (failed["error"], failed["exit_code"]) == ("ModelError", 5)
    assert words in failed["text"]
    assert not any("/resolve/" in request for request in hub.requests)


def test_weights_that_were_cut_on_the_hub_itself(hub: HubServer, find: RunPython, tiny_roberta: Path) -> None:
    repo = hub.add_folder("models", "someone/tiny", tiny_roberta)
    repo.files["model.safetensors"] = repo.files["model.safetensors"][:-100]
    failed = find("someone/tiny")
    assert failed["exit_code"] == 5
    assert "the file was cut or altered" in failed["text"]


# ------------------------------------------------------------------------------------------------- data sets

NEWS = {
    "train": [("Talks on the border resume in Tarvik.", 2), ("The keeper saved two penalties.", 1)],
    "test": [("Shares of the mill fell by a tenth.", 0)],
}
NEWS_LABELS = ("business", "sports", "world")


@pytest.fixture
def news_repo(hub: HubServer, tmp_path: Path) -> Repo:
    """Put a parquet data set on the hub, as `datasets` writes it: class names are in the files' metadata."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NEWS_LABELS)})
    folder = tmp_path / "news"
    for split, rows in NEWS.items():
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    (folder / "README.md").write_text("A data set of three lines.")
    return hub.add_folder("datasets", "someone/news", folder)


@pytest.fixture
def read(run_python: RunPython) -> RunPython:
    def call(data: str, revision: str | None = None, **environment: str) -> dict[str, Any]:
        return run_python(READ, json.dumps([data, revision]), **environment)

    return call


def test_a_parquet_data_set_is_read_with_its_class_names(hub: HubServer, read: RunPython, news_repo: Repo) -> None:
    found = read("hf:someone/news")
    assert found["labels"] == list(NEWS_LABELS)
    assert found["splits"] == {split: [list(row) for row in rows] for split, rows in NEWS.items()}
    assert sorted(found["files"].values()) == sorted(
        hashlib.sha256(content).hexdigest() for path, content in news_repo.files.items() if path.endswith(".parquet")
    )
    assert read("hf:someone/news", news_repo.commit) == found
    hub.stop()
    assert read("hf:someone/news", news_repo.commit) == found


@pytest.mark.parametrize("fault", ["missing", "gated", "error", "silent"])
def test_a_refused_data_set_is_a_data_error(hub: HubServer, read: RunPython, news_repo: Repo, fault: Any) -> None:
    hub.fault = fault
    failed = read("hf:someone/news", HF_HUB_ETAG_TIMEOUT="1")
    assert (failed["error"], failed["exit_code"]) == ("DataError", 3)
    assert "someone/news" in failed["text"]
    assert_asked_once(hub)


def test_an_interrupted_data_set_is_not_taken_for_whole(hub: HubServer, read: RunPython, news_repo: Repo) -> None:
    hub.fault, hub.cut_files = "cut", {"data/train-00000-of-00001.parquet"}
    failed = read("hf:someone/news")
    assert (failed["error"], failed["exit_code"]) == ("DataError", 3)
    hub.fault = None
    assert len(read("hf:someone/news")["splits"]["train"]) == 2
