"""Pictures of results: where a model errs, how far its probabilities hold, where its parameters are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from submillion.report.load import FloatArray, LoadedRun, Predictions
from submillion.report.theme import Plot, Theme, new_figure
from submillion.report.words import count, percent, shorten

MAX_NAMED_CLASSES = 40
MAX_COUNTED_CLASSES = 12
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
        group: What it stands under, such as a split.
        label: Whose figure it is.
        value: The estimate.
        interval: Its 95 % interval.
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


def draw_confusion(theme: Theme, *, confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> Figure:
    """Draw a confusion matrix: shade and percentage by row, counts beneath."""
    counts = np.asarray(confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(counts)
    figure, axes = new_figure(4.4, 3.8)
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = float(shares[row, column])
        colour = theme.series[0] if row == column else theme.series[1]
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=0.06 + 0.94 * share**0.8, linewidth=0)
        )
    if size <= MAX_COUNTED_CLASSES:
        for row in range(size):
            for column in range(size):
                ink = theme.paper if shares[row, column] > 0.45 else theme.ink
                scale = min(1.0, 5 / size)
                axes.text(
                    column, row - 0.03, f"{100 * shares[row, column]:.1f}", ha="center", va="bottom", color=ink,
                    fontsize=3.5 + 8 * scale, fontweight="bold" if row == column else "normal",
                )  # fmt: skip
                axes.text(
                    column, row + 0.09, count(counts[row, column]), ha="center", va="top", color=ink,
                    fontsize=2.5 + 5.5 * scale,
                )  # fmt: skip
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    if size <= MAX_NAMED_CLASSES:
        names = [shorten(name, 18) for name in labels]
        small = 8 if size <= MAX_COUNTED_CLASSES else 5
        upright = size > 6 or max(len(name) for name in names) > 12
        axes.set_xticks(
            range(size), names, fontsize=small, rotation=45 if upright else 0, ha="right" if upright else "center"
        )
        axes.set_yticks(range(size), names, fontsize=small)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


def draw_reliability(theme: Theme, *, result: Mapping[str, Any]) -> Figure:
    """Draw accuracy against confidence in bins of equal mass, before and after temperature."""
    figure, axes = new_figure(4.4, 3.8)
    kinds = (("reliability_raw", "before temperature", 1, "none"), ("reliability", "after temperature", 0, None))
    lowest = 1.0
    for key, label, colour, face in kinds:
        bins = result.get(key) or []
        if not bins:
            continue
        confidence = [part["confidence"] for part in bins]
        accuracy = [part["accuracy"] for part in bins]
        lowest = min(lowest, *confidence, *accuracy)
        axes.plot(
            confidence, accuracy, color=theme.series[colour], marker="o", markersize=4.5, linewidth=1.2, label=label,
            markerfacecolor=theme.series[colour] if face is None else theme.paper,
        )  # fmt: skip
    start = max(0.0, np.floor(lowest * 10) / 10)
    axes.plot(
        [start, 1], [start, 1], color=theme.muted, linewidth=0.9, linestyle=(0, (4, 3)), label="perfect", zorder=0
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    axes.set_aspect("equal")
    axes.margins(0.03)
    axes.set_xlabel("mean confidence (%)")
    axes.set_ylabel("accuracy (%)")
    axes.legend(loc="upper left")
    return figure


def draw_coverage(theme: Theme, *, predictions: Predictions) -> Figure:
    """Draw the accuracy of the most confident share of the rows against that share."""
    order = np.argsort(-predictions.confidence, kind="stable")
    accuracy = predictions.right[order].cumsum() / np.arange(1, len(order) + 1)
    share = np.arange(1, len(order) + 1) / len(order)
    kept = np.unique(np.linspace(max(1, len(order) // 50), len(order), 300).round().astype(int)) - 1
    figure, axes = new_figure(4.4, 3.8)
    axes.plot(100 * share[kept], 100 * accuracy[kept], color=theme.series[0])
    axes.fill_between(100 * share[kept], 100 * accuracy[kept], 100, color=theme.series[1], alpha=0.14, linewidth=0)
    axes.set_xlim(0, 102)
    axes.set_xlabel("share of records answered, most confident first (%)")
    axes.set_ylabel("accuracy among them (%)")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    return figure


def draw_lengths(theme: Theme, *, edges: FloatArray, counts: FloatArray, unit: str, limit: int | None) -> Figure:
    """Draw a histogram of text lengths in tokens or words, and the model's limit."""
    figure, axes = new_figure()
    axes.bar(
        edges[:-1],
        counts,
        width=np.diff(edges),
        align="edge",
        color=theme.series[0],
        edgecolor=theme.paper,
        linewidth=0.6,
    )
    if limit is not None:
        axes.axvline(limit, color=theme.series[1], linewidth=1.2)
        axes.annotate(
            f"cut at {limit:,}", (limit, 1), xycoords=("data", "axes fraction"), xytext=(-5, -4), ha="right", va="top",
            textcoords="offset points", color=theme.series[1], fontsize=8,
        )  # fmt: skip
    axes.set_xlabel(f"{unit} of a text")
    axes.set_ylabel("records")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    return figure


