"""Pictures of results: where a model errs, how far its probabilities hold, where its parameters are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from submillion.budget.plan import Plan
from submillion.report.formatting import count, percent, percent_range, shorten, shorten_names
from submillion.report.theme import HATCHES, Plot, Theme, new_figure
from submillion.run.history import FloatArray

MAX_NAMED_CLASSES = 40
MAX_NARROW_CLASSES = 12
SMALLEST_CELL = 12.0  # points; numbers in smaller ones could not be read
KIND_NAMES = {
    "query": "query",
    "key": "key",
    "value": "value",
    "attention_output": "attention output",
    "ffn_in": "feed-forward in",
    "ffn_out": "feed-forward out",
}


@dataclass(frozen=True)
class Estimate:
    """One line of an interval plot.

    Attributes:
        group: Heading above it, such as the name of a split.
        label: Whose figure it is.
        value: The estimate.
        interval: 95 % interval of the estimate.
        colour: Position in the theme's series.
    """

    group: str
    label: str
    value: float
    interval: Sequence[float]
    colour: int


def draw_intervals(theme: Theme, *, estimates: Sequence[Estimate]) -> Figure:
    """Draw accuracies as points with their intervals, one line each, grouped."""
    groups = list(dict.fromkeys(entry.group for entry in estimates))
    figure, axes = new_figure(9.2, 0.75 + 0.27 * len(estimates) + 0.16 * len(groups))
    names, places, place = [], [], 0.0
    for group in groups:
        for entry in (entry for entry in estimates if entry.group == group):
            colour = theme.series[entry.colour % len(theme.series)]
            low, high = entry.interval
            axes.plot([low, high], [place, place], color=colour, linewidth=2.2)
            axes.plot(entry.value, place, marker="o", markersize=6, color=colour, markeredgecolor=theme.paper)
            axes.annotate(
                percent(entry.value), (high, place), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8
            )
            names.append(f"{shorten(group, 24)} \N{MIDDLE DOT} {shorten(entry.label, 32)}")
            places.append(place)
            place += 1
        place += 0.6
    axes.set_yticks(places, names)
    axes.set_ylim(place - 0.9, -0.7)
    axes.margins(x=0.09)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    axes.set_xlabel("accuracy (%), with its 95 % interval")
    return figure


def interval_plot(estimates: Sequence[Estimate]) -> Plot:
    """Return the picture of accuracies with their intervals."""
    said = [
        f"{entry.group}, {entry.label}: {percent(entry.value)}, interval {percent_range(entry.interval)}."
        for entry in estimates
    ]
    draw = partial(draw_intervals, estimates=estimates)
    return Plot("accuracy-by-set", "Accuracy by set", "", draw, wide=True, alt=" ".join(said))


def draw_confusion(
    theme: Theme, *, confusion: Sequence[Sequence[int]], labels: Sequence[str], is_share: bool = True
) -> Figure:
    """Draw a confusion matrix: shares of each true class with counts beneath, or counts alone."""
    counts = np.asarray(confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    depths = shares if is_share else counts / max(1.0, counts.max())
    size = len(counts)
    side = min(9.2, max(3.8, 0.31 * size))
    figure, axes = new_figure(4.4 if size <= MAX_NARROW_CLASSES else 9.2, side)
    cell = 72 * 0.72 * min(side, 9.2) / size  # points, names and titles taken off
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = theme.series[0] if row == column else theme.series[1]
        alpha = 0.06 + 0.94 * float(depths[row, column]) ** 0.8
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=alpha, linewidth=0))
    for row, column in np.ndindex(size, size) if cell >= SMALLEST_CELL else ():
        _write_cell(
            axes, theme, (int(row), int(column)), number=float(counts[row, column]), share=float(shares[row, column]),
            depth=float(depths[row, column]), is_share=is_share, cell=cell,
        )  # fmt: skip
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    if size <= MAX_NAMED_CLASSES:
        names = shorten_names(labels, 18)
        small = 8 if size <= MAX_NARROW_CLASSES else 6.5
        upright = size > 6 or max(len(name) for name in names) > 12
        axes.set_xticks(
            range(size), names, fontsize=small, rotation=45 if upright else 0, ha="right" if upright else "center",
            rotation_mode="anchor" if upright else "default",
        )  # fmt: skip
        axes.set_yticks(range(size), names, fontsize=small)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


def _write_cell(
    axes: Axes,
    theme: Theme,
    place: tuple[int, int],
    *,
    number: float,
    share: float,
    depth: float,
    is_share: bool,
    cell: float,
) -> None:
    row, column = place
    if number == 0 and cell < 24:  # noughts would hide what is there
        return
    style: dict[str, Any] = {
        "ha": "center",
        "color": theme.paper if depth > 0.45 else theme.ink,
        "fontweight": "bold" if row == column else "normal",
    }
    main = f"{100 * share:.1f}" if cell >= 24 else f"{100 * share:.0f}"
    if not is_share:
        main = count(number)
    size = min(11.0, cell * 0.36, 1.5 * cell / max(1, len(main)))
    if is_share and cell >= 24:
        axes.text(column, row - 0.03, main, va="bottom", fontsize=size, **style)
        style["fontweight"] = "normal"
        small = min(8.0, cell * 0.24, 1.4 * cell / len(count(number)))
        axes.text(column, row + 0.09, count(number), va="top", fontsize=small, **style)
    else:
        axes.text(column, row, main, va="center", fontsize=size, **style)


def draw_lengths(
    theme: Theme, *, edges: FloatArray, counts: FloatArray, unit: str, limit: int | None, num_cut: int | None = None
) -> Figure:
    """Draw a histogram of text lengths in tokens or words, the model's limit, and what lies beyond it."""
    figure, axes = new_figure()
    style: dict[str, Any] = {"align": "edge", "edgecolor": theme.paper, "linewidth": 0.6}
    beyond = edges[:-1] >= (np.inf if limit is None else limit)
    widths = np.diff(edges)
    axes.bar(edges[:-1][~beyond], counts[~beyond], width=widths[~beyond], color=theme.series[0], **style)
    if beyond.any():
        axes.bar(
            edges[:-1][beyond], counts[beyond], width=widths[beyond], color=theme.series[1], hatch=HATCHES[1], **style
        )
    if limit is not None:
        axes.axvline(limit, color=theme.series[1], linewidth=1.2)
        cut = "" if num_cut is None else f"\n{count(num_cut)} longer ({percent(num_cut / max(1, counts.sum()), 1)})"
        is_left = limit > edges[0] + 0.45 * (edges[-1] - edges[0])
        axes.annotate(
            f"max_length {limit:,}{cut}", (limit, 1), xycoords=("data", "axes fraction"), va="top",
            xytext=(-5 if is_left else 5, -4), ha="right" if is_left else "left",
            textcoords="offset points", color=theme.ink, fontsize=8,
        )  # fmt: skip
    axes.set_xlabel(f"length of a text ({unit})")
    axes.set_ylabel("records")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    return figure


