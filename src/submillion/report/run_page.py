"""The report on one run: its plots, and the figures that its page shows beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from submillion.config.nested import flatten
from submillion.data.legibility import describe_legibility, explain_unread
from submillion.data.synthetic import describe_file
from submillion.metrics.stats import subtract_shares
from submillion.report.calibration import list_calibration_plots
from submillion.report.curves import list_curves
from submillion.report.data_plots import list_data_plots
from submillion.report.formatting import setting
from submillion.report.learning import judge_run
from submillion.report.plots import Estimate, budget_plot, interval_plot, list_confusion_plots
from submillion.report.templates import render_page
from submillion.report.theme import Plot
from submillion.report.validations import tabulate_validations
from submillion.run.figures import SetFigures
from submillion.run.history import RunHistory
from submillion.run.predictions import Predictions, read_predictions

NUM_ERRORS = 10
NUM_CONFUSIONS = 6


@dataclass(frozen=True)
class RunPlots:
    """The plots of a run; those that have nothing to show are None or left out.

    Attributes:
        accuracies: Accuracies of model and baseline on every evaluated set.
        curves: Logged figures, per step and epoch.
        by_split: Errors and calibration of the set that the verdict rests on, by name.
        budget: Where the trainable parameters are.
        data: Lengths and classes.
    """

    accuracies: Plot | None = None
    curves: list[Plot] = field(default_factory=list)
    by_split: dict[str, Plot] = field(default_factory=dict)
    budget: Plot | None = None
    data: list[Plot] = field(default_factory=list)

    @property
    def all(self) -> list[Plot]:
        """All of them, in the order of the page."""
        plots = [self.accuracies, *self.curves, *self.by_split.values(), self.budget, *self.data]
        return [plot for plot in plots if plot is not None]


@dataclass(frozen=True)
class Confusion:
    """A kind of error: how many rows of one class were taken for another, and their share of the class."""

    true: str
    found: str
    number: int
    share: float


@dataclass(frozen=True)
class WrongRow:
    """A row that the model got wrong: its class, the one predicted with its probability, its place and its text."""

    true: str
    found: str
    confidence: float
    place: str
    text: str


@dataclass(frozen=True)
class Legibility:
    """How much of the texts reached the model: sentences without full stops, and figures of all texts and classes."""

    told: list[str]
    parts: list[tuple[str, object]]


def build_run_page(run: RunHistory) -> tuple[str, list[Plot]]:
    """Return the page, and its plots."""
    assert run.config is not None, "a run of transformers.Trainer has another page"
    predictions = None if run.main_split is None else read_predictions(run.path, run.main_split)
    plots = list_plots(run, predictions)
    result = None if run.main_split is None else run.results[run.main_split]
    settings = flatten(run.config.model_dump(mode="json"))
    page = render_page(
        "run.html",
        run=run,
        plots=plots,
        verdict=judge_run(run).get("sentences", ()),
        reason=explain_unread(run.data),
        gap=measure_gap(run),
        num_wrong=_count_wrong(result) if result else 0,
        confusions=_list_confusions(result, run.labels) if result else [],
        errors=None if predictions is None else _list_errors(predictions, run.labels),
        synthetic=[describe_file(entry) for entry in run.data.get("extra") or []],
        legibility=_describe_legibility(run),
        validations=tabulate_validations(run),
        settings=[(path, setting(value)) for path, value in settings.items() if path != "about"],
        facts=[] if run.manifest is None else _list_facts(run.manifest.to_json()),
    )
    return page, plots.all


def list_plots(run: RunHistory, predictions: Predictions | None) -> RunPlots:
    """Return all plots of a run."""
    return RunPlots(
        accuracies=result_plot(run),
        curves=list_curves(run),
        by_split=split_plots(run, predictions),
        budget=None if run.plan is None else budget_plot(run.plan),
        data=list_data_plots(run),
    )


def result_plot(run: RunHistory) -> Plot | None:
    """Return the accuracies of model and baseline on every evaluated set, with their intervals."""
    estimates = []
    if run.results and run.train_sample:
        known = run.train_sample
        estimates.append(Estimate("train", "rows it learned", known["accuracy"], known["accuracy_interval"], 3))
    for split, result in run.results.items():
        estimates.append(Estimate(split, "model", result["accuracy"], result["accuracy_interval"], 0))
        baseline = run.baselines.get(split)
        if baseline:
            estimates.append(Estimate(split, "baseline", baseline["accuracy"], baseline["accuracy_interval"], 1))
    return interval_plot(estimates) if estimates else None


def split_plots(run: RunHistory, predictions: Predictions | None) -> dict[str, Plot]:
    """Return the plots of the set that the verdict rests on, by name."""
    if run.main_split is None:
        return {}
    result = run.results[run.main_split]
    confusion = list_confusion_plots(result["confusion"], run.labels)
    return confusion | list_calibration_plots(result, run.labels, predictions)


def measure_gap(run: RunHistory) -> tuple[float, tuple[float, float]] | None:
    """Return accuracy on training rows minus that on validation, with its interval; None where one is not known."""
    known, held_out = run.train_sample, run.results.get("validation")
    if known is None or held_out is None:
        return None
    low, high = known["accuracy_interval"]
    ours = (known["accuracy"], (low, high))
    low, high = held_out["accuracy_interval"]
    return subtract_shares(ours, (held_out["accuracy"], (low, high)))


def _count_wrong(result: SetFigures) -> int:
    counts = np.array(result["confusion"], dtype=np.int64)
    return int(counts.sum() - np.trace(counts))


def _list_confusions(result: SetFigures, labels: Sequence[str]) -> list[Confusion]:
    """Return the most frequent kinds of errors."""
    wrong = np.array(result["confusion"], dtype=np.int64)
    totals = np.maximum(wrong.sum(axis=1), 1)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSIONS]
    cells = [divmod(int(cell), len(wrong)) for cell in order]
    return [
        Confusion(labels[true], labels[found], int(wrong[true, found]), float(wrong[true, found] / totals[true]))
        for true, found in cells
        if wrong[true, found]
    ]


def _list_errors(predictions: Predictions, labels: Sequence[str]) -> list[WrongRow]:
    """Return the wrong rows that the model was surest of."""
    wrong = np.flatnonzero(~predictions.right)
    chosen = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:NUM_ERRORS]
    return [
        WrongRow(
            true=labels[int(predictions.labels[n])],
            found=labels[int(predictions.predicted[n])],
            confidence=float(predictions.confidence[n]),
            place=predictions.sources[n] or f"id {predictions.ids[n]}",
            text=predictions.texts[n],
        )
        for n in chosen.tolist()
    ]


def _describe_legibility(run: RunHistory) -> Legibility | None:
    """Return how much of the texts reached the model; None for runs of versions that did not count it."""
    figures = run.findings.get("legibility") if run.findings else None
    if not figures:
        return None
    told = describe_legibility(figures, what="texts") or ["All tokens are known to the base, and all of them are read"]
    parts: list[tuple[str, object]] = [("all texts", figures), *figures["classes"].items()]
    return Legibility([line.rstrip(".") for line in told], parts)


def _list_facts(manifest: dict[str, object]) -> list[tuple[str, str]]:
    return [(path, setting(value)) for path, value in flatten(manifest).items()]
