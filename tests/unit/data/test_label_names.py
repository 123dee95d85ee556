"""Class names that look alike or look like none, and rows without a label."""

from __future__ import annotations

from pathlib import Path

import pytest

from submillion.data.check import check_records
from submillion.data.findings import describe_findings
from submillion.data.label_names import find_doubtful_names, find_similar_names, fold_name
from submillion.data.read import read_dataset
from submillion.errors import DataError
from submillion.records import LabelSet, Record


@pytest.mark.parametrize(
    "names", [("sport", "Sport", "SPORT ", "'sport'", "sport."), ("Sci/Tech", "sci-tech", "sci tech")]
)
def test_names_that_look_alike_fold_to_one(names: tuple[str, ...]) -> None:
    assert len({fold_name(name) for name in names}) == 1


@pytest.mark.parametrize("names", [("C", "C++", "C#"), ("1.5", "15"), ("-1", "1"), ("1-2", "12"), ("-", "?")])
def test_names_that_differ_stay_apart(names: tuple[str, ...]) -> None:
    assert len({fold_name(name) for name in names}) == len(names)


def test_they_are_findings_with_their_rows() -> None:
    labels = LabelSet(("Sport", "label", "money", "nan", "sport"))
    records = [Record(str(n), (f"text number {n}",), n % 5) for n in range(12)]
    findings = check_records({"train": records}, labels, label_column="Label").to_json()
    assert findings["similar_labels"] == [{"Sport": 3, "sport": 2}]
    assert findings["doubtful_labels"] == {"label": 3, "nan": 2}
    assert (findings["num_similar_labels"], findings["num_doubtful_labels"]) == (2, 2)
    lines = describe_findings(findings)
    assert "check: class names that look alike: 'Sport' (3 rows), 'sport' (2 rows)" in lines
    assert any("'label' (3 rows), 'nan' (2 rows)" in line for line in lines)
    assert find_similar_names({"a": 1, "b": 2}) == []
    assert find_doubtful_names({"a": 1}) == {}


def test_every_finding_has_a_line() -> None:
    labels = LabelSet(("a", "b"))
    rows = ["same words here now", "same words here now", "", "bad \ufffd char", "other words again too"]
    train = [Record(str(n), (text,), n % 2, f"t.csv:{n}") for n, text in enumerate(rows)]
    test = [Record("x", ("other words again too",), 1, "x.csv:1")]
    lines = "\n".join(describe_findings(check_records({"train": train, "test": test}, labels).to_json()))
    for words in ("1 exact duplicates", "1 rows without any text", "replacement character", "more than one label"):
        assert words in lines
    assert "1 rows of train appear in test (equal texts), first t.csv:4 ~ x.csv:1" in lines
    assert describe_findings(check_records({"train": test}, labels).to_json()) == []


def test_labels_that_are_not_spelled_as_they_are_read_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,caf\u00e9\nb,cafe\u0301\nc, tea\nd,te\u200ba\ne,tea\nf,1.0\n", encoding="utf-8")
    dataset = read_dataset(str(path))
    [note] = [note for note in dataset.notes if "not spelled as read" in note]
    assert note == "a.csv: 3 labels are not spelled as read, such as 'cafe\\u0301' as 'caf\u00e9'"
    path.write_text("text,label\na,tea\nb,rum\nc,1.0\n", encoding="utf-8")
    assert not [note for note in read_dataset(str(path)).notes if "not spelled" in note]


def test_rows_without_a_label_are_left_out_on_request_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"row {n},{label}\n" for n, label in enumerate(["a", "b", "-1", "", "a"])))
    with pytest.raises(DataError):
        read_dataset(str(path))
    dataset = read_dataset(str(path), drops_unlabelled=True)
    assert dataset.labels is not None
    assert dataset.labels.names == ("a", "b")
    assert [record.columns[0] for record in dataset.splits["all"]] == ["row 0", "row 1", "row 4"]
    assert any("2 rows are left out of 5, without a label" in note for note in dataset.notes)
    path.write_text("text,label\nx,-1\ny,-1\n")
    with pytest.raises(DataError, match="no row has a label"):
        read_dataset(str(path), drops_unlabelled=True)
