"""Pictures of a search: how it went on, which settings mattered, and how trials with each value did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from submillion.report.formatting import shorten
from submillion.report.theme import Plot, Theme, new_figure

_MAX_PARALLEL_CHOICES = 12
_COLUMNS = 3


@dataclass(frozen=True)
class StudyPoint:
    """One trial in a picture.

    Attributes:
        number: In the study.
        value: Figure that judges the trial.
        is_complete: Whether it came to its end; otherwise it was pruned, and the value is its last.
        params: Drawn values by name; those that were not drawn are missing.
    """

    number: int
    value: float
    is_complete: bool
    params: Mapping[str, object]

    def read_number(self, name: str) -> float:
        """Return the value of a parameter whose values are numbers."""
        value = self.params[name]
        assert isinstance(value, int | float), f"{name} is drawn from numbers"
        return float(value)


@dataclass(frozen=True)
class StudyPicture:
    """What the pictures of a search show.

    Attributes:
        points: The trials that have a value, by number.
        metric: Name of the figure that they are judged by.
        lower_is_better: Whether less of it is better.
        scales: ``log``, ``linear`` or ``categorical`` by parameter, in order.
        importances: Share of each parameter, most first; may be empty.
    """

    points: Sequence[StudyPoint]
    metric: str
    lower_is_better: bool
    scales: Mapping[str, str]
    importances: Mapping[str, float]

    @property
    def is_share(self) -> bool:
        """Whether the figure is shown in percent."""
        return self.metric != "loss"

    @property
    def label(self) -> str:
        """The figure's name with its unit, for axes."""
        name = self.metric.replace("_", "-")
        return f"validation {name} (%)" if self.is_share else f"validation {name} (nats)"

    def scale(self, value: float) -> float:
        """Return a value in the unit of the axes."""
        return 100 * value if self.is_share else value

    @property
    def best(self) -> StudyPoint | None:
        """The best trial that came to its end."""
        done = [point for point in self.points if point.is_complete]
        sign = -1 if self.lower_is_better else 1
        return max(done, key=lambda point: (sign * point.value, -point.number), default=None)


def list_study_plots(picture: StudyPicture) -> list[Plot]:
    """Return the plots that the trials so far allow: history, importances, parallel coordinates, slices."""
    plots = [
        Plot(
            "history",
            "How the search went on",
            "Each point is a trial, hollow where it was ended early; the line is the best so far.",
            partial(draw_history, picture=picture),
        )
    ]
    if picture.importances:
        plots.append(
            Plot(
                "importances",
                "What mattered",
                "Share of each setting in being among the better tenth of the trials (PED-ANOVA). From few trials it "
                "is a hint, no more.",
                partial(draw_importances, picture=picture),
            )
        )
    if len([point for point in picture.points if point.is_complete]) > 1:
        plots.append(
            Plot(
                "parallel",
                "Trials across their settings",
                "Each line is a trial that came to its end; the stronger, the better it did. The best is drawn apart.",
                partial(draw_parallel, picture=picture),
                wide=True,
            )
        )
    plots.append(
        Plot(
            "slices",
            "One setting at a time",
            "All trials by the value of each setting, hollow where they were ended early; the diamond is the best.",
            partial(draw_slices, picture=picture),
            wide=True,
        )
    )
    return plots


