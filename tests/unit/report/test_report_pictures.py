from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from submillion import api
from submillion.report import write_report
from submillion.report.calibration import MAX_PANELS, list_calibration_plots, measure_class_reliability
from submillion.report.plots import budget_plot, list_confusion_plots
from submillion.report.run_page import result_plot
from submillion.report.theme import render_png, render_svg
from submillion.run.figures import SetFigures
from submillion.run.history import read_history
from submillion.run.predictions import Predictions, read_predictions
from tests.unit.report.run_folders import write_run
from tests.unit.report.test_report_page import read_page


def make_predictions(probabilities: Any, labels: Any) -> Predictions:
    scores = np.asarray(probabilities, dtype=np.float64)
    number = len(scores)
    return Predictions(
        ids=tuple(str(n) for n in range(number)),
        labels=np.asarray(labels),
        predicted=scores.argmax(axis=1),
        confidence=scores.max(axis=1),
        probabilities=scores,
        texts=("",) * number,
        sources=("",) * number,
    )


@pytest.mark.parametrize("recipe", ["agnews-qkv-r4-bias", "agnews-minilm", "agnews-mixed-r12"])
def test_the_picture_of_a_budget_shows_every_part_and_what_is_left(recipe: str) -> None:
    plan = api.plan(recipe)
    plot = budget_plot(plan)
    drawing = render_svg(plot)
    layers = {module.layer: 0 for module in plan.modules}
    for module in plan.modules:
        layers[module.layer] += module.params
    for layer, params in layers.items():
        assert f">layer {layer}<" in drawing
        assert f">{params:,}<" in drawing
    assert f">{plan.head_params:,}<" in drawing
    assert (">biases<" in drawing) == (plan.bias_params > 0)
    assert f"{plan.budget - plan.trainable_params:,} of the budget of {plan.budget:,} are left" in plot.caption
    for name, params in plan.parts:
        assert f"{name} {params:,}" in plot.alt


def test_class_reliability_counts_each_class_against_the_rest() -> None:
    scores = [[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.25, 0.75]]
    first, second = measure_class_reliability(make_predictions(scores, [0, 1, 0, 1]), ["no", "yes"])
    assert first.probability == pytest.approx([0.25, 0.65, 0.95])
    assert first.share.tolist() == [0, 1, 0.5]
    assert first.num_records.tolist() == [1, 1, 2]
    assert first.error == pytest.approx((0.25 + 0.35 + 2 * 0.45) / 4)
    assert (first.intervals[:, 0] <= first.share).all()
    assert (first.intervals[:, 1] >= first.share).all()
    assert second.error == pytest.approx(first.error)
    assert second.num_records.sum() == 4


def test_the_worst_of_many_classes_are_shown_and_it_is_said(tmp_path: Path) -> None:
    names = tuple(f"class {number}" for number in range(30))
    run = read_history(write_run(tmp_path / "run", names=names, num_steps=0, num_records=300, splits=("test",)))
    plots = list_calibration_plots(run.results["test"], run.labels, read_predictions(run.path, "test"))
    plot = plots["class-reliability"]
    assert "Of 30 classes, the 12 with the largest errors." in plot.caption
    assert render_svg(plot).count("error ") == MAX_PANELS


def test_a_class_without_records_has_pictures() -> None:
    scores = np.full((6, 3), 0.1)
    scores[np.arange(6), [0, 1, 0, 1, 0, 2]] = 0.8
    plots = list_confusion_plots([[2, 0, 0], [1, 2, 1], [0, 0, 0]], ["a", "b", "c"])
    plots |= list_calibration_plots(
        cast("SetFigures", {}), ["a", "b", "c"], make_predictions(scores, [0, 1, 0, 1, 1, 1])
    )
    assert set(plots) == {"confusion", "confusion-counts", "class-reliability", "coverage"}
    for plot in plots.values():
        assert "nan" not in render_svg(plot).lower()


def test_counts_and_shares_of_a_confusion_matrix_are_told_apart() -> None:
    plots = list_confusion_plots([[30, 10], [5, 15]], ["no", "yes"])
    shares, counts = (render_svg(plots[name]) for name in ("confusion", "confusion-counts"))
    assert ">75.0<" in shares
    assert ">30<" in shares
    assert ">75.0<" not in counts
    assert ">10<" in counts
    assert "45 of 60 are right. no taken for yes 10 times; yes taken for no 5 times" in plots["confusion"].alt


def test_a_picture_carries_its_description() -> None:
    plots = list_confusion_plots([[30, 10], [5, 15]], ["世界", "yes"])
    picture = render_png(plots["confusion"])
    assert b"Confusion matrix, by true class" in picture
    assert b"Description" in picture


def test_training_rows_stand_beside_validation_and_are_called_what_they_are(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", num_steps=0, splits=("validation",))
    run = read_history(folder)
    text = read_page(write_report([folder])).text
    assert "On 150 of its 195 training rows, drawn by chance, the finished model is right on 98.00" in text
    assert "no measure of quality; on validation rows it is right on" in text
    gap = 0.98 - run.results["validation"]["accuracy"]
    assert f"a gap of {100 * gap:+.2f} points" in text
    plot = result_plot(run)
    assert plot is not None
    assert "train, rows it learned: 98.00" in plot.alt
    (folder / "evaluation/train.sample.json").unlink()
    assert "accuracy on them is unknown" in read_page(write_report([folder])).text
