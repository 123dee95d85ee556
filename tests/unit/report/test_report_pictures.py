from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import write_run

from submillion import api
from submillion.report.calibration import MAX_PANELS, list_calibration_plots, measure_class_reliability
from submillion.report.headline import describe_train_sample
from submillion.report.plots import list_confusion_plots
from submillion.report.sections import result_plot
from submillion.report.theme import render_png, render_svg
from submillion.report.treemap import Box, budget_plot, list_parts, place_boxes
from submillion.run.history import Predictions, load_run, read_predictions


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


@pytest.mark.parametrize("sizes", [[1.0], [6, 6, 4, 3, 2, 2, 1], [1e6, 1, 1], [5] * 40, [0.3, 0.2]])
def test_boxes_fill_the_area_in_proportion_and_do_not_overlap(sizes: list[float]) -> None:
    boxes = place_boxes(sizes, Box(2, 3, 60, 40))
    areas = np.array([box.width * box.height for box in boxes])
    assert areas == pytest.approx(np.array(sizes) / sum(sizes) * 2400, rel=1e-6)
    for number, one in enumerate(boxes):
        assert one.x >= 2 - 1e-9
        assert one.y >= 3 - 1e-9
        assert one.x + one.width <= 62 + 1e-6
        assert one.y + one.height <= 43 + 1e-6
        for other in boxes[:number]:
            wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
            high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
            assert min(wide, high) <= 1e-6


def test_boxes_are_the_squares_of_the_papers_example() -> None:
    # Bruls, Huizing and van Wijk, figure 5: a 6 x 4 rectangle of areas 6, 6, 4, 3, 2, 2, 1 begins with two of 3 x 2.
    boxes = place_boxes([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))
    assert [(box.width, box.height) for box in boxes[:2]] == [(3, 2), (3, 2)]
    assert max(max(box.width / box.height, box.height / box.width) for box in boxes) < 3


@pytest.mark.parametrize("recipe", ["agnews-qkv-r4-bias", "agnews-minilm", "agnews-mixed-r12"])
def test_the_parts_of_a_budget_add_up_to_it(recipe: str) -> None:
    plan = api.plan(recipe).to_json()
    parts = {part.name: part.size for part in list_parts(plan)}
    assert sum(parts.values()) == plan["budget"]
    assert parts.get("biases", 0) == plan["bias_params"]
    assert parts["head"] == plan["head_params"]
    assert parts["not used"] == plan["budget"] - plan["trainable_params"]
    drawing = render_svg(budget_plot(plan))
    for name, size in parts.items():
        assert name in drawing
        assert f"{size:,}" in drawing


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
    run = load_run(write_run(tmp_path / "run", names=names, num_steps=0, num_records=300, splits=("test",)))
    plots = list_calibration_plots(run.results["test"], run.labels, read_predictions(run.path, "test"))
    plot = plots["class-reliability"]
    assert "Of 30 classes, the 12 with the largest errors." in plot.caption
    assert render_svg(plot).count("error ") == MAX_PANELS


def test_a_class_without_records_has_pictures() -> None:
    scores = np.full((6, 3), 0.1)
    scores[np.arange(6), [0, 1, 0, 1, 0, 2]] = 0.8
    plots = list_confusion_plots({"confusion": [[2, 0, 0], [1, 2, 1], [0, 0, 0]]}, ["a", "b", "c"])
    plots |= list_calibration_plots({}, ["a", "b", "c"], make_predictions(scores, [0, 1, 0, 1, 1, 1]))
    assert set(plots) == {"confusion", "confusion-counts", "class-reliability", "coverage"}
    for plot in plots.values():
        assert "nan" not in render_svg(plot).lower()


def test_counts_and_shares_of_a_confusion_matrix_are_told_apart() -> None:
    plots = list_confusion_plots({"confusion": [[30, 10], [5, 15]]}, ["no", "yes"])
    shares, counts = (render_svg(plots[name]) for name in ("confusion", "confusion-counts"))
    assert ">75.0<" in shares
    assert ">30<" in shares
    assert ">75.0<" not in counts
    assert ">10<" in counts
    assert "45 of 60 are right. no taken for yes 10 times; yes taken for no 5 times" in plots["confusion"].alt


def test_a_picture_carries_its_description() -> None:
    plots = list_confusion_plots({"confusion": [[30, 10], [5, 15]]}, ["世界", "yes"])
    picture = render_png(plots["confusion"])
    assert b"Confusion matrix, by true class" in picture
    assert b"Description" in picture


def test_training_rows_stand_beside_validation_and_are_called_what_they_are(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", num_steps=0, splits=("validation",))
    run = load_run(folder)
    text = describe_train_sample(run)
    assert "On 150 of its 195 training rows, drawn by chance, the finished model is right on 98.00" in text
    assert "no measure of quality; on validation rows it is right on" in text
    gap = 0.98 - run.results["validation"]["accuracy"]
    assert f"a gap of {100 * gap:+.2f} points" in text
    plot = result_plot(run)
    assert plot is not None
    assert "train, rows it learned: 98.00" in plot.alt
    (folder / "evaluation/train.sample.json").unlink()
    assert "accuracy on them is unknown" in describe_train_sample(load_run(folder))