def draw_balance(theme: Theme, *, balance: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw the share of every class in every split."""
    labels = list(dict.fromkeys(label for counts in balance.values() for label in counts))
    figure, axes = new_figure(4.4, 0.9 + 0.3 * len(labels) * max(1, len(balance) * 0.5))
    height = 0.8 / len(balance)
    for number, (split, counts) in enumerate(balance.items()):
        total = max(1, sum(counts.values()))
        places = np.arange(len(labels)) + (number - (len(balance) - 1) / 2) * height
        values = [100 * counts.get(label, 0) / total for label in labels]
        colour = theme.series[number % len(theme.series)]
        axes.barh(places, values, height=height * 0.86, color=colour, label=shorten(split, 20))
    axes.set_yticks(range(len(labels)), [shorten(label, 22) for label in labels])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlabel("share of the split (%)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=4, columnspacing=1.4, handletextpad=0.5)
    return figure


def draw_plan(theme: Theme, *, plan: Mapping[str, Any]) -> Figure:
    """Draw the trainable parameters of every layer by kind, and those of the head and the biases."""
    layers: dict[str, dict[str, int]] = {}
    for module in plan.get("modules") or []:
        layer = module.get("layer")
        row = "other" if layer is None else f"layer {layer}"
        parts = layers.setdefault(row, {})
        kind = str(module.get("kind", "other"))
        parts[kind] = parts.get(kind, 0) + int(module["params"])
    order = sorted(layers, key=lambda row: (row == "other", int(row[6:]) if row != "other" else 0))
    rows = [*order, "head", *(["biases"] if plan.get("bias_params") else [])]
    figure, axes = new_figure(9.2, 1.0 + 0.24 * len(rows))
    found = {kind for parts in layers.values() for kind in parts}
    kinds = [kind for kind in KIND_NAMES if kind in found] + sorted(found - set(KIND_NAMES))
    totals = np.zeros(len(rows))
    for kind in kinds:
        values = np.array([layers.get(row, {}).get(kind, 0) for row in rows], dtype=np.float64)
        position = list(KIND_NAMES).index(kind) if kind in KIND_NAMES else 0
        colour = theme.series[position]
        label = KIND_NAMES.get(kind, shorten(kind, 24))
        axes.barh(
            range(len(rows)),
            values,
            left=totals,
            color=colour,
            height=0.72,
            label=label,
            edgecolor=theme.paper,
            linewidth=0.8,
        )
        totals += values
    for name in ("head", "biases"):
        if name in rows:
            totals[rows.index(name)] = plan.get(f"{name}_params" if name == "head" else "bias_params", 0)
            axes.barh(rows.index(name), totals[rows.index(name)], color=theme.muted, height=0.72)
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


def list_split_plots(
    result: Mapping[str, Any], labels: Sequence[str], predictions: Predictions | None
) -> dict[str, Plot]:
    """Return the plots of one evaluated split under ``confusion``, ``reliability`` and ``coverage``."""
    plots = {}
    if result.get("confusion"):
        plots["confusion"] = Plot(
            "confusion",
            "Confusion matrix",
            "Percent of each true class, its count beneath; blue is right, orange is wrong.",
            partial(draw_confusion, confusion=result["confusion"], labels=labels),
        )
    if result.get("reliability"):
        plots["reliability"] = Plot(
            "reliability",
            "Reliability",
            "Fifteen bins of equal mass. Below the dashed line the model is too sure, above it too modest.",
            partial(draw_reliability, result=result),
        )
    if predictions is not None and len(predictions.ids):
        plots["coverage"] = Plot(
            "coverage",
            "Accuracy when it may abstain",
            "Read from the left: answering only its surest records, how often is it right?",
            partial(draw_coverage, predictions=predictions),
        )
    return plots


def plan_plot(run: LoadedRun) -> Plot:
    """Return the picture of where the trainable parameters are."""
    return Plot("plan", "Trainable parameters by layer", "", partial(draw_plan, plan=run.plan), wide=True)
