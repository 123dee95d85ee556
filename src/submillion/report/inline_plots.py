"""The plots of a report as matplotlib figures, for notebooks and for files of any kind (``figure.savefig``).

Each function takes a run as `submillion.train` returns it, the folder of one, or what `open_run` takes of other
trainers. Figures are in light colours and show themselves as the last line of a notebook cell.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from matplotlib.figure import Figure

from submillion.budget.plan import Plan
from submillion.errors import RunError
from submillion.report.calibration import list_calibration_plots
from submillion.report.comparison import accuracy_plot
from submillion.report.curves import list_curves, list_overlaid_curves
from submillion.report.data_plots import list_data_plots
from submillion.report.plots import budget_plot, list_confusion_plots
from submillion.report.run_page import result_plot
from submillion.report.theme import Plot, draw_figure, draw_figures
from submillion.report.trainer_state import open_run
from submillion.run.history import RunHistory, name_runs
from submillion.run.predictions import read_predictions


class FinishedRun(Protocol):
    """Anything with the folder of a run, such as what `submillion.train` returns."""

    @property
    def run(self) -> Path:
        """The run folder."""


Run: TypeAlias = "str | os.PathLike[str] | FinishedRun"


def plot_curves(*runs: Run, names: Sequence[str] = ()) -> Figure:
    """Return the training curves of a run in one figure, or those of several laid over each other.

    Args:
        runs: One or more.
        names: Which curves, by the names of their PNG files, such as ``loss`` and ``accuracy``; all if empty.

    Raises:
        RunError: No run, one that cannot be read, one without curves, or a name that none of its curves has.
    """
    loaded = [_open(run) for run in runs]
    if not loaded:
        raise RunError("no run given", hint="Give at least one run folder.")
    plots = list_curves(loaded[0]) if len(loaded) == 1 else list_overlaid_curves(name_runs(loaded))
    where = str(loaded[0].path)
    if not plots:
        raise RunError("its log holds no training steps, so there are no curves", where=where)
    known = {plot.name: plot for plot in plots}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RunError(f"has no curve {unknown[0]!r}", where=where, hint=f"There are: {', '.join(known)}.")
    return draw_figures([known[name] for name in names] or plots)


def plot_accuracies(*runs: Run) -> Figure:
    """Return accuracies with their 95 % intervals: of one run with its baseline and training rows, or of several.

    Raises:
        RunError: No run, one that cannot be read, or none that was evaluated.
    """
    loaded = [_open(run) for run in runs]
    if not loaded:
        raise RunError("no run given", hint="Give at least one run folder.")
    plot = result_plot(loaded[0]) if len(loaded) == 1 else accuracy_plot(name_runs(loaded))
    return draw_figure(_require(plot, loaded[0], "it has not been evaluated"))


def plot_confusion(run: Run, *, split: str | None = None, counts: bool = False) -> Figure:
    """Return the confusion matrix of an evaluated split.

    Args:
        run: The run.
        split: Split or watched set; test, else validation, if None.
        counts: Records alone; otherwise percent of each true class with the records beneath.

    Raises:
        RunError: The run cannot be read or has no such split.
    """
    loaded = _open(run)
    plots = list_confusion_plots(loaded.results[_choose_split(loaded, split)]["confusion"], loaded.labels)
    return draw_figure(_require(plots.get("confusion-counts" if counts else "confusion"), loaded, "it has no matrix"))


def plot_reliability(run: Run, *, split: str | None = None, by_class: bool = False) -> Figure:
    """Return the reliability diagram of an evaluated split, or one for each of its classes.

    Args:
        run: The run.
        split: Split or watched set; test, else validation, if None.
        by_class: One small diagram a class; needs the split's predictions.

    Raises:
        RunError: The run cannot be read, or has no such split or no predictions of it.
    """
    loaded = _open(run)
    name = _choose_split(loaded, split)
    predictions = read_predictions(loaded.path, name) if by_class else None
    plots = list_calibration_plots(loaded.results[name], loaded.labels, predictions)
    wanted = "class-reliability" if by_class else "reliability"
    return draw_figure(_require(plots.get(wanted), loaded, f"it keeps no predictions of {name}"))


def plot_lengths(run: Run) -> Figure:
    """Return the histogram of text lengths with the model's limit.

    Raises:
        RunError: The run cannot be read, or no lengths were measured.
    """
    loaded = _open(run)
    plots = {plot.name: plot for plot in list_data_plots(loaded)}
    return draw_figure(_require(plots.get("lengths"), loaded, "its data.json holds no lengths"))


def plot_budget(run: Run | Plan) -> Figure:
    """Return where the trainable parameters go, layer by layer.

    Args:
        run: A run, or a plan of `submillion.plan`.

    Raises:
        RunError: The run cannot be read or has no plan.
    """
    if isinstance(run, Plan):
        return draw_figure(budget_plot(run))
    loaded = _open(run)
    return draw_figure(_require(budget_plot(loaded.plan) if loaded.plan else None, loaded, "it has no plan"))


def _open(run: Run) -> RunHistory:
    return open_run(Path(run) if isinstance(run, (str, os.PathLike)) else run.run)


def _choose_split(run: RunHistory, split: str | None) -> str:
    name = run.main_split if split is None else split
    if name is None or name not in run.results:
        known = f"There are: {', '.join(run.results)}." if run.results else "Nothing has been evaluated yet."
        missing = "no evaluated split" if name is None else f"no evaluated split {name!r}"
        raise RunError(f"has {missing}", where=str(run.path), hint=known)
    return name


def _require(plot: Plot | None, run: RunHistory, reason: str) -> Plot:
    if plot is None:
        raise RunError(
            f"cannot be drawn: {reason}", where=str(run.path), hint="See docs/reports.md for what needs what."
        )
    return plot
