"""The runs that a curve makes, their combination, and the written files; the runs are replaced by fakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from submillion.budget_curve import measure
from submillion.budget_curve.measure import describe_point, measure_curve
from submillion.config.run import RunConfig, TrainConfig
from submillion.errors import BudgetError, ConfigError, RunError
from submillion.launch import LaunchedRun
from submillion.report.budget_page import shorten_count
from submillion.run.folder import RunDir
from submillion.run.manifest import Manifest, ManifestBase
from submillion.run.paired import compare_outcomes
from submillion.storage.files import write_json

NUM_RECORDS = 400
CONFIG = RunConfig(name="news", seed=5, train=TrainConfig(max_steps=7))


class Runs:
    """Launches runs that are right on a number of records that grows with the budget."""

    def __init__(self, *, split: str = "test", shuffled: str = "") -> None:
        self.configs: dict[str, RunConfig] = {}
        self.split, self.shuffled = split, shuffled

    def launch(self, config: RunConfig, out: Path) -> LaunchedRun:
        self.configs[out.name] = config
        run = RunDir(out)
        num_right = {10_000: 200, 100_000: 280, 1_000_000: 284}[config.budget] + config.seed
        labels = np.zeros(NUM_RECORDS, dtype=np.int64)
        predicted = (np.arange(NUM_RECORDS) >= num_right).astype(np.int64)
        ids = [str(number) for number in range(NUM_RECORDS)]
        columns: dict[str, Any] = {"id": ids[::-1] if self.shuffled == out.name else ids, "label_id": labels}
        columns |= {"predicted_id": predicted, "probability_0": 1.0 - predicted, "probability_1": predicted * 1.0}
        columns |= {"text": ids, "source": ids, "label": ids, "predicted": ids}
        run.predictions(self.split).parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), run.predictions(self.split))
        base = ManifestBase("tiny", "folder", None, "0" * 64)
        Manifest(base=base, state="complete", num_test_evaluations=1).write(run.manifest)
        if config.baseline:
            write_json(run.evaluation(f"{self.split}.baseline"), {"accuracy": 0.61})
        return LaunchedRun(out, "complete", (), {self.split: {"accuracy": num_right / NUM_RECORDS}})


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(measure, "launch_run", runs.launch)
    return runs


def test_every_budget_has_every_seed_and_differs_in_nothing_else(runs: Runs, tmp_path: Path) -> None:
    measure_curve(CONFIG, (10_000, 100_000), num_labels=4, num_seeds=2, out=tmp_path / "curve")
    assert list(runs.configs) == [f"budget-{budget}-seed-{seed}" for seed in (5, 6) for budget in (10_000, 100_000)]
    for name, config in runs.configs.items():
        assert name == f"budget-{config.budget}-seed-{config.seed}"
        assert (config.train, config.data, config.model) == (CONFIG.train, CONFIG.data, CONFIG.model)
        assert config.final.test
        assert not config.final.report
    assert [config.baseline for config in runs.configs.values()] == [True, True, False, False]


def test_more_budgets_and_seeds_leave_the_runs_that_are_there_as_they_are(runs: Runs, tmp_path: Path) -> None:
    measure_curve(CONFIG, (100_000,), num_labels=4, num_seeds=1, out=tmp_path / "first")
    before = runs.configs["budget-100000-seed-5"]
    measure_curve(CONFIG, (10_000, 100_000), num_labels=4, num_seeds=2, out=tmp_path / "second")
    assert runs.configs["budget-100000-seed-5"] == before


def test_points_tests_and_files_say_what_the_runs_had(runs: Runs, tmp_path: Path) -> None:
    result = measure_curve(CONFIG, (10_000, 100_000, 1_000_000), num_labels=4, num_seeds=3, out=tmp_path / "curve")
    figures = result.figures
    assert figures == json.loads((tmp_path / "curve" / "curve.json").read_text(encoding="utf-8"))
    assert (figures["split"], figures["num_records"], figures["baseline"]) == ("test", NUM_RECORDS, 0.61)
    first, _, last = figures["points"]
    assert first["accuracies"] == [205 / 400, 206 / 400, 207 / 400]
    assert first["accuracy"] == pytest.approx(206 / 400)
    assert first["accuracy_interval"][0] < first["accuracy"] < first["accuracy_interval"][1]
    assert all(point["trainable_params"] < point["budget"] for point in figures["points"])
    assert last["num_test_evaluations"] == [1, 1, 1]
    real, small = figures["tests"]
    assert (real["smaller"], real["larger"], real["num_records"]) == (10_000, 100_000, NUM_RECORDS)
    assert real["difference"] == pytest.approx(80 / 400)
    assert real["p"] < 1e-6
    assert small["difference"] == pytest.approx(4 / 400)
    assert small["p"] == pytest.approx(2 / 2**6)  # six records gained by one seed or more, none lost
    rows = list(csv.DictReader((tmp_path / "curve" / "curve.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["budget"] for row in rows] == ["10000", "100000", "1000000"]
    assert float(rows[0]["accuracy_seed_6"]) == 206 / 400
    page = result.report.read_text(encoding="utf-8")
    assert "20.00" in page
    assert first["how"] in page
    assert (tmp_path / "curve" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert result.to_json()["folder"] == str(tmp_path / "curve")


def test_validation_stands_in_where_there_is_no_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "launch_run", Runs(split="validation").launch)
    quiet = CONFIG.model_copy(update={"baseline": False})
    result = measure_curve(quiet, (10_000,), num_labels=4, num_seeds=1, out=tmp_path / "curve")
    assert (result.figures["split"], result.figures["tests"], result.figures["baseline"]) == ("validation", [], None)
    assert "One seed" in result.report.read_text(encoding="utf-8")


def test_runs_on_other_records_are_not_combined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "launch_run", Runs(shuffled="budget-100000-seed-5").launch)
    with pytest.raises(RunError, match="has not scored the test records that the other runs have"):
        measure_curve(CONFIG, (10_000, 100_000), num_labels=4, num_seeds=1, out=tmp_path / "curve")


def test_nothing_runs_where_one_budget_cannot_be_filled(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="fits below 900"):
        measure_curve(CONFIG, (900, 100_000), num_labels=4, num_seeds=1, out=tmp_path / "curve")
    with pytest.raises(ConfigError, match="0 seeds give no runs"):
        measure_curve(CONFIG, (100_000,), num_labels=4, num_seeds=0, out=tmp_path / "curve")
    assert runs.configs == {}
    assert not (tmp_path / "curve").exists()


def test_seeds_that_differ_widen_the_interval_and_repeats_do_not_narrow_it() -> None:
    row = np.arange(1000) < 700
    alone: Any = describe_point(row[None])["accuracy_interval"]
    thrice: Any = describe_point(np.stack([row] * 3))["accuracy_interval"]
    # Three runs that agree on every record say nothing more about other records than one.
    assert np.subtract(*thrice) == pytest.approx(np.subtract(*alone), abs=0.006)
    apart: dict[str, Any] = describe_point(np.stack([np.arange(1000) < number for number in (600, 700, 800)]))
    assert apart["accuracy"] == pytest.approx(0.7)
    assert apart["accuracy_interval"][1] - apart["accuracy_interval"][0] > 2 * (alone[1] - alone[0])


def test_neighbours_are_paired_by_record() -> None:
    smaller = np.zeros((2, 50), dtype=np.bool_)
    larger = smaller.copy()
    larger[:, :3] = True  # three records, right for both seeds
    assert compare_outcomes(larger, smaller)["p"] == pytest.approx(2 / 2**3)
    assert compare_outcomes(smaller, larger)["difference"] == pytest.approx(-0.06)
    assert compare_outcomes(smaller, smaller)["p"] == 1


def test_counts_are_short_on_the_axis() -> None:
    assert [shorten_count(n) for n in (900, 10_000, 300_000, 1_000_000, 1_500_000)] == [
        "900",
        "10k",
        "300k",
        "1M",
        "1.5M",
    ]
