"""Lines over optimizer steps or epochs: thinned without losing a spike, labelled, and told apart without colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator

from submillion.report.formatting import count
from submillion.report.theme import LINE_STYLES, MARKERS, Theme, new_figure
from submillion.run.history import FloatArray

MAX_POINTS = 240  # about one per two pixels of a plot
MAX_DIRECT_LABELS, MAX_DIRECT_LENGTH = 5, 13
TICK_STEPS = (1, 2, 2.5, 5, 10)
LABEL_GAP = 0.075  # of the height of a plot: two lines of text do not touch


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        label: Name in the legend.
        steps: Optimizer steps or epochs, shape (n,).
        values: Shape (n,); those that are not finite are left out.
        colour: Position in the theme's series.
        markers: Whether the points are few and shown.
        style: Position in the theme's line styles and markers.
        averaged: Whether a long line is drawn as means with the range behind them.
        best: Position of a point to mark, if any.
        max_points: Points that a long line is thinned to.
        intervals: Lower and upper end for every value, shape (n, 2), or None.
    """

    label: str
    steps: FloatArray
    values: FloatArray
    colour: int = 0
    markers: bool = False
    style: int = 0
    averaged: bool = False
    best: int | None = None
    max_points: int = MAX_POINTS
    intervals: FloatArray | None = None


