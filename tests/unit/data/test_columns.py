"""The columns that are read: they are found by name and checked by their contents."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from submillion.data.columns import Columns
from submillion.data.read import iter_records, read_dataset
from submillion.errors import DataError
from tests.words import WORDS


def make_text(draw: random.Random, num_words: int) -> str:
    return " ".join(draw.choices(WORDS, k=num_words))


def write_columns(path: Path, names: dict[str, int | str], num_rows: int = 40) -> str:
    """Write a file of columns: prose with a number of words, or the kind that the name says."""
    draw = random.Random(1)
    kinds: dict[str, Callable[[int], str]] = {
        "url": lambda n: f"https://www.example.org/{draw.getrandbits(400):x}",
        "hash": lambda n: f"{draw.getrandbits(512):0128x}",
        "label": lambda n: ("x", "y")[n % 2],
        "numbers": lambda n: " ".join(str(draw.random()) for _ in range(12)),
        "boilerplate": lambda n: "All rights are reserved by the owner of this page and by nobody else",
        "chinese": lambda n: "".join(chr(draw.randrange(0x4E00, 0x9000)) for _ in range(90)),
        "rare": lambda n: make_text(draw, 40) if n % 4 == 0 else "",
    }
    rows = [
        {name: make_text(draw, kind) if isinstance(kind, int) else kinds[kind](n) for name, kind in names.items()}
        for n in range(num_rows)
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("title", "body"), ("title", "body")),
        (("subject", "body"), ("subject", "body")),
        (("question", "answer"), ("question", "answer")),
        (("premise", "hypothesis"), ("premise", "hypothesis")),
        (("sentence1", "sentence2"), ("sentence1", "sentence2")),
        (("review_title", "review_text"), ("review_title", "review_text")),
        (("Review Title", "Review-Text"), ("Review Title", "Review-Text")),
        (("tweet",), ("tweet",)),
        (("message",), ("message",)),
        (("comment",), ("comment",)),
        (("utterance",), ("utterance",)),
        (("title", "text"), ("text",)),
        (("Text",), ("Text",)),
    ],
)
def test_usual_names_are_found_and_named(tmp_path: Path, names: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    path = write_columns(tmp_path / "a.jsonl", {"label": "label", "stars": "label", **dict.fromkeys(names, 8)})
    dataset = read_dataset(path)
    assert dataset.column_names == chosen
    (note,) = [note for note in dataset.notes if "text from" in note]
    assert f"text from {' + '.join(map(repr, chosen))}, label from 'label', ids are row numbers; not read: " in note
    assert "'stars'" in note


def choose(role: str, name: str) -> Columns:
    chosen = {"text": Columns(text=(name,)), "label": Columns(label=name), "id": Columns(id=name)}
    return chosen[role]


@pytest.mark.parametrize("role", ["text", "label", "id"])
def test_two_spellings_are_a_doubt_until_one_is_chosen(tmp_path: Path, role: str) -> None:
    names: dict[str, int | str] = {"text": 8, "label": "label", "id": "hash", role.upper(): "hash"}
    path = write_columns(tmp_path / "a.jsonl", names)
    with pytest.raises(DataError, match=rf"(?s)2 spellings: '{role}', '{role.upper()}'.*--{role} {role}"):
        read_dataset(path)
    assert read_dataset(path, choose(role, role)).column_names == ("text",)
    assert [record.columns for record in iter_records(path, choose(role, role.upper()))]
    with pytest.raises(DataError, match="2 spellings"):
        read_dataset(path, choose(role, role.title()))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("names", "unread"),
    [
        ({"title": 4, "main_part": 9, "label": "label"}, "main_part"),
        ({"question": 6, "context": 60, "label": "label"}, "context"),
        ({"sentence": 5, "paragraph": 50, "label": "label"}, "paragraph"),
        ({"text": 3, "review": 30, "label": "label"}, "review"),
        ({"title": 6, "artikel": "chinese", "label": "label"}, "artikel"),
    ],
)
def test_a_much_longer_text_that_would_not_be_read_is_a_doubt(
    tmp_path: Path, name: str, names: dict[str, int | str], unread: str
) -> None:
    path = write_columns(tmp_path / name, names)
    first = next(iter(names))
    for read in (read_dataset, iter_records):
        with pytest.raises(DataError, match=rf"(?s)from '{first}' .*'{unread}' .*--text {first},{unread}"):
            read(path)
    assert read_dataset(path, Columns(text=(first,))).column_names == (first,)
    assert read_dataset(path, Columns(text=(first, unread))).column_names == (first, unread)


@pytest.mark.parametrize("kind", ["url", "hash", "numbers", "boilerplate", "rare", 5])
def test_longer_values_that_are_no_texts_of_their_own_are_no_doubt(tmp_path: Path, kind: int | str) -> None:
    path = write_columns(tmp_path / "a.jsonl", {"title": 4, "other": kind, "label": "label"})
    assert read_dataset(path).column_names == ("title",)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_hundred_thousand_columns_take_seconds(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    names = [f"column {number}" for number in range(100_000)]
    rows = [[f"{row} {n}" for n in range(len(names))] for row in range(3)]
    if suffix == "csv":
        lines = [",".join([*names, "text"]), *(",".join([*row, "soup"]) for row in rows)]
    else:
        lines = [json.dumps({**dict(zip(names, row, strict=True)), "text": "soup"}) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    started = time.process_time()
    dataset = read_dataset(str(path))
    assert [record.text for record in dataset.splits["all"]] == ["soup"] * 3
    assert max(map(len, dataset.notes)) < 1000
    with pytest.raises(DataError, match="no column 'tex'") as caught:
        read_dataset(str(path), Columns(text=("tex",)))
    assert len(str(caught.value)) < 3000
    assert time.process_time() - started < 10


def test_names_of_any_length_are_shown_short(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{'x' * 500_000},y\na,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="found no text column") as caught:
        read_dataset(str(path))
    assert len(str(caught.value)) < 1000
