"""The page of a budget curve: its plot, its table as HTML and CSV, and the tests between neighbours."""

from __future__ import annotations

import csv
import io
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from submillion.report.formatting import shorten
from submillion.report.templates import render_page
from submillion.report.theme import Plot, Theme, new_figure, render_png
from submillion.storage.files import write_bytes, write_text
from submillion.storage.json_shapes import JsonView


def write_budget_page(folder: Path, figures: JsonView) -> Path:
    """Write ``curve.html``, ``curve.png`` and ``curve.csv`` into a folder.

    Args:
        folder: Where to.
        figures: Content of ``curve.json``, as `submillion.budget_curve.measure` writes it.

    Returns:
        The page.
    """
    plot = budget_curve_plot(figures)
    image = render_png(plot)
    write_bytes(folder / "curve.png", image)
    write_text(folder / "curve.csv", _spell_csv(figures))
    page = folder / "curve.html"
    write_text(page, render_page("curve.html", figures=figures, plot=plot))
    return page


def budget_curve_plot(figures: JsonView) -> Plot:
    """Return accuracy against trainable parameters on a logarithmic axis."""
    num_seeds = len(figures["seeds"])
    over = "One seed; the 95 % interval is about other records, not about other seeds."
    if num_seeds > 1:
        over = f"Mean of {num_seeds} seeds with its 95 % interval; faint points beside it are single seeds."
    title = f"Accuracy against trainable parameters: {shorten(figures['recipe'], 40)}"
    return Plot("curve", title, over, partial(draw_budget_curve, figures=figures), wide=True)


def draw_budget_curve(theme: Theme, *, figures: JsonView) -> Figure:
    """Draw one point a budget where its parameters really are, its interval, and the single seeds behind it."""
    figure, axes = new_figure(9.2, 3.6)
    points = figures["points"]
    places = [point["trainable_params"] for point in points]
    means = [100 * point["accuracy"] for point in points]
    colour = theme.series[0]
    if len(figures["seeds"]) > 1:
        for point in points:
            singles = [100 * accuracy for accuracy in point["accuracies"]]
            axes.plot(
                [0.965 * point["trainable_params"]] * len(singles), singles, linestyle="none", marker="o", markersize=4,
                color=colour, alpha=0.35, markeredgewidth=0,
            )  # fmt: skip
    for place, point in zip(places, points, strict=True):
        axes.plot([place, place], [100 * end for end in point["accuracy_interval"]], color=colour, linewidth=2)
    axes.plot(places, means, color=colour, linewidth=1.2, marker="o", markersize=6, markeredgecolor=theme.paper)
    for place, mean in zip(places, means, strict=True):
        axes.annotate(f"{mean:.2f}", (place, mean), xytext=(8, -3), textcoords="offset points", va="top", fontsize=8)
    if figures["baseline"] is not None:
        level = 100 * figures["baseline"]
        axes.axhline(level, color=theme.series[1], linewidth=1.1, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate(
            f"TF-IDF and linear SVM, {level:.2f}", (0, level), xycoords=("axes fraction", "data"), xytext=(4, 4),
            textcoords="offset points", color=theme.series[1], fontsize=8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.09, y=0.12)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([point["budget"] for point in points])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shorten_count(value)))
    axes.grid(visible=True, axis="x")
    axes.set_xlabel("trainable parameters, logarithmic; the lines are the budgets")
    axes.set_ylabel(f"accuracy on {figures['split']} (%)")
    return figure


def shorten_count(value: float) -> str:
    """Return 10000 as ``10k`` and 1500000 as ``1.5M``."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.0f}"


def _spell_csv(figures: JsonView) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    seeds = [f"accuracy_seed_{seed}" for seed in figures["seeds"]]
    writer.writerow(["budget", "trainable_params", "accuracy", "accuracy_low", "accuracy_high", *seeds])
    for point in figures["points"]:
        ends = point["accuracy_interval"]
        writer.writerow([point["budget"], point["trainable_params"], point["accuracy"], *ends, *point["accuracies"]])
    return stream.getvalue()
