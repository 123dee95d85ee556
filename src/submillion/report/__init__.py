"""Reports on runs: self-contained pages, plots as PNG and for notebooks, and the model card."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {"write_card": "card", "write_report": "write"}

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


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use: whoever formats a number need not wait for the drawing library."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"submillion.report.{_MODULES.get(name, 'inline_plots')}"), name)


def __dir__() -> list[str]:
    """Name what there is, for completion in a notebook."""
    return list(__all__)
