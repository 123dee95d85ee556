"""Synthetic rows of a run: trained on with their weight, and never near anything that is scored."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from submillion.config.run import RunConfig, parse_config
from submillion.data.check import check_records
from submillion.data.clean import NEWS
from submillion.data.synthetic import SyntheticRow, describe_file, describe_origin, write_rows
from submillion.encoding.text_encoder import TextEncoder
from submillion.errors import ConfigError, DataError
from submillion.pipeline import synthetic_rows
from submillion.pipeline.prepare import Prepared, prepare_data
from submillion.progress import Silent
from submillion.records import Record

Base = Callable[[str], Path]

FRESH = "an entirely new report about the {} election in a small valley far away from everything"


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("news")
    news_rows(folder / "train.csv", 96)
    news_rows(folder / "test.csv", 24, start=80)  # shares rows with the training file
    news_rows(folder / "far.csv", 8, start=500)
    return folder


@pytest.fixture
def run(tiny_base: Base, news: Path, tmp_path: Path) -> Callable[..., Prepared]:
    encoder = TextEncoder(tiny_base("bert"), 32)

    def prepare(rows: Sequence[SyntheticRow] = (), weight: float = 1.0, *, count: int = 1, **data: Any) -> Prepared:
        if rows:
            write_rows(tmp_path / "extra.jsonl", rows)
            data["extra"] = [{"data": str(tmp_path / "extra.jsonl"), "weight": weight}] * count
        values = {
            "data": {"source": str(news), "clean": NEWS.model_dump()} | data,
            "model": {"max_length": 32},
            "watch": [{"name": "far", "data": str(news / "far.csv")}],
        }
        return prepare_data(parse_config(values, where="test"), encoder=encoder, progress=Silent())

    return prepare


def make_row(number: int, text: str, label: str = "Sports", source: Record | None = None) -> SyntheticRow:
    return SyntheticRow(f"x-{number}", text, label, describe_origin("test", {}, seed=0, source=source))


def make_fresh(count: int, **settings: Any) -> list[SyntheticRow]:
    return [make_row(number, FRESH.format(f"n{number}th"), **settings) for number in range(count)]


def test_they_are_trained_on_last_with_their_weight(run: Callable[..., Prepared]) -> None:
    plain = run()
    rows = [*make_fresh(3), make_row(9, "&lt;b&gt;Tom &amp;amp; Jerry&lt;/b&gt;", "World")]
    mixed = run(rows, 0.25)
    num_train = len(plain.splits.train)
    assert mixed.splits.train[:num_train] == plain.splits.train
    added = mixed.splits.train[num_train:]
    names = mixed.splits.labels.names
    assert [(row.id, names[row.label or 0]) for row in added] == [(row.id, row.label) for row in rows]
    assert added[-1].text == "Tom & Jerry"
    assert [item.weight for item in mixed.features["train"]] == [1.0] * num_train + [0.25] * 4
    assert [item.id for item in mixed.features["train"]] == [row.id for row in mixed.splits.train]
    assert len(mixed.features["train"][-1].input_ids) > 3
    for name in ("validation", "test", "far"):
        assert [f.input_ids.tolist() for f in mixed.features[name]] == [
            f.input_ids.tolist() for f in plain.features[name]
        ]
    [entry] = mixed.report["extra"]
    assert (entry["num_records"], entry["num_used"], entry["weight"], entry["methods"]) == (4, 4, 0.25, {"test": 4})
    assert entry["class_counts"] == {"World": 1, "Sports": 3, "Business": 0, "Sci/Tech": 0}
    assert mixed.report["num_train"] == plain.report["num_train"] == num_train
    assert mixed.report["train_sha256"] != plain.report["train_sha256"]
    assert plain.report["extra"] == []


@pytest.mark.parametrize("leaks", ["drop", "keep"])
def test_rows_too_close_to_what_is_scored_are_left_out(run: Callable[..., Prepared], leaks: str) -> None:
    plain = run(leaks=leaks)
    scored = {"validation": plain.splits.validation, "test": plain.splits.test, "far": plain.watched["far"]}
    rows: list[SyntheticRow] = []
    for part in scored.values():
        rows += [
            make_row(len(rows), part[0].text.upper() + "!!"),
            make_row(len(rows) + 1, f"{part[1].text} indeed"),
            make_row(len(rows) + 2, FRESH.format(len(rows)), source=part[2]),
        ]
    report = run([*rows, make_row(99, FRESH.format("own"), source=plain.splits.train[0])], leaks=leaks).report["extra"]
    assert report[0]["num_dropped"] == {"exact": 3, "near": 3, "source": 3}
    assert report[0]["num_used"] == 1
    described = describe_file(report[0])
    assert described.endswith(
        "trained on with weight 1; 9 left out (3 equal scored rows, 3 nearly equal scored rows, "
        "3 come from scored rows)"
    )


def test_rows_made_from_training_rows_that_leak_are_left_out(run: Callable[..., Prepared]) -> None:
    kept = run(leaks="keep")
    dropped = {row.id: row for row in kept.splits.train}
    for row in run(leaks="drop").splits.train:
        del dropped[row.id]
    assert len(dropped) > 3
    rows = [make_row(n, FRESH.format(n), source=row) for n, row in enumerate(dropped.values())]
    prepared = run([*rows, *(replace(row, id=f"y-{row.id}") for row in make_fresh(1))])
    assert prepared.report["extra"][0]["num_dropped"] == {"exact": 0, "near": 0, "source": len(dropped)}


def test_rows_made_from_training_rows_that_nearly_leak_are_left_out(
    run: Callable[..., Prepared], news: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "news"
    shutil.copytree(news, folder)
    test = run().splits.test[-1]
    with (folder / "train.csv").open("a", newline="") as file:
        csv.writer(file).writerow(("Sports", test.columns[0], f"{test.columns[1]} indeed"))
    for leaks in ("drop", "keep"):
        plain = run(source=str(folder), leaks="keep")
        [near] = [row for row in plain.splits.train if row.text.endswith("indeed")]
        rows = [make_row(0, FRESH.format(0), source=near), *make_fresh(2)[1:]]
        assert run(rows, source=str(folder), leaks=leaks).report["extra"][0]["num_dropped"]["source"] == 1


def test_a_source_is_known_by_its_place_where_its_text_is_another_now(run: Callable[..., Prepared]) -> None:
    held_out = run().splits.validation[0]
    rows = [make_row(0, FRESH.format(0), source=replace(held_out, columns=("cut",))), *make_fresh(2)[1:]]
    assert run(rows).report["extra"][0]["num_dropped"]["source"] == 1
    # The same number in another file is another row.
    elsewhere = replace(held_out, columns=("cut",), source="other.csv:2")
    rows = [make_row(0, FRESH.format(0), source=elsewhere), *make_fresh(2)[1:]]
    assert run(rows).report["extra"][0]["num_dropped"]["source"] == 0


def test_the_comparison_is_kept_and_follows_from_the_rows(
    run: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    test = run().splits.test
    rows = [make_row(0, test[0].text), *make_fresh(3)[1:]]
    first = json.dumps(run(rows).report)
    calls: list[int] = []

    def count_call(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        return check_records(*arguments, **settings)

    monkeypatch.setattr(synthetic_rows, "check_records", count_call)
    assert json.dumps(run(rows).report) == first
    assert calls == []
    assert run([make_row(0, test[1].text), *rows[1:]]).report["extra"][0]["num_dropped"]["exact"] == 1
    assert calls == [1]


def test_labels_that_are_no_class_and_repeated_ids_are_refused(run: Callable[..., Prepared]) -> None:
    with pytest.raises(DataError, match=r"1 of 3 rows have labels that are not classes: 'sports' \(x-9\)"):
        run([*make_fresh(2), make_row(9, FRESH, "sports")])
    with pytest.raises(DataError, match="2 ids also belong to other training rows: x-0, x-1"):
        run(make_fresh(2), count=2)
    with pytest.raises(DataError, match="1 ids also belong to other training rows: 3"):
        run([replace(make_fresh(1)[0], id="3")])


@pytest.mark.parametrize("extra", [[{"data": ""}], [{"data": "x", "weight": 0}], [{"data": "x", "wieght": 1}]])
def test_settings_out_of_range_are_refused(extra: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.extra\.0\."):
        parse_config({"data": {"extra": extra}}, where="test")


def test_a_misspelt_key_is_met_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'weight'"):
        parse_config({"data": {"extra": [{"data": "x", "wieght": 1}]}}, where="test")
    assert RunConfig().data.extra == ()
