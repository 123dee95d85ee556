"""Reports on runs: self-contained pages, plots as PNG and for notebooks, and the model card."""

from __future__ import annotations

from submillion.report.card import write_card
from submillion.report.inline_plots import (
    plot_accuracies,
    plot_budget,
    plot_confusion,
    plot_curves,
    plot_lengths,
    plot_reliability,
)
from submillion.report.write import write_report

__all__ = [
    "plot_accuracies",
    "plot_budget",
    "plot_confusion",
    "plot_curves",
    "plot_lengths",
    "plot_reliability",
    "write_card",
    "write_report",
]