def draw_balance(theme: Theme, *, balance: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw the share of every class in every split."""
    labels = list(dict.fromkeys(label for counts in balance.values() for label in counts))
    each = 0.3 * max(1, len(balance) * 0.5) if len(labels) <= MAX_NARROW_CLASSES else 0.24
    figure, axes = new_figure(4.4, 0.9 + each * len(labels))
    height = 0.8 / len(balance)
    for number, (split, counts) in enumerate(balance.items()):
        total = max(1, sum(counts.values()))
        places = np.arange(len(labels)) + (number - (len(balance) - 1) / 2) * height
        values = [100 * counts.get(label, 0) / total for label in labels]
        colour = theme.series[number % len(theme.series)]
        axes.barh(
            places, values, height=height * 0.86, color=colour, label=shorten(split, 20), edgecolor=theme.paper,
            linewidth=0, hatch=HATCHES[number % len(HATCHES)],
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), shorten_names(labels, 22))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlabel("share of the split (%)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=4, columnspacing=1.4, handletextpad=0.5)
    return figure


def draw_budget(theme: Theme, *, plan: Plan) -> Figure:
    """Draw the trainable parameters of every layer by kind, and those of the head and the biases."""
    layers: dict[int, dict[str, int]] = {}
    for module in sorted(plan.modules, key=lambda module: module.layer):
        parts = layers.setdefault(module.layer, {})
        parts[module.kind] = parts.get(module.kind, 0) + module.params
    others = {"head": plan.head_params} | ({"biases": plan.bias_params} if plan.bias_params else {})
    rows = [*(f"layer {layer}" for layer in layers), *others]
    figure, axes = new_figure(9.2, 1.0 + 0.24 * len(rows))
    found = {kind for parts in layers.values() for kind in parts}
    kinds = [kind for kind in KIND_NAMES if kind in found] + sorted(found - set(KIND_NAMES))
    totals = np.zeros(len(rows))
    for kind in kinds:
        values = np.array([*(parts.get(kind, 0) for parts in layers.values()), *(0 for _ in others)], np.float64)
        axes.barh(
            range(len(rows)), values, left=totals, height=0.72, label=KIND_NAMES.get(kind, shorten(kind, 24)),
            color=theme.series[list(KIND_NAMES).index(kind) if kind in KIND_NAMES else 0],
            edgecolor=theme.paper, linewidth=0.8,
        )  # fmt: skip
        totals += values
    for place, params in enumerate(others.values(), start=len(layers)):
        totals[place] = params
        axes.barh(place, params, color=theme.muted, height=0.72)
    for place, total in enumerate(totals):
        axes.annotate(count(total), (total, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.margins(x=0.09, y=0.02)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.set_xlabel("trainable parameters")
    if kinds:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.01), ncols=6, columnspacing=1.4, handletextpad=0.5, handlelength=0.9
        )
    return figure


def list_confusion_plots(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> dict[str, Plot]:
    """Return the confusion matrices of one evaluated split under ``confusion`` and ``confusion-counts``."""
    if not confusion:
        return {}
    counts = np.asarray(confusion, dtype=np.int64)
    is_wide = len(counts) > MAX_NARROW_CLASSES
    names = shorten_names(labels, 40)
    wrong = counts - np.diag(np.diag(counts))
    order = [divmod(int(cell), len(counts)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    worst = [f"{names[a]} taken for {names[b]} {count(wrong[a, b])} times" for a, b in order if wrong[a, b]]
    alt = f"{count(np.trace(counts))} of {count(counts.sum())} are right. " + "; ".join(worst)
    kinds = (
        ("confusion", "Confusion matrix, by true class", True, "Percent of each true class, its count beneath."),
        ("confusion-counts", "Confusion matrix, counts", False, "Records; darker is more."),
    )
    return {
        name: Plot(
            name,
            title,
            f"{caption} Blue is right, orange is wrong.",
            partial(draw_confusion, confusion=confusion, labels=labels, is_share=is_share),
            wide=is_wide,
            alt=alt,
        )
        for name, title, is_share, caption in kinds
    }


def budget_plot(plan: Plan) -> Plot:
    """Return the picture of where the trainable parameters are, layer by layer."""
    said = "; ".join(f"{name} {count(params)}" for name, params in plan.parts)
    caption = (
        f"Layer by layer; {count(plan.budget - plan.trainable_params)} of the budget of {count(plan.budget)} are left."
    )
    alt = f"Parameters by part: {said}."
    return Plot("budget", "Where the budget goes", caption, partial(draw_budget, plan=plan), wide=True, alt=alt)
