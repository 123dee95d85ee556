"""Files of fields as spreadsheets, exports and careless programs write them."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from submillion.data.columns import Columns
from submillion.data.read import Dataset, count_rows, iter_records, read_dataset, read_records
from submillion.errors import DataError
from tests.words import WORDS

TOPICS = ("food", "money", "sport")


def make_rows(num_rows: int, *, seed: int = 0) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [(" ".join(draw.choices(WORDS, k=9)), TOPICS[number % 3]) for number in range(num_rows)]


def write_table(path: Path, rows: Sequence[tuple[str, ...]], separator: str = ",", end: str = "\n") -> Path:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator=end).writerows(rows)
    path.write_bytes(text.getvalue().encode())
    return path


def check_read(path: Path, expected: list[tuple[str, str]]) -> Dataset:
    """Both readers give the rows that were written."""
    dataset = read_dataset(str(path))
    assert dataset.labels is not None
    rows = dataset.splits["all"]
    assert [(row.text, dataset.labels.names[row.label or 0]) for row in rows] == expected
    notes: list[str] = []
    streamed = list(iter_records(str(path), on_note=notes.append))
    assert [(row.id, row.columns, row.source) for row in streamed] == [(r.id, r.columns, r.source) for r in rows]
    assert [note for note in dataset.notes if "text from" not in note] == [n for n in notes if "text from" not in n]
    return dataset


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends_are_found(tmp_path: Path, separator: str, name: str, end: str) -> None:
    rows = [(f"{text}; and, so | on", label) for text, label in make_rows(30)]
    dataset = check_read(write_table(tmp_path / name, [("text", "label"), *rows], separator, end), rows)
    usual = separator == ("," if name.endswith("csv") else "\t")
    assert any("separated by" in note for note in dataset.notes) is not usual


def test_a_line_that_names_the_separator_is_no_header(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", [("text", "label"), *make_rows(9)], ";")
    path.write_bytes(b"\xef\xbb\xbfsep=;\r\n" + path.read_bytes())
    dataset = check_read(path, make_rows(9))
    assert dataset.splits["all"][0].source == "a.csv:3"
    assert any("';'" in note for note in dataset.notes)


def test_two_separators_that_fit_are_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;label|x\n" + "a;b|c\n" * 5, encoding="utf-8")
    with pytest.raises(DataError, match="semicolons or by vertical bars"):
        read_dataset(str(tmp_path / "a.csv"))


def test_one_column_whose_texts_hold_other_separators_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n" + "one; two | three\n" * 5, encoding="utf-8")
    assert [row.text for row in read_records(str(tmp_path / "a.csv"))] == ["one; two | three"] * 5


def test_blank_rows_repeated_headers_and_empty_columns_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = make_rows(12)
    lines = [f"{text},{label},," for text, label in rows]
    lines[4:4] = ["", ",,,", " , ,,"]
    lines[9:9] = ["text,label,,"]
    (tmp_path / "a.csv").write_text("\n".join(["text,label,,", *lines, ",,,", ""]), encoding="utf-8")
    dataset = check_read(tmp_path / "a.csv", rows)
    notes = "\n".join(dataset.notes)
    assert "a.csv: 4 blank rows are left out" in notes
    assert "a.csv: 1 repeated header is left out" in notes
    assert "a.csv: 2 empty columns are left out" in notes


def test_a_value_in_a_column_without_a_name_is_a_row_that_fell_apart(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,,\nsoup,food,,\nbread, warm,food,\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a.csv:3: field 3 of the row holds 'food', and column 3 has no name"):
        read_dataset(str(tmp_path / "a.csv"))


def test_row_numbers_in_a_first_column_without_a_name_are_no_obstacle(tmp_path: Path) -> None:
    rows = make_rows(9)
    for name in ("", "Unnamed: 0"):
        table = [(name, "text", "label"), *((str(n), *r) for n, r in enumerate(rows))]
        notes = check_read(write_table(tmp_path / "a.csv", table), rows).notes
        shown = repr(name) if name else "column 1, which has no name"
        assert any(note.endswith(f"; not read: {shown}") for note in notes)


def test_a_single_column_keeps_its_empty_rows_and_the_word_of_its_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\nsoup\n""\ntext\n', encoding="utf-8")
    assert [row.text for row in iter_records(str(tmp_path / "a.csv"))] == ["soup", "", "text"]


@pytest.mark.parametrize("num_lines", [2, 3, 6])
def test_tabs_have_no_quoting_where_marks_do_not_pair_within_a_field(tmp_path: Path, num_lines: int) -> None:
    rows = make_rows(60)
    for start in range(0, 60, num_lines * 2):
        rows[start] = (f'"{rows[start][0]}', rows[start][1])
        rows[start + num_lines - 1] = (f'{rows[start + num_lines - 1][0]}."', rows[start + num_lines - 1][1])
    (tmp_path / "a.tsv").write_text(
        "\n".join("\t".join(row) for row in [("text", "label"), *rows]) + "\n", encoding="utf-8"
    )
    dataset = check_read(tmp_path / "a.tsv", rows)
    assert [row.id for row in dataset.splits["all"]] == [str(number) for number in range(60)]
    assert any("all marks are read as text" in note for note in dataset.notes)


def test_tabs_have_quoting_where_every_mark_pairs(tmp_path: Path) -> None:
    rows = [(f'He said "{text}"', label) for text, label in make_rows(12)]
    check_read(write_table(tmp_path / "a.tsv", [("text", "label"), *rows], "\t"), rows)
    # Texts of several lines and with tabs, as a spreadsheet writes them: no line is a separate row.
    rows[3] = ("two\nlines\tand a tab", "food")
    check_read(write_table(tmp_path / "b.tsv", [("text", "label"), *rows], "\t"), rows)


def swallow(rows: Sequence[tuple[str, ...]], start: int, end: int, column: int, separator: str = ",") -> str:
    """Write rows without quoting, two of which have a stray mark, like a program without quoting."""
    written = [list(row) for row in rows]
    written[start][column] = '"' + written[start][column]
    written[end][column] += '"'
    return "\n".join(separator.join(row) for row in written) + "\n"


@pytest.mark.parametrize("span", [1, 2, 7])
@pytest.mark.parametrize("shape", ["text,label", "label,text", "id,text,label", "id,text"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_rows_that_a_stray_mark_swallows_are_found(tmp_path: Path, span: int, shape: str, separator: str) -> None:
    names = shape.split(",")
    rows = []
    for number, (text, label) in enumerate(make_rows(40)):
        values = {"id": str(100 + number), "text": text, "label": label}
        rows.append(tuple(values[name] for name in names))
    text = separator.join(names) + "\n" + swallow(rows, 20, 20 + span, names.index("text"), separator)
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    for read in (read_dataset, count_rows):
        with pytest.raises(DataError, match=rf"a.csv:22: a quotation mark swallows {span + 1} rows"):
            read(str(tmp_path / "a.csv"))


def test_texts_of_several_lines_are_no_swallowed_rows(tmp_path: Path) -> None:
    draw = random.Random(3)
    rows = []
    for text, label in make_rows(200):
        words = text.split()
        # Commas and line ends anywhere, so that by chance many lines have as many commas as a row.
        rows.append(("".join(word + draw.choice([" ", ", ", "\n", ",\n"]) for word in words).strip(), label))
    check_read(write_table(tmp_path / "a.csv", [("text", "label"), *rows]), rows)
    check_read(write_table(tmp_path / "b.csv", [("text", "label"), *rows], end="\r\n"), rows)


@pytest.mark.parametrize("num_rows", [2, 3, 5])
def test_rows_that_nothing_tells_from_one_text_are_a_doubt_that_is_said(tmp_path: Path, num_rows: int) -> None:
    titles = [(f"{text[:20]} {number}", f"{text} {number}") for number, (text, _) in enumerate(make_rows(60))]
    text = "title,body\n" + swallow(titles, 9, 9 + num_rows - 1, 1)
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    notes: list[str] = []
    records = read_records(str(tmp_path / "a.csv"), Columns(text=("body",)), on_note=notes.append)
    assert len(records) == 60 - num_rows + 1
    [doubt] = [note for note in notes if "several lines" in note]
    assert "a.csv: 1 row is on several lines" in doubt
    assert f"the longest is on line 11 and has {num_rows}" in doubt
    # A text of several lines that could be no rows is none.
    titles[3] = (titles[3][0], "one\ntwo\nthree")
    path = write_table(tmp_path / "b.csv", [("title", "body"), *titles])
    notes.clear()
    read_records(str(path), Columns(text=("body",)), on_note=notes.append)
    assert not [note for note in notes if "several lines" in note]


def test_ids_that_repeat_can_be_row_numbers(tmp_path: Path) -> None:
    path = str(write_table(tmp_path / "a.csv", [("id", "text"), ("7", "a"), ("7", "b")]))
    with pytest.raises(DataError, match=r"(?s)a.csv:3: the id '7' appears in an earlier row too.*--id none"):
        read_records(path)
    assert [row.id for row in iter_records(path, Columns(id="none"))] == ["0", "1"]
    named = str(write_table(tmp_path / "b.csv", [("none", "text"), ("x", "a"), ("y", "b")]))
    assert [row.id for row in read_records(named, Columns(id="none"))] == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("".join(f"{n},{text},{label}\n" for n, (text, label) in enumerate(make_rows(9), 1)), "row numbers"),
        ("".join(f"{n % 5 + 1},{text},{label}\n" for n, (text, label) in enumerate(make_rows(90))), "labels"),
        ("".join(f"{n % 5 + 1},{text},{label}\n" for n, (text, label) in enumerate(make_rows(2))), "labels"),
        ("".join(f"{n % 3 + 1},{text},0.{n}\n" for n, (text, _) in enumerate(make_rows(9))), "third column holds num"),
        ("".join(f"{n % 3 + 1},{n},{text}\n" for n, (text, _) in enumerate(make_rows(9))), "second column holds num"),
    ],
)
def test_three_columns_without_a_header_are_not_always_the_official_format(
    tmp_path: Path, content: str, reason: str
) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"(?s)has no header, and is not in AG News'.*{reason}.*column names"):
        read_dataset(str(tmp_path / "a.csv"))


def test_the_official_format_says_so(tmp_path: Path) -> None:
    rows = make_rows(60)
    text = "".join(f'"{n % 4 + 1}","{rows[n][0][:20]}","{rows[-n][0]}"\n' for n in range(60))
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    dataset = read_dataset(str(tmp_path / "a.csv"))
    assert len(dataset.splits["all"]) == 60
    assert any("has no header and is read as AG News' own format" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("names", "labels", "fits"),
    [
        ("food\nmoney\nsport\n", ("0", "1", "2"), True),
        ("sport\nmoney\nfood\n", TOPICS, True),
        ("person\nbicycle\ncar\n", ("0", "1", "0"), False),
        ("person\nbicycle\ncar\n", ("1", "2", "3"), False),
        ("person\nbicycle\n", ("0", "1", "2"), False),
        ("person\nbicycle\ncar\n", TOPICS, False),
        ("food\nfood\nsport\n", ("0", "1", "2"), False),
    ],
)
def test_class_names_beside_a_file_are_used_where_they_fit(
    tmp_path: Path, names: str, labels: tuple[str, ...], fits: bool
) -> None:
    rows = [(text, labels[n % 3]) for n, (text, _) in enumerate(make_rows(12))]
    path = write_table(tmp_path / "a.csv", [("text", "label"), *rows])
    alone = read_dataset(str(path))
    (tmp_path / "classes.txt").write_text(names, encoding="utf-8")
    dataset = read_dataset(str(path))
    assert dataset.labels is not None
    if fits:
        assert list(dataset.labels) == names.split()
        assert any("names the classes" in note for note in dataset.notes)
    else:
        assert dataset.labels == alone.labels
        assert any("classes.txt is ignored" in note for note in dataset.notes)
    assert [row.label for row in read_records(str(path), labels=dataset.labels)] == [
        row.label for row in dataset.splits["all"]
    ]
