"""Data read from Python: files, splits and tables, by the keywords of the API."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import submillion
from submillion.errors import ConfigError, DataError

ROWS = {"key": ["a", "b", "c"], "head": ["rain", "goals", "snow"], "kind": ["w", "s", "w"]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    return path


def test_a_file_and_a_table_give_the_same_records(file: Path) -> None:
    for data in (file, str(file), pd.DataFrame(ROWS)):
        records = submillion.read_records(data, text="head", label="kind", row_id="key")
        assert [(r.id, r.text, r.label) for r in records] == [("a", "rain", 1), ("b", "goals", 0), ("c", "snow", 1)]


def test_classes_that_are_known_give_the_label_ids(file: Path) -> None:
    records = submillion.read_records(file, text=["head"], label="kind", labels=("n", "w", "s"))
    assert [record.label for record in records] == [1, 2, 1]
    with pytest.raises(DataError, match="'w'"):
        submillion.read_records(file, text=["head"], label="kind", labels=("n", "s"))


def test_numbers_are_read_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nrain,1\ngoals,2\n")
    read = submillion.read_dataset(path, numbers="names").labels
    assert read is not None
    assert read.names == ("1", "2")
    read = submillion.read_dataset(path, numbers="ids-from-1", labels=("World", "Sports")).labels
    assert read is not None
    assert read.names == ("World", "Sports")


def test_one_of_several_splits_is_named(tmp_path: Path) -> None:
    for name, text in (("train", "rain"), ("test", "snow")):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{text},a\n{text} more,b\n")
    assert submillion.read_records(tmp_path, split="test")[0].text == "snow"
    assert set(submillion.read_dataset(tmp_path).splits) == {"train", "test"}
    for split, message in ((None, "several splits, of train, test"), ("validation", "no split 'validation'")):
        with pytest.raises(DataError, match=message):
            submillion.read_records(tmp_path, split=split)


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no data"):
        submillion.read_records(None)
    with pytest.raises(ConfigError, match="is not a data source"):
        submillion.read_records(3)
