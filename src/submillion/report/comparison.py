"""A report on several runs: their figures, curves laid over each other, and paired tests on the sets they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from submillion.config.nested import flatten
from submillion.metrics.evaluate import Comparison, compare_correct
from submillion.report.curves import list_overlaid_curves
from submillion.report.formatting import setting
from submillion.report.plots import Estimate, interval_plot
from submillion.report.templates import render_page
from submillion.report.theme import Plot
from submillion.report.validations import summarise_validations
from submillion.run.history import RunHistory
from submillion.run.predictions import Predictions, read_predictions


@dataclass(frozen=True)
class PairedTest:
    """A paired test of two runs, by their titles, on a set that both have scored."""

    split: str
    first: str
    second: str
    found: Comparison


@dataclass(frozen=True)
class Untested:
    """Two runs that are not compared on a set, and why."""

    split: str
    names: str
    reason: str


def build_comparison(runs: Sequence[RunHistory]) -> tuple[str, list[Plot]]:
    """Return the page on several runs, and its plots."""
    accuracies = accuracy_plot(runs)
    curves = list_overlaid_curves(runs)
    tests, untested = pair_runs(runs)
    ours = [run for run in runs if run.is_ours]  # others do not say how they were set
    splits = list_splits(runs)
    page = render_page(
        "comparison.html",
        runs=runs,
        splits=splits,
        ahead=[(split, _find_best(runs, split)) for split in splits],
        accuracies=accuracies,
        curves=curves,
        tests=tests,
        untested=untested,
        has_theirs=len(ours) < len(runs),
        validations=summarise_validations(runs),
        ours=[run.title for run in ours],
        settings=list_differences(ours) if len(ours) > 1 else None,
    )
    return page, [*([accuracies] if accuracies else []), *curves]


def list_splits(runs: Sequence[RunHistory]) -> list[str]:
    """Return the sets that at least one run was evaluated on: test and validation first."""
    return list(dict.fromkeys(split for run in runs for split in run.results))


def _find_best(runs: Sequence[RunHistory], split: str) -> RunHistory:
    return max((run for run in runs if split in run.results), key=lambda run: run.results[split]["accuracy"])


def accuracy_plot(runs: Sequence[RunHistory]) -> Plot | None:
    """Return the accuracies of all runs on all sets, with their intervals."""
    estimates = [
        Estimate(split, run.title, run.results[split]["accuracy"], run.results[split]["accuracy_interval"], number)
        for split in list_splits(runs)
        for number, run in enumerate(runs)
        if split in run.results
    ]
    return interval_plot(estimates) if estimates else None


def _match(first: Predictions, second: Predictions) -> NDArray[np.int64] | str:
    """Return the places of the first one's records in the second, or why they are not the same records."""
    if len(set(first.ids)) != len(first.ids) or len(set(second.ids)) != len(second.ids):
        return "record ids repeat"
    if set(first.ids) != set(second.ids):
        return f"their record ids differ ({len(first.ids):,} and {len(second.ids):,} records)"
    place = {record_id: number for number, record_id in enumerate(second.ids)}
    order = np.array([place[record_id] for record_id in first.ids], dtype=np.int64)
    different = int((first.labels != second.labels[order]).sum())
    return f"{different:,} of their labels differ" if different else order


def pair_runs(runs: Sequence[RunHistory]) -> tuple[list[PairedTest], list[Untested]]:
    """Return paired tests of every two runs on every set, and the pairs that do not hold the same rows of one."""
    tests: list[PairedTest] = []
    untested: list[Untested] = []
    for split in list_splits(runs):
        known = [(run, read_predictions(run.path, split)) for run in runs]
        for (first, left), (second, right) in combinations(known, 2):
            if not (first.is_ours and second.is_ours):
                continue
            names = f"{first.title} and {second.title}"
            if left is None or right is None:
                untested.append(Untested(split, names, "not both hold predictions of it"))
                continue
            order = _match(left, right)
            if isinstance(order, str):
                untested.append(Untested(split, names, order))
                continue
            found = compare_correct(left.right, right.right[order])
            tests.append(PairedTest(split, first.title, second.title, found))
    return tests, untested


def list_differences(runs: Sequence[RunHistory]) -> list[list[str]]:
    """Return the settings in which runs differ: the dotted path, and what each run has."""
    flat = [flatten(run.config.model_dump(mode="json")) for run in runs if run.config is not None]
    paths = dict.fromkeys(path for settings in flat for path in settings if path != "about")
    rows = [[path, *(setting(settings.get(path)) for settings in flat)] for path in paths]
    return [row for row in rows if len(set(row[1:])) > 1]