def thin(values: FloatArray, size: int) -> list[FloatArray]:
    """Cut an array into runs of `size` neighbours; the last may be shorter."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def _draw_range(axes: Axes, colour: str, steps: FloatArray, parts: Sequence[FloatArray]) -> None:
    """Draw all that the means hide: the range of every run of neighbours, darker where most of them are."""
    spread = np.array([np.quantile(part, [0.0, 0.1, 0.9, 1.0]) for part in parts])
    axes.fill_between(steps, spread[:, 0], spread[:, 3], color=colour, alpha=0.13, linewidth=0)
    axes.fill_between(steps, spread[:, 1], spread[:, 2], color=colour, alpha=0.17, linewidth=0)


def _draw_one(axes: Axes, theme: Theme, line: Series) -> None:
    colour = theme.series[line.colour % len(theme.series)]
    finite = np.isfinite(line.values)
    steps, values = line.steps[finite], line.values[finite]
    size = -(-len(values) // line.max_points)
    if size > 1:
        parts = thin(values, size)
        steps = np.array([part.mean() for part in thin(steps, size)])
        if line.averaged:
            _draw_range(axes, colour, steps, parts)
        values = np.array([part.mean() for part in parts])
    if line.intervals is not None and size <= 1:
        ends = np.clip(np.abs(line.intervals[finite].T - values), 0, None)
        axes.errorbar(steps, values, ends, fmt="none", color=colour, ecolor=colour, elinewidth=1, alpha=0.55, capsize=2)
    is_marked = (line.markers and len(values) < 30) or len(values) == 1
    axes.plot(
        steps,
        values,
        color=colour,
        label=line.label,
        linestyle=LINE_STYLES[line.style % len(LINE_STYLES)],
        marker=MARKERS[line.style % len(MARKERS)] if is_marked else None,
        markersize=3.8,
    )


def _mark_best(axes: Axes, theme: Theme, series: Sequence[Series]) -> None:
    label = "kept checkpoint"
    for line in series:
        if line.best is None or not np.isfinite(line.values[line.best]):
            continue
        axes.plot(
            line.steps[line.best],
            line.values[line.best],
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=theme.ink,
            markeredgewidth=1.1,
            linestyle="none",
            label=label,
        )
        label = "_kept"  # matplotlib leaves names that begin so out of the legend


def spread_labels(places: Sequence[float], gap: float = LABEL_GAP) -> list[float]:
    """Move labels apart, as little as need be, so that no two are closer than `gap`; the order stays.

    Args:
        places: Wanted heights as shares of the plot's height, in any order.
        gap: Smallest distance.

    Returns:
        A height for each, in the order given; inside 0..1 where there is room.
    """
    order = np.argsort(places, kind="stable")
    wanted = np.asarray(places, dtype=np.float64)[order]
    # Pushed up only, and pushed down only: both keep the gaps, and so does the middle of the two.
    middle = (_push_up(wanted, gap) - _push_up(-wanted[::-1], gap)[::-1]) / 2
    middle = -_push_up(np.concatenate([[max(-1.0, -middle[-1])], -middle[-2::-1]]), gap)[::-1]
    middle = _push_up(np.concatenate([[max(0.0, middle[0])], middle[1:]]), gap)
    result = np.empty_like(middle)
    result[order] = middle
    return [float(value) for value in result]


def _push_up(values: FloatArray, gap: float) -> FloatArray:
    """Return increasing values raised, from the first on, until each is `gap` above the one before."""
    offsets = gap * np.arange(len(values))
    raised: FloatArray = np.maximum.accumulate(values - offsets) + offsets
    return raised


def _label_lines(axes: Axes, theme: Theme, series: Sequence[Series]) -> None:
    """Write each line's name at its end."""
    ends = []
    for line in series:
        finite = np.flatnonzero(np.isfinite(line.values))
        size = -(-len(finite) // line.max_points)
        last = finite[-size:]
        ends.append((float(line.steps[last].mean()), float(line.values[last].mean())))
    axes.autoscale_view()
    inside = axes.transData.transform(ends)
    heights = axes.transAxes.inverted().transform(inside)[:, 1]
    for line, end, height in zip(series, ends, spread_labels(heights.tolist()), strict=True):
        axes.annotate(
            line.label,
            end,
            xytext=(1.035, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=theme.ink,
            arrowprops={
                "arrowstyle": "-",
                "color": theme.series[line.colour % len(theme.series)],
                "linewidth": 0.8,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )


def _name_lines(axes: Axes, theme: Theme, series: Sequence[Series]) -> None:
    longest = max(len(line.label) for line in series)
    last = [float(line.steps[np.isfinite(line.values)][-1]) for line in series]
    # A leader from a line that ends early would look like more of the line.
    first = [float(line.steps[np.isfinite(line.values)][0]) for line in series]
    end_together = min(last) >= 0.88 * max(last) and max(last) > min(first)
    is_direct = 1 < len(series) <= MAX_DIRECT_LABELS and longest <= MAX_DIRECT_LENGTH and end_together
    if is_direct:
        _label_lines(axes, theme, series)
    handles, labels = axes.get_legend_handles_labels()
    if is_direct or len(series) == 1:
        kept = [place for place, label in enumerate(labels) if label == "kept checkpoint"]
        handles, labels = [handles[place] for place in kept], [labels[place] for place in kept]
    if handles:
        axes.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0, 1.02),
            ncols=2 if longest > 16 else 4,
            columnspacing=1.4,
            handletextpad=0.5,
            handlelength=2.2,
        )


def _scale_values(axes: Axes, series: Sequence[Series], *, shares: bool, log: bool) -> None:
    known = [line.values[np.isfinite(line.values)] for line in series]
    if log and all((values > 0).all() for values in known):  # zero has no place on a logarithmic axis
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        lowest, highest = min(values.min() for values in known), max(values.max() for values in known)
        ratio = highest / lowest
        subs = (1.0,) if ratio > 2000 else (1.0, 2.0, 5.0) if ratio > 20 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.minorticks_off()
    elif shares:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=TICK_STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=TICK_STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def draw_series(
    theme: Theme,
    *,
    series: Sequence[Series],
    ylabel: str,
    shares: bool = False,
    log: bool = False,
    xlabel: str = "optimizer step",
) -> Figure:
    """Draw lines over optimizer steps.

    Args:
        theme: Colours.
        series: The lines, in the order of the legend; each with at least one finite value.
        ylabel: Name of the values, with their unit.
        shares: Values are shares, shown in percent.
        log: Logarithmic values, where all of them are above zero.
        xlabel: Name of the steps.
    """
    figure, axes = new_figure()
    for line in series:
        _draw_one(axes, theme, line)
    _mark_best(axes, theme, series)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    is_whole = xlabel == "optimizer step"
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value) if is_whole else f"{value:g}"))
    places = np.unique(np.concatenate([line.steps[np.isfinite(line.values)] for line in series]))
    axes.xaxis.set_major_locator(
        FixedLocator(places.tolist()) if len(places) < 3 else MaxNLocator(6, integer=is_whole, steps=TICK_STEPS)
    )
    axes.margins(x=0.02, y=0.06)
    _scale_values(axes, series, shares=shares, log=log)
    _name_lines(axes, theme, series)
    return figure


def describe_series(series: Sequence[Series], *, shares: bool = False) -> str:
    """Return in words where each line begins and ends, and its extremes."""

    def show(value: float) -> str:
        return f"{100 * value:.2f} percent" if shares else f"{value:.4g}"

    sentences = []
    for line in series:
        finite = np.isfinite(line.values)
        values, steps = line.values[finite], line.steps[finite]
        name = line.label or "the line"
        if len(values) == 1:
            sentences.append(f"{name}: {show(values[0])} at {steps[0]:g}.")
            continue
        sentences.append(
            f"{name}: {show(values[0])} at {steps[0]:g} to {show(values[-1])} at {steps[-1]:g}, "
            f"lowest {show(values.min())}, highest {show(values.max())}."
        )
    return " ".join(sentences)