def draw_history(theme: Theme, *, picture: StudyPicture) -> Figure:
    """Draw values by number of the trial, and the best so far."""
    figure, axes = new_figure(4.4, 3.0)
    _scatter(axes, theme, picture, [(point.number, point) for point in picture.points])
    numbers: list[int] = []
    bests: list[float] = []
    for point in picture.points:
        if point.is_complete:
            better = min if picture.lower_is_better else max
            bests.append(picture.scale(point.value) if not bests else better(bests[-1], picture.scale(point.value)))
            numbers.append(point.number)
    if numbers:
        end = max(point.number for point in picture.points)
        axes.step([*numbers, end], [*bests, bests[-1]], where="post", color=theme.series[1], zorder=1)
    axes.set_xlabel("trial")
    axes.set_ylabel(picture.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_importances(theme: Theme, *, picture: StudyPicture) -> Figure:
    """Draw the share of each parameter as a bar."""
    names = list(picture.importances)
    figure, axes = new_figure(4.4, 0.8 + 0.24 * len(names))
    shares = [100 * picture.importances[name] for name in names]
    axes.barh(range(len(names)), shares, height=0.62, color=theme.series[0])
    for place, share in enumerate(shares):
        axes.annotate(
            f"{share:.0f}", (share, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(range(len(names)), [shorten(name, 30) for name in names])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x")
    axes.margins(x=0.12)
    axes.set_xlabel("importance (% of all)")
    return figure


def _find_axis(picture: StudyPicture, name: str) -> tuple[dict[int, float], list[str], list[float]]:
    """Return positions 0..1 by trial on a parameter's axis, and the axis' labels with their positions."""
    drawn = [point for point in picture.points if name in point.params]
    if picture.scales[name] == "categorical":
        choices = {point.number: _show_choice(point.params[name]) for point in drawn}
        labels = sorted(set(choices.values()), key=_sort_choice)
        spread = max(1, len(labels) - 1)
        places = {label: index / spread for index, label in enumerate(labels)}
        found = {number: places[label] for number, label in choices.items()}
        shown = labels if len(labels) <= _MAX_PARALLEL_CHOICES else [labels[0], labels[-1]]
        return found, shown, [places[label] for label in shown]
    values = {point.number: point.read_number(name) for point in drawn}
    scale = math.log10 if picture.scales[name] == "log" else float
    numbers = {number: scale(value) for number, value in values.items()}
    low, high = min(numbers.values(), default=0.0), max(numbers.values(), default=1.0)
    width = (high - low) or 1.0
    ends = [min(values.values(), default=0.0), max(values.values(), default=1.0)]
    return (
        {number: (value - low) / width for number, value in numbers.items()},
        [_show_number(end) for end in ends],
        [0.0, (high - low) / width],
    )


def draw_parallel(theme: Theme, *, picture: StudyPicture) -> Figure:
    """Draw a line for each completed trial across its value and all parameters."""
    names = list(picture.scales)
    done = [point for point in picture.points if point.is_complete]
    best = picture.best
    figure, axes = new_figure(9.2, 4.4)
    values = {point.number: picture.scale(point.value) for point in done}
    low, high = min(values.values()), max(values.values())
    width = (high - low) or 1.0
    columns = [
        ({number: (value - low) / width for number, value in values.items()}, [f"{low:.4g}", f"{high:.4g}"], [0.0, 1.0])
    ]
    columns += [_find_axis(picture, name) for name in names]
    for point in sorted(done, key=lambda point: point is best):
        places = [(x, column[0][point.number]) for x, column in enumerate(columns) if point.number in column[0]]
        height = columns[0][0][point.number]
        goodness = 1 - height if picture.lower_is_better else height
        is_best = best is not None and point.number == best.number
        axes.plot(
            [x for x, _ in places],
            [y for _, y in places],
            color=theme.series[1] if is_best else theme.series[0],
            alpha=1.0 if is_best else 0.12 + 0.6 * goodness**2,
            linewidth=2.4 if is_best else 1.2,
        )
    for x, (_, labels, places_of) in enumerate(columns):
        axes.axvline(x, color=theme.muted, linewidth=0.6, zorder=0)
        for label, place in zip(labels, places_of, strict=True):
            axes.annotate(
                shorten(label, 16),
                (x, place),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=6.5,
                color=theme.muted,
            )
    axes.set_xticks(range(len(columns)), [picture.label, *names], rotation=28, ha="right")
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(columns) - 0.4)
    axes.set_ylim(-0.04, 1.09)
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)
    return figure


def draw_slices(theme: Theme, *, picture: StudyPicture) -> Figure:
    """Draw values by each parameter, one pair of axes each."""
    names = list(picture.scales)
    num_rows = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(9.2, 0.3 + 2.15 * num_rows), layout="constrained")
    grid: Any = figure.subplots(num_rows, _COLUMNS, sharey=True, squeeze=False)
    for place, name in enumerate(names):
        axes = grid[place // _COLUMNS][place % _COLUMNS]
        drawn = [point for point in picture.points if name in point.params]
        if picture.scales[name] == "categorical":
            labels = sorted({_show_choice(point.params[name]) for point in drawn}, key=_sort_choice)
            # A little to the side by number, so that equal values do not hide each other.
            pairs = [
                (labels.index(_show_choice(point.params[name])) + 0.06 * (point.number % 5 - 2), point)
                for point in drawn
            ]
            axes.set_xticks(range(len(labels)), [shorten(label, 14) for label in labels], rotation=20, ha="right")
            axes.set_xlim(-0.6, max(0.6, len(labels) - 0.4))
        else:
            pairs = [(point.read_number(name), point) for point in drawn]
            axes.xaxis.set_major_locator(MaxNLocator(5))
            if picture.scales[name] == "log":
                axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _show_number(value)))
            if picture.scales[name] == "log":
                axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        _scatter(axes, theme, picture, pairs)
        axes.set_xlabel(name)
    for place in range(len(names), num_rows * _COLUMNS):
        grid[place // _COLUMNS][place % _COLUMNS].set_visible(False)
    figure.supylabel(picture.label, fontsize=8.5, color=theme.muted)
    return figure


def _scatter(axes: Axes, theme: Theme, picture: StudyPicture, pairs: Sequence[tuple[float, StudyPoint]]) -> None:
    best = picture.best
    for x, point in pairs:
        is_best = best is not None and point.number == best.number
        axes.plot(
            x,
            picture.scale(point.value),
            linestyle="none",
            marker="D" if is_best else "o",
            markersize=6.5 if is_best else 4.5,
            color=theme.series[1] if is_best else theme.series[0],
            markerfacecolor=(theme.series[1] if is_best else theme.series[0]) if point.is_complete else theme.paper,
            markeredgewidth=1.1,
            zorder=3 if is_best else 2,
        )


def _show_choice(value: object) -> str:
    return "not set" if value in (None, "null") else str(value).replace('"', "").strip("[]")


def _sort_choice(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _show_number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.2g}".partition("e")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return f"{value:.3g}"
