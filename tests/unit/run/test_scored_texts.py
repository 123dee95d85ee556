from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from submillion.errors import RunError
from submillion.run.folder import RunDir
from submillion.run.predictions import read_scored_texts


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.predictions("test").parent.mkdir(parents=True)
    return run


def test_scored_texts_are_read_in_order(run: RunDir) -> None:
    parquet.write_table(pa.table({"id": ["b", "a"], "text": ["second", "first"]}), run.predictions("test"))
    assert read_scored_texts(run, "test") == ["second", "first"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"PAR1"),
        lambda file: file.write_bytes(file.read_bytes()[:-20]),
        lambda file: parquet.write_table(pa.table({"id": ["a"]}), file),
        lambda file: parquet.write_table(pa.table({"text": pa.array([], pa.string())}), file),
        lambda file: parquet.write_table(pa.table({"text": ["a", None]}), file),
        lambda file: parquet.write_table(pa.table({"text": [1, 2]}), file),
    ],
    ids=["stub", "cut", "no texts", "empty", "null", "numbers"],
)
def test_damaged_texts_are_refused(run: RunDir, damage: object) -> None:
    file = run.predictions("test")
    parquet.write_table(pa.table({"text": ["a", "b"]}), file)
    assert callable(damage)
    damage(file)
    with pytest.raises(RunError, match="is damaged") as caught:
        read_scored_texts(run, "test")
    assert caught.value.where == str(file)
    assert "--resume" in caught.value.hint


def test_a_link_in_its_place_is_refused(run: RunDir, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "elsewhere")
    run.predictions("test").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError):
        read_scored_texts(run, "test")


def test_a_split_that_was_not_scored_is_named(run: RunDir) -> None:
    with pytest.raises(RunError, match="no scored validation rows"):
        read_scored_texts(run, "validation")
