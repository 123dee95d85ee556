"""What Python callers pass instead of files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from submillion.config import RunConfig
from submillion.data.read import read_dataset
from submillion.data.texts import encode_table, is_table, list_texts, name_source, place_table, placing_table
from submillion.errors import ConfigError, DataError

FRAME = pd.DataFrame({"text": ["a", "b", "c", "d"], "label": [1, 2, 1, 2], "kind": pd.Categorical(list("xyxy"))})


@pytest.mark.parametrize(
    "texts",
    [["a", "b"], ("a", "b"), np.array(["a", "b"]), pd.Series(["a", "b"]), (c for c in "ab"), {"a": 1, "b": 2}.keys()],
)
def test_anything_that_yields_texts_is_a_list_of_them(texts: Any) -> None:
    found = list_texts(texts)
    assert found == ["a", "b"]
    assert {type(text) for text in found} == {str}


def test_one_text_is_a_list_of_one() -> None:
    assert list_texts("one text") == ["one text"]
    assert list_texts(np.str_("one")) == ["one"]
    assert list_texts([]) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", None], r"texts\[1\]: None \(NoneType\) is no text"),
        ([float("nan")], r"texts\[0\]: nan \(float\) is no text"),
        ([["a"]], r"texts\[0\]: .*list\) is no text"),
        (pd.Series(["a", None]), r"texts\[1\]: .* is no text"),
        (np.array([["a", "b"]]), r"texts\[0\]: .*ndarray\) is no text"),
        (np.array("a"), "is no list of texts"),
        (b"bytes", "is no list of texts but a bytes"),
        ({"text": "a"}, "is no list of texts but a dict"),
        (FRAME, "is no list of texts but a DataFrame"),
        (None, "None .* is no list of texts"),
        (["a", "\ud800"], r"texts\[1\]: the text holds half a character"),
    ],
)
def test_what_is_no_text_is_named_with_its_position(texts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_texts(texts)


def test_a_source_is_a_path_a_name_or_a_table(tmp_path: Path) -> None:
    assert name_source(None) is None
    assert name_source("hf:a/b") == "hf:a/b"
    assert name_source(tmp_path / "a.csv") == str(tmp_path / "a.csv")
    assert [is_table(value) for value in (FRAME, pa.table({"a": [1]}), FRAME["text"], [1], "a")] == [
        *(True, True, False, False, False)
    ]
    for value in (FRAME["text"], ["a"], 5, b"a.csv"):
        with pytest.raises(ConfigError, match="is no data source"):
            name_source(value)


def test_a_table_is_kept_beside_the_run(tmp_path: Path) -> None:
    config = place_table(RunConfig(), FRAME, tmp_path / "run")
    assert config.data.source == str(tmp_path / "run.rows.parquet")
    dataset = read_dataset(config.data.source)
    assert [record.text for record in dataset.splits["all"]] == list("abcd")
    assert dataset.labels is not None
    assert dataset.labels.names == ("1", "2")
    before = (tmp_path / "run.rows.parquet").read_bytes()
    assert encode_table(FRAME.set_index("kind", drop=False)) == before == encode_table(FRAME)
    place_table(RunConfig(), FRAME, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds other rows"):
        place_table(RunConfig(), FRAME.iloc[:3], tmp_path / "run")
    assert place_table(RunConfig(), "a.csv", tmp_path / "other") == RunConfig()
    kinds = read_dataset(config.data.source).files
    assert list(kinds) == ["run.rows.parquet"]


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("frame", [FRAME, pd.DataFrame({"text": ["a", 1, object()]})])
def test_of_a_table_that_is_refused_nothing_stays(tmp_path: Path, frame: pd.DataFrame, is_ours: bool) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with pytest.raises(DataError), placing_table(RunConfig(), frame, out, is_ours=is_ours):
        raise DataError("no labels")
    assert list(tmp_path.iterdir()) == ([] if is_ours else [out])


def test_of_a_table_that_a_run_was_begun_with_the_rows_stay(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").touch()
    with pytest.raises(DataError), placing_table(RunConfig(), FRAME, out, is_ours=True):
        raise DataError("not finite")
    assert (tmp_path / "run.rows.parquet").is_file()
    (out / "config.yaml").unlink()
    with pytest.raises(DataError), placing_table(RunConfig(), FRAME, out, is_ours=True):
        raise DataError("once more")
    # The file was there before.
    assert (tmp_path / "run.rows.parquet").is_file()


@pytest.mark.parametrize("kind", [pa.string(), pa.null()])
def test_a_table_without_rows_is_named_as_one(tmp_path: Path, kind: pa.DataType) -> None:
    config = place_table(
        RunConfig(), pa.table({"text": pa.array([], kind), "label": pa.array([], kind)}), tmp_path / "r"
    )
    with pytest.raises(DataError, match="the file holds no rows"):
        read_dataset(config.data.source)


def test_metadata_of_columns_stays() -> None:
    table = pa.table({"text": ["a"]}).replace_schema_metadata({b"huggingface": b"{}", b"pandas": b"{}"})
    assert pq.read_schema(io.BytesIO(encode_table(table))).metadata == {b"huggingface": b"{}"}


def test_columns_of_mixed_types_are_a_data_error() -> None:
    with pytest.raises(DataError, match="the table cannot be read"):
        encode_table(pd.DataFrame({"text": ["a", 1, object()]}))
