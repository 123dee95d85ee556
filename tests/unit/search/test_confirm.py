"""The results at the end of a search: the comparison over seeds, the written recipe, its page and tables."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from submillion.config.run import dump_config, parse_config
from submillion.errors import RunError
from submillion.metrics.stats import find_flip_p
from submillion.recipes import load_recipe
from submillion.search.confirm import compare_runs
from submillion.search.report import describe_confirmation, write_search_report
from submillion.search.task import SearchDir, Task
from submillion.search.trial_results import State, TrialRow, count_states, find_best, list_scales, tabulate_csv
from submillion.search.trials import make_confirming_config, make_trial_config, make_tuned_recipe
from tests.unit.search.study_workers import make_task

NAMES = ("train.learning_rate", "adapter.rank (share)")


def make_row(number: int, state: State, value: float | None, **changes: Any) -> TrialRow:
    params = {NAMES[0]: 10.0 ** (-4 + number / 4), NAMES[1]: number / 10}
    settings = {"train.learning_rate": params[NAMES[0]], "adapter.rank": number + 1}
    row = TrialRow(number, state, value, params, settings, {1: 0.5}, 12.5, False, None, "", "")
    return dataclasses.replace(row, **changes)


@pytest.fixture
def task() -> Task:
    return make_task(trials=6)


def test_pairs_are_told_and_pooled() -> None:
    random = np.random.default_rng(0)
    recipe = random.random((3, 500)) < 0.85
    tuned = recipe | (random.random((3, 500)) < 0.3)
    found: Any = compare_runs(tuned, recipe, [4, 5, 6])
    assert [pair["seed"] for pair in found["per_seed"]] == [4, 5, 6]
    assert found["difference"] == pytest.approx(np.mean([pair["difference"] for pair in found["per_seed"]]))
    assert found["p"] == find_flip_p(tuned.sum(axis=0) - recipe.sum(axis=0).astype(int))
    assert found["interval"][0] > 0
    best = make_row(3, "complete", 0.9)
    assert "are better than the recipe's" in describe_confirmation({"split": "test", **found}, best)
    swapped = compare_runs(recipe, tuned, [4, 5, 6])
    assert "are worse" in describe_confirmation({"split": "test", **swapped}, best)
    same = compare_runs(recipe, recipe, [4, 5, 6])
    assert "not shown" in describe_confirmation({"split": "test", **same}, best)
    assert same["p"] == 1.0
    assert "too good" in describe_confirmation(None, best)
    assert "nothing to compare" in describe_confirmation(None, make_row(0, "complete", 0.9, is_recipe=True))


def test_a_trial_scores_no_test_rows_and_the_validation_rows_of_all(task: Task) -> None:
    search = task.search.model_copy(update={"rows": 100, "validation_rows": 40, "steps": 50})
    settings = {"train.learning_rate": 2e-3, "train.batch_size": 64}
    config = make_trial_config(task.config, search, settings, repeat=2, threads=3)
    assert config.final.model_dump() == {"test": False, "proof": False, "report": False}
    assert (config.data.max_records, config.data.validation_size, config.data.max_validation_records) == (100, 40, 40)
    # 50 steps of the recipe's 32 records are 25 of 64.
    assert (config.train.max_steps, config.train.evaluate_every, config.train.interval_unit) == (25, 6.25, "steps")
    assert (config.seed, config.threads, config.train.patience, config.search) == (2, 3, None, None)
    assert (config.baseline, config.watch, config.track) == (False, (), ())
    other = make_trial_config(task.config, search, {"adapter.rank": 3}, repeat=2, threads=3)
    assert other.data == config.data


def test_the_tuned_recipe_is_one_that_train_takes(task: Task, tmp_path: Path) -> None:
    recipe = make_tuned_recipe(task.config, {"train.learning_rate": 2e-3, "adapter.rank": 7}, "Found by a search.")
    (tmp_path / "winner.yaml").write_text(dump_config(recipe))
    loaded = load_recipe(str(tmp_path / "winner.yaml"))
    assert loaded == recipe
    assert (loaded.name, loaded.about, loaded.search) == ("recipe-tuned", "Found by a search.", None)
    assert (loaded.train.learning_rate, loaded.adapter.rank) == (2e-3, 7)
    assert loaded.train.epochs == task.config.train.epochs
    assert loaded.final.test


def test_confirming_runs_differ_in_their_settings_alone(task: Task) -> None:
    search = task.search.model_copy(update={"confirm_rows": 500, "confirm_steps": 80})
    own = make_confirming_config(task.config, search, {}, seed=1)
    tuned = make_confirming_config(task.config, search, {"train.batch_size": 64, "adapter.rank": 5}, seed=1)
    assert own.data == tuned.data
    assert (own.seed, own.final.test, own.baseline) == (1, True, False)
    assert (own.train.max_steps, tuned.train.max_steps) == (80, 40)
    expected = {"adapter": {**own.adapter.model_dump(), "rank": 5}}
    assert parse_config({**tuned.model_dump(mode="json")}, where="test").adapter.model_dump() == expected["adapter"]


def test_the_best_is_the_earlier_of_equals_and_pruned_trials_are_none() -> None:
    rows = [
        make_row(0, "complete", 0.5),
        make_row(1, "pruned", 0.9),
        make_row(2, "complete", 0.7),
        make_row(3, "complete", 0.7),
    ]
    assert find_best(rows, "accuracy").number == 2
    assert find_best(rows, "loss").number == 0
    assert count_states(rows)["pruned"] == 1
    with pytest.raises(RunError, match="no trial was completed"):
        find_best(rows[1:2], "accuracy")


@pytest.mark.parametrize("num_complete", [1, 6])
def test_the_page_shows_every_trial_and_its_plots(task: Task, tmp_path: Path, num_complete: int) -> None:
    rows = [make_row(number, "complete", 0.8 + number / 100) for number in range(num_complete)]
    rows += [
        make_row(7, "pruned", 0.4),
        make_row(8, "pruned", None, error="the loss is nan <b>"),
        make_row(9, "failed", None),
    ]
    importances = {NAMES[0]: 0.75, NAMES[1]: 0.25} if num_complete > 1 else {}
    folder = SearchDir(tmp_path)
    write_search_report(
        folder, task, rows=rows, best=find_best(rows, "accuracy"), importances=importances, confirmation=None
    )
    page = folder.report.read_text(encoding="utf-8")
    assert "<svg" in page
    assert "<b>" not in page
    assert "the loss is nan &lt;b&gt;" in page
    assert page.count("</tr>") >= len(rows)
    plots = {path.stem for path in folder.plots.iterdir()}
    assert plots == {"history", "slices"} | ({"parallel", "importances"} if num_complete > 1 else set())


def test_the_table_has_a_row_for_each_trial(task: Task) -> None:
    scales = list_scales(task)
    assert scales == {NAMES[0]: "log", NAMES[1]: "linear"}
    rows = [make_row(0, "complete", 0.5), make_row(1, "failed", None, params={})]
    table = list(csv.DictReader(tabulate_csv(rows, list(scales)).splitlines()))
    assert [row["state"] for row in table] == ["complete", "failed"]
    assert float(table[0][NAMES[0]]) == rows[0].params[NAMES[0]]
    assert table[1][NAMES[0]] == table[1]["value"] == ""
