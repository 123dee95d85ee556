"""Predictions of a run, read back as labels, are the classes that were predicted, however the data spelled them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from submillion.data.label_files import LabelChoice, choose_spelling, join_labels
from submillion.data.labels import Numbering, NumbersChoice
from submillion.data.read import read_dataset, read_records
from submillion.records import LabelSet, Prediction, Record
from submillion.scoring.predictions import defuse, write_predictions

HUGE = 10**30
KINDS: dict[str, list[object]] = {
    "names": ["food", "sport", "money"],
    "odd names": ["=SUM(1)", "a,b", 'say "hi"', "01", "nan", "None", "-x", "1,5", "caf\u00e9"],
    "from 0": ["0", "1", "2", "3"],
    "from 1": ["1", "2", "3", "4", "5"],
    "gap": ["0", "1", "3"],
    "gap from 1": ["1", "2", "4"],
    "far": ["3", "7", "10"],
    "negative": ["-1", "0", "1"],
    "two signs": ["-1", "1"],
    "floats": ["1.0", "2.0", "3.0"],
    "floats from 0": ["0.0", "1.0"],
    "half stars": ["0.5", "1.0", "1.5", "2.0"],
    "mixed": ["1", "2", "other"],
    "padded": ["00", "01", "02"],
    "huge": [str(HUGE), str(HUGE + 1), "5"],
    "true and false": ["true", "false"],
    "json numbers": [1, 2, 3, 4, 5],
    "json floats": [1.0, 2.0, 3.0],
    "json booleans": [True, False],
    "json huge": [HUGE, HUGE + 1],
    "json mixed": [1, "2", 3.0, "x"],
}
NEWS = ("World", "Sports", "Business", "Sci/Tech")


def write_data(folder: Path, values: list[object]) -> str:
    """Write rows of every class, as CSV where all values are text, else as JSON lines."""
    rows = [value for value in values for _ in range(2)]
    folder.mkdir(parents=True, exist_ok=True)
    if all(isinstance(value, str) for value in values):
        import csv

        path = folder / "data.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *((f"t{n}", value) for n, value in enumerate(rows))])
        return str(path)
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{n}", "label": v}) + "\n" for n, v in enumerate(rows)))
    return str(path)


def write_special(folder: Path, kind: str) -> str:
    """Write data whose format says what its numbers mean, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("official"):
        rows = "".join(f'"{n % 4 + 1}","title {n}","some words of a description {n}"\n' for n in range(12))
        (folder / "train.csv").write_text(rows)
        if kind == "official with classes":
            (folder / "classes.txt").write_text("\n".join(NEWS) + "\n")
        return str(folder)
    import datasets

    names = {"class label": list(NEWS), "class label of numbers": ["5", "3", "1", "0"]}[kind]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = datasets.Dataset.from_dict(
        {"text": [f"t{n}" for n in range(12)], "label": [n % 4 for n in range(12)]}, features=features
    )
    path = folder / "data.parquet"
    rows.to_parquet(path)
    return str(path)


SPECIAL = ("official", "official with classes", "class label", "class label of numbers")


def check_round_trip(
    folder: Path,
    data: str,
    predicted: list[int],
    *,
    wanted: LabelChoice | None,
    ending: str,
    labels: LabelSet | None = None,
    numbers: NumbersChoice | None = None,
    formulas: bool = False,
) -> None:
    dataset = read_dataset(data, labels=labels, numbering=Numbering.parse(numbers))
    assert dataset.labels is not None
    assert dataset.reading is not None
    classes = dataset.labels
    chosen = [label_id % len(classes) for label_id in predicted]
    records = [Record(str(n), ("text",)) for n in range(len(chosen))]

    def predict(rows: Iterable[Record]) -> Iterator[Prediction]:
        for row in rows:
            label_id = chosen[int(row.id)]
            yield Prediction(row.id, label_id, classes.names[label_id], (1.0,) * len(classes))

    quote = formulas and ending == ".csv"
    out = folder / f"predictions{ending}"
    spelling = choose_spelling(classes, dataset.reading, wanted, write=defuse if quote else str)
    write_predictions(out, records, predict, classes, spelling=spelling, probabilities=False, defuse_formulas=quote)
    reading = dataset.reading
    read = join_labels(records, str(out), classes, reading.numbering, is_official=reading.is_official)
    assert [record.label for record in read] == chosen


ENDINGS = st.sampled_from([".csv", ".jsonl", ".parquet"])
WANTED = st.sampled_from([None, "names", "ids"])
PREDICTED = st.lists(st.integers(0, 8), min_size=1, max_size=12)
FEWER = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@FEWER
@given(
    kind=st.sampled_from(sorted(KINDS)),
    predicted=PREDICTED,
    wanted=WANTED,
    form=st.tuples(ENDINGS, st.booleans()),
)
def test_predictions_are_read_back_as_what_was_predicted(
    tmp_path: Path, kind: str, predicted: list[int], wanted: LabelChoice | None, form: tuple[str, bool]
) -> None:
    ending, formulas = form
    data = write_data(tmp_path / kind, KINDS[kind])
    check_round_trip(tmp_path, data, predicted, wanted=wanted, ending=ending, formulas=formulas)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("wanted", [None, "names", "ids"])
@pytest.mark.parametrize("predicted", [[0, 1, 2, 3], [1, 2], [3, 2, 1, 1], [0]])
def test_formats_with_a_numbering_of_their_own(
    tmp_path: Path, kind: str, wanted: LabelChoice | None, predicted: list[int]
) -> None:
    data = write_special(tmp_path / "data", kind)
    for ending in (".csv", ".jsonl", ".parquet"):
        check_round_trip(tmp_path, data, predicted, wanted=wanted, ending=ending)


@pytest.mark.parametrize("numbers", ["ids", "ids-from-1"])
@pytest.mark.parametrize("wanted", [None, "names", "ids"])
def test_named_ids(tmp_path: Path, numbers: NumbersChoice, wanted: LabelChoice | None) -> None:
    first = int(numbers == "ids-from-1")
    data = write_data(tmp_path, [str(n + first) for n in range(3)])
    labels = LabelSet(("bad", "fair", "good"))
    for chosen in (labels, None):
        check_round_trip(tmp_path, data, [1, 1, 2], wanted=wanted, ending=".csv", labels=chosen, numbers=numbers)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@FEWER
@given(
    values=st.lists(st.one_of(NAMES, st.integers(-9, 9).map(str)), min_size=2, max_size=6),
    predicted=PREDICTED,
    wanted=WANTED,
    ending=ENDINGS,
)
def test_any_labels(
    tmp_path: Path, values: list[str], predicted: list[int], wanted: LabelChoice | None, ending: str
) -> None:
    from submillion.data.labels import normalise_label

    known = {normalise_label(value) for value in values} - {None}
    if len(known) < 2:
        return
    data = write_data(tmp_path, [value for value in values if normalise_label(value) is not None])
    check_round_trip(tmp_path, data, predicted, wanted=wanted, ending=ending)
    dataset = read_dataset(data)
    assert dataset.labels is not None
    assert dataset.reading is not None
    # A run reads its training data as the same classes again.
    again = read_records(data, labels=dataset.labels, numbering=dataset.reading.numbering)
    assert [row.label for row in again] == [row.label for row in dataset.splits["all"]]
