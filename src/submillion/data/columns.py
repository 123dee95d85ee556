"""Decide which columns of a table are the texts, the label and the id."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from submillion.data.table import Table, closed_after, shorten
from submillion.errors import DataError

# Tried in order, compared without case; the first that is there in full is taken. Pairs come before their parts.
TEXT_CHOICES: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("title", "description"),
    ("headline", "description"),
    ("title", "content"),
    ("headline", "short_description"),
    ("title", "body"),
    ("subject", "body"),
    ("headline", "body"),
    ("subject", "message"),
    ("title", "abstract"),
    ("title", "review"),
    ("title", "summary"),
    ("review_title", "review_text"),
    ("review_title", "review_body"),
    ("review_title", "review"),
    ("review_headline", "review_body"),
    ("summary", "review_text"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question_title", "question_content", "best_answer"),
    ("question_title", "question_body", "answer"),
    ("question", "answer"),
    ("question", "passage"),
    ("question", "sentence"),
    ("prompt", "response"),
    ("sentence",),
    ("content",),
    ("description",),
    ("headline",),
    ("title",),
    ("review",),
    ("review_text",),
    ("review_body",),
    ("body",),
    ("document",),
    ("question",),
    ("message",),
    ("comment",),
    ("comment_text",),
    ("tweet",),
    ("utterance",),
    ("query",),
    ("post",),
    ("article",),
    ("abstract",),
)
LABEL_CHOICES = ("label", "labels", "class", "category", "class_index", "label_id", "target", "topic")
ID_CHOICES = ("id", "idx")
NO_ID = "none"
"""What stands in the place of an id column where row numbers are wanted."""

ONE_BASED = "class_index"
"""Label column, by name, whose integers count from 1: the official AG News files and their copies with a header."""

SAMPLE_ROWS = 1000
SAMPLE_CELLS = 1_000_000
MUCH_LONGER = 1.5
"""How many times as long as the chosen texts an unread column is that ends in a question."""

MIN_PROSE_CHARS = 20
MIN_PROSE_WORDS = 4


@dataclass(frozen=True)
class Columns:
    """Which columns to read; what is left out is found by name.

    Attributes:
        text: Text columns in reading order.
        label: The label column.
        id: The id column; ``none`` for row numbers.
    """

    text: tuple[str, ...] = ()
    label: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Selection:
    """Columns that were found in one table, by their names there; positions follow from the names."""

    text: tuple[str, ...]
    label: str | None
    id: str | None

    @property
    def is_one_based(self) -> bool:
        """Whether integer labels count from 1."""
        return self.label is not None and fold_name(self.label) == ONE_BASED


def fold_name(name: str) -> str:
    """Return what two spellings of a column's name have in common: no case, and one sign between words."""
    return name.strip(" \t\r\n\ufeff\u200b\xa0").lower().replace(" ", "_").replace("-", "_")


def select_columns(table: Table, columns: Columns, path: Path) -> Selection:
    """Find the wanted columns in a table.

    Raises:
        DataError: A column that was asked for is not there, a name appears twice or in two spellings, no text column is
            found, or one that is found by its name is much shorter than one that would not be read.
    """
    repeated = sorted(name for name, number in Counter(table.names).items() if number > 1 and name)
    if repeated:
        raise DataError(
            f"column names stand twice: {', '.join(map(shorten, repeated[:10]))}",
            where=f"{path}:1",
            hint="Give every column a name of its own.",
        )
    spellings: dict[str, list[str]] = {}
    for name in table.names:
        spellings.setdefault(fold_name(name), []).append(name)
    text = tuple(_find_given(name, table, spellings, path, "text") for name in columns.text)
    is_guessed = not text
    text = text or _find_text(table, spellings, path)
    label = (
        _find_given(columns.label, table, spellings, path, "label")
        if columns.label
        else _find_any(LABEL_CHOICES, spellings, text, path, "label")
    )
    if columns.id == NO_ID and NO_ID not in table.names:
        record_id = None
    elif columns.id:
        record_id = _find_given(columns.id, table, spellings, path, "id")
    else:
        record_id = _find_any(ID_CHOICES, spellings, text, path, "id")
    selection = Selection(text, label, record_id)
    if is_guessed:
        _refuse_longer(table, selection, path)
    return selection


def describe_selection(selection: Selection, table: Table) -> str:
    """Return which columns are read as what, and which are not read."""
    parts = [f"text from {' + '.join(map(shorten, selection.text))}"]
    if selection.label is not None:
        parts.append(f"label from {shorten(selection.label)}")
    parts.append(f"id from {shorten(selection.id)}" if selection.id is not None else "ids are row numbers")
    rest = [name for name in table.names if name and name not in {*selection.text, selection.label, selection.id}]
    # Columns without a name behind the last one are what a spreadsheet leaves; before it, pandas writes its index.
    last = max((position for position, name in enumerate(table.names) if name), default=0)
    unnamed = [position for position, name in enumerate(table.names[:last], start=1) if not name]
    rest = [*(f"column {position}, which has no name" for position in unnamed), *map(shorten, rest)]
    shown = ", ".join(rest[:8]) + (f" and {len(rest) - 8:,} more" if len(rest) > 8 else "")
    return ", ".join(parts) + (f"; not read: {shown}" if rest else "")


