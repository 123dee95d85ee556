"""Curves per optimizer step, of one run or of several laid over each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from submillion.report.load import FloatArray, LoadedRun
from submillion.report.theme import Plot, Theme, new_figure
from submillion.report.words import count, shorten

MAX_POINTS = 240  # about one per two pixels of a plot
GROUPS = {"adapter_a": "adapter A", "adapter_b": "adapter B", "head": "head", "bias": "biases"}
STYLES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)))


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        label: Its name in the legend.
        steps: Optimizer steps, shape (n,).
        values: Shape (n,).
        colour: Position in the theme's series.
        markers: Whether the points are few and shown.
        style: Position in `STYLES`.
        averaged: Whether a long line is drawn as means with the range behind them.
        best: Position of a point to mark, if any.
    """

    label: str
    steps: FloatArray
    values: FloatArray
    colour: int = 0
    markers: bool = False
    style: int = 0
    averaged: bool = False
    best: int | None = None


def thin(values: FloatArray, size: int) -> list[FloatArray]:
    """Cut an array into runs of `size` neighbours; the last may be shorter."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def _draw_one(axes: Axes, theme: Theme, line: Series) -> None:
    colour = theme.series[line.colour % len(theme.series)]
    finite = np.isfinite(line.values)
    steps, values = line.steps[finite], line.values[finite]
    size = -(-len(values) // MAX_POINTS)
    if size > 1:
        parts = thin(values, size)
        steps = np.array([part.mean() for part in thin(steps, size)])
        if line.averaged:
            low, high = np.array([np.quantile(part, [0.1, 0.9]) for part in parts]).T
            axes.fill_between(steps, low, high, color=colour, alpha=0.16, linewidth=0)
        values = np.array([part.mean() for part in parts])
    axes.plot(
        steps,
        values,
        color=colour,
        label=line.label,
        linestyle=STYLES[line.style % len(STYLES)],
        marker="o" if line.markers else None,
        markersize=3.4 if len(values) < 30 else 0,
    )


def draw_series(
    theme: Theme, *, series: Sequence[Series], ylabel: str, shares: bool = False, log: bool = False
) -> Figure:
    """Draw lines over optimizer steps.

    Args:
        theme: Colours.
        series: The lines, in the order of the legend.
        ylabel: What the values are, with their unit.
        shares: Values are shares, shown in percent.
        log: Logarithmic values.
    """
    figure, axes = new_figure()
    for line in series:
        _draw_one(axes, theme, line)
    for line in series:
        if line.best is not None:
            axes.plot(
                line.steps[line.best],
                line.values[line.best],
                marker="o",
                markersize=9,
                markerfacecolor="none",
                markeredgecolor=theme.ink,
                markeredgewidth=1.1,
                linestyle="none",
                label="best checkpoint",
            )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.margins(x=0.02)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.minorticks_off()
    elif shares:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    long = max(len(line.label) for line in series) > 16
    if len(series) > 1 or series[0].best is not None:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.02),
            ncols=2 if long else 4,
            columnspacing=1.4,
            handletextpad=0.5,
        )
    return figure


def _validations(run: LoadedRun, split: str, field: str) -> tuple[FloatArray, FloatArray] | None:
    rows = [entry for entry in run.evaluations.get(split, []) if isinstance(entry.get(field), (int, float))]
    if not rows:
        return None
    return np.array([float(row["step"]) for row in rows]), np.array([float(row[field]) for row in rows])


def _evaluated(run: LoadedRun, split: str, field: str, *, label: str = "", number: int = 0) -> list[Series]:
    found = _validations(run, split, field)
    if found is None:
        return []
    steps, values = found
    best = None
    if split == "validation" and run.best is not None:
        places = np.flatnonzero(steps == run.best["step"])
        best = int(places[0]) if len(places) else None
    return [Series(label, steps, values, number, markers=True, style=number, best=best)]


def _stepped(run: LoadedRun, field: str, label: str, colour: int = 0) -> list[Series]:
    if field not in run.steps:
        return []
    return [Series(label, run.steps["step"], run.steps[field], colour, averaged=True)]


def _learning_rates(run: LoadedRun) -> list[Series]:
    if not run.learning_rates:
        return _stepped(run, "learning_rate", "learning rate")
    groups: list[tuple[list[str], FloatArray]] = []
    for name, values in run.learning_rates.items():
        label = GROUPS.get(name, name)
        same = [names for names, known in groups if np.array_equal(known, values, equal_nan=True)]
        if same:
            same[0].append(label)
        else:
            groups.append(([label], values))
    return [
        Series(" and ".join(names), run.steps["step"], values, number, style=number)
        for number, (names, values) in enumerate(groups)
    ]


def _speed(run: LoadedRun) -> list[Series]:
    if not {"num_records", "step_s"} <= set(run.steps):
        return []
    seconds = np.maximum(run.steps["step_s"], 1e-9)
    return [Series("records", run.steps["step"], run.steps["num_records"] / seconds, 0, averaged=True)]


def _collect(candidates: Sequence[tuple[str, str, str, list[Series], dict[str, Any]]]) -> list[Plot]:
    return [
        Plot(name, title, caption, partial(draw_series, series=series, **settings))
        for name, title, caption, series, settings in candidates
        if series
    ]


def list_curves(run: LoadedRun) -> list[Plot]:
    """Return the curves of one run; those without any logged value are left out."""
    watched = [split for split in run.evaluations if split != "validation"]
    accuracy = _evaluated(run, "validation", "accuracy", label="validation")
    for number, split in enumerate(watched, start=1):
        accuracy += _evaluated(run, split, "accuracy", label=f"{split} (watched)", number=number)
    loss = _stepped(run, "loss", "training", 5) + _evaluated(run, "validation", "loss", label="validation")
    quality = [
        line
        for number, name in enumerate(("precision", "recall", "F1"))
        for line in _evaluated(run, "validation", f"macro_{name.lower()}", label=name, number=number)
    ]
    quality = [replace(line, best=None) for line in quality]
    watched_note = " Watched sets steer nothing." if watched else ""
    return _collect(
        [
            (
                "loss",
                "Loss",
                "Training loss as means over neighbouring steps, 10th to 90th percentile shaded.",
                loss,
                {"ylabel": "loss (nats)"},
            ),
            (
                "accuracy",
                "Accuracy",
                f"The ring marks the checkpoint that was kept.{watched_note}",
                accuracy,
                {"ylabel": "accuracy (%)", "shares": True},
            ),
            (
                "precision-recall-f1",
                "Precision, recall and F1",
                "Validation split, unweighted means over the classes.",
                quality,
                {"ylabel": "macro average (%)", "shares": True},
            ),
            (
                "learning-rate",
                "Learning rate",
                "By parameter group.",
                _learning_rates(run),
                {"ylabel": "learning rate"},
            ),
            (
                "gradient-norm",
                "Gradient norm",
                "Before clipping.",
                _stepped(run, "grad_norm", "gradient norm", 2),
                {"ylabel": "L2 norm", "log": True},
            ),
            ("speed", "Speed", "Training steps only.", _speed(run), {"ylabel": "records per second"}),
        ]
    )


def list_overlaid_curves(runs: Sequence[LoadedRun]) -> list[Plot]:
    """Return the curves of several runs laid over each other, and those of each set watched by at least one."""

    def overlay(pick: Callable[[LoadedRun], list[Series]]) -> list[Series]:
        lines = []
        for number, run in enumerate(runs):
            lines += [
                Series(shorten(run.title, 28), s.steps, s.values, number, s.markers, number // 6, s.averaged)
                for s in pick(run)
            ]
        return lines

    def of(split: str, field: str) -> list[Series]:
        return overlay(lambda run: _evaluated(run, split, field))

    watched = sorted({split for run in runs for split in run.evaluations if split != "validation"})
    share = {"shares": True}
    return _collect(
        [
            ("loss", "Training loss", "", overlay(lambda run: _stepped(run, "loss", "")), {"ylabel": "loss (nats)"}),
            ("validation-loss", "Validation loss", "", of("validation", "loss"), {"ylabel": "loss (nats)"}),
            (
                "validation-accuracy",
                "Validation accuracy",
                "",
                of("validation", "accuracy"),
                {"ylabel": "accuracy (%)", **share},
            ),
            *(
                (
                    f"accuracy-{split}",
                    f"Accuracy on {split}",
                    "Watched; it steers nothing.",
                    of(split, "accuracy"),
                    {"ylabel": "accuracy (%)", **share},
                )
                for split in watched
            ),
        ]
    )
