"""Rows to measure on: distinct, cleaned real ones and, if there are too few, changed copies. No row is repeated."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from submillion.corpus import CORPUS_FOLDER
from submillion.data.clean import NEWS, clean_records
from submillion.data.read import read_dataset
from submillion.errors import DataError

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Row:
    """One text and its label id."""

    text: str
    label: int


@dataclass(frozen=True)
class RowSource:
    """The rows of the source.

    Attributes:
        rows: Distinct, shuffled and cleaned rows.
        num_labels: Number of classes.
        about: Origin of the rows, for the result.
    """

    rows: tuple[Row, ...]
    num_labels: int
    about: str


def read_rows(data: str | None, *, seed: int = 0) -> RowSource:
    """Read the rows to measure on.

    Args:
        data: Path of a file or folder, or hub id, as in every command; None takes the shipped news items.
        seed: Seed for the order, so that files sorted by class or length give fair samples.

    Raises:
        DataError: The data is unreadable or empty.
    """
    dataset = read_dataset(data if data is not None else str(CORPUS_FOLDER))
    split = "train" if "train" in dataset.splits else next(iter(dataset.splits))
    records = list(clean_records(dataset.splits[split], NEWS))
    texts = {record.text: record.label or 0 for record in records if record.text.strip()}
    if not texts:
        raise DataError("has no rows with text", where=str(data))
    rows = [Row(text, label) for text, label in texts.items()]
    random.Random(seed).shuffle(rows)
    name = "the shipped news items" if data is None else f"{Path(data).name} ({split})"
    return RowSource(tuple(rows), len(dataset.labels) if dataset.labels else 2, f"{len(rows):,} rows of {name}")


def take_rows(source: RowSource, num_rows: int, *, seed: int = 0) -> tuple[list[Row], str]:
    """Return distinct rows, real ones first and then changed copies, and a sentence that says so."""
    rows = list(source.rows[:num_rows])
    num_real = len(rows)
    if num_real < num_rows:
        rows.extend(_make_rows(source.rows, num_rows - num_real, seed))
    made = f", {num_rows - num_real:,} changed copies of them" if num_rows > num_real else ""
    return rows, f"{num_real:,} of {source.about}{made}; all distinct"


def _make_rows(rows: Sequence[Row], count: int, seed: int) -> Iterator[Row]:
    rng = random.Random(seed)
    seen = {row.text for row in rows}
    words = [word for row in rows[:2000] for word in row.text.split()]
    made = 0
    while made < count:
        row = rows[made % len(rows)]
        text = perturb_text(row.text, words, rng)
        while text in seen:  # a longer text has more possible changes, so this always ends
            text = perturb_text(f"{text} {rng.choice(words)}", words, rng)
        seen.add(text)
        made += 1
        yield Row(text, row.label)


def perturb_text(text: str, words: Sequence[str], rng: random.Random) -> str:
    """Return the text with some words swapped, dropped or exchanged, and its numbers changed.

    There are from one edit to one for every third word, so that some results are near duplicates of the text and most
    are not, as in real data. The length is about the same.

    Args:
        text: Any text.
        words: Words to put in place of others.
        rng: Generator of all random choices.
    """
    parts = _NUMBER.sub(lambda match: str(rng.randrange(10 ** len(match.group()[:9]))), text).split()
    for _ in range(rng.randint(1, max(1, len(parts) // 3))):
        place = rng.randrange(len(parts)) if parts else 0
        edit = rng.random()
        if edit < 0.4 and place + 1 < len(parts):
            parts[place], parts[place + 1] = parts[place + 1], parts[place]
        elif edit < 0.5 and len(parts) > 3:
            del parts[place]
        elif edit < 0.6 or not parts:
            parts.insert(place, rng.choice(words))
        else:
            parts[place] = rng.choice(words)
    return " ".join(parts)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as JSON lines with the columns text and label."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"text": row.text, "label": row.label}) + "\n")


def load_rows(path: Path) -> list[Row]:
    """Read the rows that `write_rows` wrote."""
    with path.open(encoding="utf-8") as file:
        return [Row(**json.loads(line)) for line in file]