def _find_given(name: str, table: Table, spellings: dict[str, list[str]], path: Path, role: str) -> str:
    if name and name in table.names:
        return name
    if fold_name(name) in spellings:
        return _choose_spelling(fold_name(name), spellings, path, role)
    close = difflib.get_close_matches(fold_name(name), list(spellings)[:SAMPLE_ROWS], n=1)
    suggestion = f"Did you mean {shorten(spellings[close[0]][0])}? " if close else ""
    raise DataError(
        f"there is no column {shorten(name)}; the file has {_list_names(table)}",
        where=str(path),
        hint=f"{suggestion}Choose the {role} column with --{role}.",
    )


def _choose_spelling(folded: str, spellings: dict[str, list[str]], path: Path, role: str) -> str:
    found = spellings[folded]
    if len(found) > 1:
        raise DataError(
            f"the name of the {role} column is there in {len(found)} spellings: {', '.join(map(shorten, found[:10]))}",
            where=str(path),
            hint=f"Choose one of them with --{role} {found[0]}",
        )
    return found[0]


def _find_text(table: Table, spellings: dict[str, list[str]], path: Path) -> tuple[str, ...]:
    for choice in TEXT_CHOICES:
        if all(name in spellings for name in choice):
            return tuple(_choose_spelling(name, spellings, path, "text") for name in choice)
    raise DataError(
        f"found no text column; the file has {_list_names(table)}",
        where=str(path),
        hint="Choose it with --text NAME. A file without a header is read only in the official format: "
        "class 1..C, title, description.",
    )


def _find_any(
    choices: Sequence[str], spellings: dict[str, list[str]], taken: Sequence[str], path: Path, role: str
) -> str | None:
    for choice in choices:
        found = spellings.get(choice)
        if found is not None and not set(found) & set(taken):
            return _choose_spelling(choice, spellings, path, role)
    return None


def _list_names(table: Table) -> str:
    shown = ", ".join(map(shorten, table.names[:30]))
    return shown + (f" and {len(table.names) - 30:,} more" if len(table.names) > 30 else "")


def _refuse_longer(table: Table, selection: Selection, path: Path) -> None:
    """Refuse a choice by name that leaves out a column of much longer texts, as its name says less than its content."""
    chosen = {*selection.text, selection.label, selection.id}
    strings = range(len(table.names)) if table.strings is None else table.strings
    others = [position for position in strings if table.names[position] not in chosen]
    if not others:
        return
    read = [table.names.index(name) for name in selection.text]
    rows = list(_iter_sample(table, [*read, *others]))
    if not rows:
        return
    usual = median(sum(len(value) for value in row[: len(read)] if isinstance(value, str)) for row in rows)
    least = max(MUCH_LONGER * usual, MIN_PROSE_CHARS)
    longest, size = None, 0.0
    for number, position in enumerate(others, start=len(read)):
        values = [value for row in rows if isinstance(value := row[number], str) and value.strip()]
        if 2 * len(values) > len(rows):
            length = median(map(len, values))
            if length >= least and length > size and _is_prose(values):
                longest, size = position, length
    if longest is None:
        return
    name = table.names[longest]
    names = ",".join(selection.text)
    unread = f"column {shorten(name)}" if name else f"column {longest + 1}, which has no name"
    both = f"--text {names},{name}, or --text {name}, if its texts are meant; " if name else ""
    raise DataError(
        f"the text would come from {' + '.join(map(shorten, selection.text))} with {usual:g} characters, and {unread} "
        f"with {size:g} would not be read (medians of {len(rows):,} rows)",
        where=str(path),
        hint=f"Choose: {both}--text {names} leaves it unread.",
    )


def _iter_sample(table: Table, wanted: Sequence[int]) -> Iterator[Sequence[object]]:
    num_rows = min(SAMPLE_ROWS, max(1, SAMPLE_CELLS // len(wanted)))
    with closed_after(table.iter_rows(wanted)) as rows:
        yield from (values for _, values in islice(rows, num_rows))


def _is_prose(values: Sequence[str]) -> bool:
    """Whether values are sentences: several words, mostly letters, and not the same few again and again."""
    if 10 * len(set(values)) <= len(values):
        return False
    some = [value[:2000] for value in values[:100]]
    num_letters = sum(map(str.isalpha, "".join(some)))
    num_signs = sum(not sign.isspace() for sign in "".join(some))
    has_words = median(len(value.split()) for value in some) >= MIN_PROSE_WORDS
    is_unspaced = not any(map(str.isascii, some))  # Chinese and others write no blanks
    return (has_words or is_unspaced) and num_letters >= 0.7 * num_signs
