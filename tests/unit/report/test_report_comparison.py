from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from submillion.metrics.evaluate import compare_correct
from submillion.report import write_report
from submillion.report.curves import list_overlaid_curves
from submillion.run.history import name_runs, read_history
from submillion.run.predictions import read_predictions
from tests.unit.report.run_folders import write_run
from tests.unit.report.test_report_page import read_page


def test_runs_are_overlaid_and_tested_on_the_rows_they_share(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first")
    second = write_run(tmp_path / "second", seed=1, overrides={"train": {"learning_rate": 1e-3}})
    path = write_report([first, second])
    assert path == first / "comparison.html"
    page = read_page(path)
    assert "agnews-minilm seed 0" in page.text
    left, right = read_predictions(first, "test"), read_predictions(second, "test")
    assert left is not None
    assert right is not None
    compared = compare_correct(left.right, right.right)
    assert f"{100 * compared.difference:+.2f}".replace("-", "\N{MINUS SIGN}") in page.text
    assert "train.learning_rate" in page.text
    assert {plot.stem for plot in (first / "comparison-plots").iterdir()} == {
        *("accuracy-by-set", "loss", "validation-loss", "validation-accuracy", "accuracy-bbc"),
        *("validation-f1", "learning-rate", "gradient-norm"),
    }


def test_rows_are_joined_by_id_whatever_their_order(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", num_steps=0, splits=("test",))
    second = write_run(tmp_path / "second", seed=1, num_steps=0, splits=("test",))
    straight = read_page(write_report([first, second])).text
    file = second / "evaluation/test.predictions.parquet"
    content = parquet.read_table(file)
    parquet.write_table(content.take(list(reversed(range(content.num_rows)))), file)
    assert read_page(write_report([first, second])).text == straight


def test_other_rows_or_labels_are_not_compared(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", num_steps=0, splits=("test",))
    second = write_run(tmp_path / "second", seed=1, num_steps=0, splits=("test",))
    file = second / "evaluation/test.predictions.parquet"
    content = parquet.read_table(file)
    labels = content["label_id"].to_pylist()
    labels[3] = (labels[3] + 1) % 4
    column = content.column_names.index("label_id")
    parquet.write_table(content.set_column(column, "label_id", pa.array(labels)), file)
    assert "are not compared on test: 1 of their labels differ" in read_page(write_report([first, second])).text
    parquet.write_table(content.slice(1), file)
    assert "their record ids differ (400 and 399 records)" in read_page(write_report([first, second])).text
    file.unlink()
    assert "not both hold predictions of it" in read_page(write_report([first, second])).text


def test_runs_of_one_recipe_and_seed_keep_their_folder_names(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, num_records=80, num_steps=0, splits=("test",)) for name in ("one", "two")]
    page = read_page(write_report(runs, tmp_path / "both.html"))
    assert "Highest accuracy: one on test" in page.text
    assert "Their settings are the same, letter for letter." in page.text
    assert (tmp_path / "both-plots").is_dir()


def test_a_curve_of_one_run_alone_says_whose_it_is(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", num_records=60, num_steps=12)
    second = write_run(tmp_path / "second", num_records=60, num_steps=12, seed=1, splits=("test", "validation"))
    plots = {plot.name: plot for plot in list_overlaid_curves(name_runs([read_history(first), read_history(second)]))}
    assert plots["accuracy-bbc"].caption == "agnews-minilm seed 0 alone. Watched; it steers nothing."
    assert "alone" not in plots["validation-accuracy"].caption


def test_many_unevaluated_runs_still_have_a_page(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"run-{seed}", seed=seed, num_records=60, num_steps=12, splits=()) for seed in range(8)
    ]
    assert "None of these runs has been evaluated yet." in read_page(write_report(runs)).text
