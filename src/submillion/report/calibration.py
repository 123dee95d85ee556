"""How far probabilities hold: reliability of the whole and of each class, and accuracy when it may abstain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from submillion.metrics.stats import wilson_interval
from submillion.report.formatting import percent, shorten, shorten_names
from submillion.report.theme import MARKERS, Plot, Theme, new_figure, new_grid
from submillion.run.figures import SetFigures
from submillion.run.predictions import FloatArray, Predictions

NUM_WIDTH_BINS = 10
MAX_PANELS = 12


@dataclass(frozen=True)
class ClassReliability:
    """How often a class is true where it was given some probability.

    Attributes:
        label: The class.
        probability: Mean probability in each bin that holds rows, shape (k,).
        share: Share of rows of the class in it, shape (k,).
        intervals: 95 % intervals of the shares, shape (k, 2).
        num_records: Rows in it, shape (k,).
        error: Mean distance of the two over all rows.
    """

    label: str
    probability: FloatArray
    share: FloatArray
    intervals: FloatArray
    num_records: FloatArray
    error: float


def measure_class_reliability(predictions: Predictions, labels: Sequence[str]) -> list[ClassReliability]:
    """Return the reliability of every class, one against the rest, in ten bins of equal width.

    Source: M. Kull et al., "Beyond temperature scaling: obtaining well-calibrated multiclass probabilities with
    Dirichlet calibration", NeurIPS 2019, section 2 (classwise calibration). Bins are of equal width, since a class has
    a probability near zero on most rows, and bins of equal mass would nearly all lie there.

    Args:
        predictions: Predictions of one split, at least one row.
        labels: Class names in label order.
    """
    found = []
    for label_id, label in enumerate(labels):
        given = predictions.probabilities[:, label_id]
        true = predictions.labels == label_id
        bins = np.minimum((given * NUM_WIDTH_BINS).astype(np.int64), NUM_WIDTH_BINS - 1)
        totals = np.bincount(bins, minlength=NUM_WIDTH_BINS)
        held = np.flatnonzero(totals)
        mean = np.bincount(bins, given, NUM_WIDTH_BINS)[held] / totals[held]
        right = np.bincount(bins, true.astype(np.float64), NUM_WIDTH_BINS)[held]
        share = right / totals[held]
        intervals = np.array([wilson_interval(int(n), int(m)) for n, m in zip(right, totals[held], strict=True)])
        error = float((np.abs(mean - share) * totals[held]).sum() / len(given))
        found.append(ClassReliability(label, mean, share, intervals, totals[held].astype(np.float64), error))
    return found


def _draw_perfect(axes: Axes, theme: Theme, start: float = 0.0) -> None:
    axes.plot(
        [start, 1], [start, 1], color=theme.muted, linewidth=0.9, linestyle=(0, (4, 3)), label="perfect", zorder=0
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    axes.set_aspect("equal")


def draw_reliability(theme: Theme, *, result: SetFigures) -> Figure:
    """Draw accuracy against confidence in bins of equal mass, before and after temperature."""
    figure, axes = new_figure(4.4, 3.8)
    before, after = result.get("reliability_raw", []), result.get("reliability", [])
    lowest = 1.0
    for bins, label, colour in ((before, "before temperature", 1), (after, "after temperature", 0)):
        if not bins:
            continue
        confidence = [part["confidence"] for part in bins]
        accuracy = [part["accuracy"] for part in bins]
        lowest = min(lowest, *confidence, *accuracy)
        axes.plot(
            confidence, accuracy, color=theme.series[colour], marker=MARKERS[colour], markersize=4.5, linewidth=1.2,
            label=label, markerfacecolor=theme.paper if colour else theme.series[colour],
        )  # fmt: skip
    _draw_perfect(axes, theme, max(0.0, float(np.floor(lowest * 10) / 10)))
    axes.margins(0.03)
    axes.set_xlabel("mean confidence (%)")
    axes.set_ylabel("accuracy (%)")
    axes.legend(loc="upper left")
    return figure


def draw_class_reliability(theme: Theme, *, classes: Sequence[ClassReliability]) -> Figure:
    """Draw one small reliability diagram a class: how often it was true against the probability it was given."""
    figure, panels = new_grid(len(classes), columns=4, width=9.2, height=2.35)
    names = shorten_names([entry.label for entry in classes], 24)
    for axes, entry, name in zip(panels, classes, names, strict=True):
        _draw_perfect(axes, theme)
        ends = np.clip(np.abs(entry.intervals.T - entry.share), 0, None)
        axes.errorbar(
            entry.probability,
            entry.share,
            ends,
            fmt="none",
            color=theme.series[0],
            ecolor=theme.series[0],
            elinewidth=1.1,
            alpha=0.6,
        )
        axes.plot(entry.probability, entry.share, color=theme.series[0], linewidth=0.9, zorder=3)
        sizes = 8 + 40 * entry.num_records / entry.num_records.max()
        axes.scatter(entry.probability, entry.share, s=sizes, color=theme.series[0], edgecolor=theme.paper, zorder=4)
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.set_title(f"{name}\nerror {percent(entry.error)}", fontsize=8.5, color=theme.ink)
    figure.supxlabel("mean probability given to the class (%)", fontsize=8.5, color=theme.muted)
    figure.supylabel("share of records of the class (%)", fontsize=8.5, color=theme.muted)
    return figure


def draw_coverage(theme: Theme, *, predictions: Predictions) -> Figure:
    """Draw the accuracy of the most confident share of the rows against that share."""
    order = np.argsort(-predictions.confidence, kind="stable")
    accuracy = predictions.right[order].cumsum() / np.arange(1, len(order) + 1)
    share = np.arange(1, len(order) + 1) / len(order)
    kept = np.unique(np.linspace(max(1, len(order) // 50), len(order), 300).round().astype(int)) - 1
    figure, axes = new_figure(4.4, 3.8)
    axes.plot(100 * share[kept], 100 * accuracy[kept], color=theme.series[0], marker="o" if len(kept) == 1 else None)
    axes.fill_between(100 * share[kept], 100 * accuracy[kept], 100, color=theme.series[1], alpha=0.14, linewidth=0)
    axes.set_xlim(0, 102)
    axes.set_xlabel("share of records answered, most confident first (%)")
    axes.set_ylabel("accuracy among them (%)")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    return figure


def list_calibration_plots(
    result: SetFigures, labels: Sequence[str], predictions: Predictions | None
) -> dict[str, Plot]:
    """Return the plots of one evaluated split under ``reliability``, ``class-reliability`` and ``coverage``."""
    plots = {}
    if result.get("reliability"):
        plots["reliability"] = Plot(
            "reliability",
            "Reliability",
            "Fifteen bins of equal mass. Below the dashed line the model is too sure, above it too modest.",
            partial(draw_reliability, result=result),
            alt=f"Expected calibration error {percent(result['ece_raw'])} before temperature, "
            f"{percent(result['ece'])} after it.",
        )
    if predictions is None or not len(predictions.ids):
        return plots
    classes = measure_class_reliability(predictions, labels)
    worst = sorted(classes, key=lambda entry: -entry.error)[:MAX_PANELS] if len(classes) > MAX_PANELS else classes
    some = f" Of {len(classes)} classes, the {MAX_PANELS} with the largest errors." if len(classes) > MAX_PANELS else ""
    plots["class-reliability"] = Plot(
        "class-reliability",
        "Reliability of each class",
        "After temperature, each class against the rest, in bins of a tenth; bars are 95\u202f% intervals, larger dots "
        f"hold more records.{some}",
        partial(draw_class_reliability, classes=worst),
        wide=True,
        alt="Mean distance of probability and share: "
        + ", ".join(f"{shorten(entry.label, 40)} {percent(entry.error)}" for entry in worst)
        + ".",
    )
    answered = [100 * point["coverage"] for point in result.get("coverage", [])]
    right = [percent(point["accuracy"]) for point in result.get("coverage", [])]
    plots["coverage"] = Plot(
        "coverage",
        "Accuracy when it may abstain",
        "Read from the left: answering only its surest records, how often is it right?",
        partial(draw_coverage, predictions=predictions),
        alt=" ".join(f"{a:.0f} percent answered: {b} right." for a, b in zip(answered, right, strict=True)),
    )
    return plots
