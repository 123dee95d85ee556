from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from submillion.report.curves import list_curves
from submillion.report.formatting import shorten_names
from submillion.report.lines import LABEL_GAP, Series, describe_series, draw_series, spread_labels
from submillion.report.theme import PRINTED, Plot, render_svg
from submillion.run.history import read_history
from tests.unit.report.run_folders import write_run


def draw(*series: Series, **settings: Any) -> Figure:
    return draw_series(PRINTED, series=series, ylabel="loss (nats)", **settings)


def highest_drawn(figure: Figure) -> float:
    axes = figure.axes[0]
    ranges = [
        float(np.nanmax(np.asarray(path.vertices)[:, 1])) for part in axes.collections for path in part.get_paths()
    ]
    return max([float(np.nanmax(np.asarray(line.get_ydata()))) for line in axes.lines] + ranges)


def test_a_single_spike_in_a_hundred_thousand_steps_is_drawn() -> None:
    values = np.full(100_000, 0.5)
    values[61_233] = 9.0
    values[20_001] = -3.0
    figure = draw(Series("loss", np.arange(1.0, 100_001), values, averaged=True))
    assert len(np.asarray(figure.axes[0].lines[0].get_xdata())) <= 240
    assert highest_drawn(figure) == 9.0
    lowest = min(np.asarray(p.vertices)[:, 1].min() for part in figure.axes[0].collections for p in part.get_paths())
    assert lowest == -3.0
    assert all(isinstance(part, PolyCollection) for part in figure.axes[0].collections)


@pytest.mark.parametrize("number", [1, 2, 239, 240, 241, 1000])
def test_every_number_of_values_has_a_drawing_without_nan(number: int) -> None:
    values = np.linspace(1, 2, number)
    values[::7] = np.inf
    values[0], values[-1] = 1.5, np.nan if number > 1 else 1.5
    series = Series("loss", np.arange(1.0, number + 1), values, averaged=True, markers=True)
    plot = Plot("loss", "Loss", "", lambda theme: draw_series(theme, series=[series], ylabel="loss", log=True))
    drawing = render_svg(plot)
    assert "nan" not in drawing.lower()
    assert "inf" not in drawing.lower()


def test_one_step_has_one_tick() -> None:
    figure = draw(Series("loss", np.array([7.0]), np.array([0.5])))
    figure.draw_without_rendering()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["7"]
    assert figure.axes[0].lines[0].get_marker() == "o"  # a line of one point would not be seen


def test_lines_of_one_step_are_named_in_a_legend() -> None:
    one = np.array([7.0])
    figure = draw(*(Series(name, one, one, style=n) for n, name in enumerate(("a", "b"))))
    assert list(figure.axes[0].texts) == []  # leaders would be the only lines, and look like data
    assert figure.axes[0].get_legend() is not None


def test_zero_keeps_an_axis_linear() -> None:
    steps = np.arange(3.0)
    assert draw(Series("norm", steps, np.array([1.0, 10.0, 5.0])), log=True).axes[0].get_yscale() == "log"
    assert draw(Series("norm", steps, np.array([0.0, 10.0, 5.0])), log=True).axes[0].get_yscale() == "linear"


def test_lines_differ_without_colours() -> None:
    steps = np.arange(5.0)
    figure = draw(*(Series(f"run {n}", steps, steps + n, n, markers=True, style=n) for n in range(6)))
    kinds = {(str(line.get_linestyle()), line.get_marker(), line.get_dashes() if 0 else "") for line in
             figure.axes[0].lines}  # fmt: skip
    assert len({marker for _, marker, _ in kinds}) == 6


def test_labels_stand_at_the_ends_where_there_is_room_and_in_a_legend_elsewhere() -> None:
    steps = np.arange(1.0, 11)
    two = [Series(name, steps, np.full(10, value), style=n) for n, (name, value) in enumerate([("a", 1), ("b", 1.001)])]
    figure = draw(*two)
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]
    assert figure.axes[0].get_legend() is None
    heights = [text.get_position()[1] for text in figure.axes[0].texts]
    assert abs(heights[1] - heights[0]) >= LABEL_GAP - 1e-6
    early = Series("early", steps[:4], np.full(4, 1.5), style=2)
    figure = draw(*two, early)  # a leader from its end would look like more of it
    assert list(figure.axes[0].texts) == []
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "early"]


def test_labels_are_moved_apart_and_stay_inside() -> None:
    assert spread_labels([0.2, 0.8]) == [0.2, 0.8]
    assert spread_labels([0.5, 0.5, 0.5], gap=0.1) == pytest.approx([0.4, 0.5, 0.6])
    assert spread_labels([1.0, 0.99, 1.0, 0.5], gap=0.1) == pytest.approx([0.9, 0.8, 1.0, 0.5])
    assert spread_labels([0.0, 0.01, 0.9], gap=0.1) == pytest.approx([0.0, 0.1, 0.9])


def test_a_drawing_is_also_told_in_words() -> None:
    line = Series("validation", np.array([10.0, 20.0, 30.0]), np.array([0.5, 0.9, 0.8]))
    assert describe_series([line], shares=True) == (
        "validation: 50.00 percent at 10 to 80.00 percent at 30, lowest 50.00 percent, highest 90.00 percent."
    )


def test_every_drawing_of_a_run_has_a_description_with_figures(tmp_path: Path) -> None:
    run = read_history(write_run(tmp_path / "run", num_records=60, num_steps=30))
    for plot in list_curves(run):
        label = re.search(r'aria-label="([^"]*)"', render_svg(plot))
        assert label is not None
        assert label[1].startswith(f"{plot.title}. ")
        assert re.search(r"\d", label[1].removeprefix(plot.title))


def test_accuracy_by_epoch_has_intervals_and_training_between_validations(tmp_path: Path) -> None:
    run = read_history(write_run(tmp_path / "run", num_records=400, num_steps=60))
    plot = next(plot for plot in list_curves(run) if plot.name == "accuracy-by-epoch")
    series = plot.draw.keywords["series"]  # type: ignore[attr-defined]  # a partial
    validation, training = series
    assert validation.steps.tolist() == pytest.approx([0.5, 1, 1.5, 2, 2.5, 3])
    assert (validation.intervals[:, 0] < validation.values).all()
    assert (validation.intervals[:, 1] > validation.values).all()
    steps = run.steps
    first = steps["num_right"][:10].sum() / steps["num_records"][:10].sum()
    assert training.values[0] == pytest.approx(first)
    assert training.values[-1] == pytest.approx(steps["num_right"][50:].sum() / steps["num_records"][50:].sum())


def test_names_that_begin_alike_are_cut_in_their_middle() -> None:
    names = [
        "a request about billing, kind 1",
        "a request about billing, kind 2",
        "short",
        "another long name of a class",
    ]
    assert shorten_names(names, 16) == [
        "a reques\u2026kind 1",
        "a reques\u2026kind 2",
        "short",
        "another long na\u2026",
    ]
    assert shorten_names(["same", "same"], 10) == ["same", "same"]
