"""The shipped news items: enough of them, each its own, none in both splits."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from typing import Any

import pytest

from submillion.corpus import CORPUS_FOLDER
from submillion.data.check import DataReport, check_records
from submillion.data.read import read_dataset

CLASSES = {"World", "Sports", "Business", "Sci/Tech"}


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for split in ("train", "test")
        for line in (CORPUS_FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


@pytest.fixture(scope="module")
def report() -> DataReport:
    dataset = read_dataset(str(CORPUS_FOLDER))
    return check_records(dataset.splits, dataset.labels, column_names=dataset.column_names)


def test_every_class_has_its_share_of_both_splits(items: list[dict[str, Any]]) -> None:
    counts = Counter((item["split"], item["label"]) for item in items)
    assert counts == {(split, label): n for split, n in (("train", 115), ("test", 50)) for label in CLASSES}
    assert min(Counter(item["label"] for item in items).values()) >= 150


def test_label_ids_are_those_of_ag_news() -> None:
    labels = read_dataset(str(CORPUS_FOLDER)).labels
    assert labels is not None
    assert labels.names == ("World", "Sports", "Business", "Sci/Tech")


def test_files_hold_the_split_that_their_rows_name() -> None:
    for split in ("train", "test"):
        lines = (CORPUS_FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert {json.loads(line)["split"] for line in lines} == {split}


def test_no_item_stands_twice(report: DataReport, items: list[dict[str, Any]]) -> None:
    assert (report.num_exact_duplicates, report.num_near_duplicates, report.num_label_conflicts) == (0, 0, 0)
    assert report.leaks == ()
    for key in ("id", "title"):
        assert max(Counter(item[key].casefold() for item in items).values()) == 1


def test_texts_are_clean_and_of_the_length_of_wire_copy(report: DataReport, items: list[dict[str, Any]]) -> None:
    findings = report.to_json()
    assert findings["num_encoding_damage"] == findings["num_empty"] == 0
    for item in items:
        assert 3 <= len(item["title"].split()) <= 12
        assert 20 <= len(item["description"].split()) <= 60
        for text in (item["title"], item["description"]):
            assert unicodedata.normalize("NFC", text) == text
            assert not any(unicodedata.category(character).startswith("C") for character in text)
