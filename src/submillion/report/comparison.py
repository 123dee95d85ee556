"""A report on several runs: their figures, curves laid over each other, and paired tests on the sets they share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from submillion.config.nested import flatten
from submillion.metrics.evaluate import compare_correct
from submillion.report import headline, words
from submillion.report.html import Child, Html, element, render, table
from submillion.report.page import Section, paragraph, show_plot, show_plots
from submillion.report.plots import Estimate
from submillion.report.plots import interval_plot as join_estimates
from submillion.report.theme import Plot
from submillion.report.validations import compare_validations
from submillion.run.history import LoadedRun, Predictions, read_predictions

DASH = "\N{EN DASH}"


def list_splits(runs: Sequence[LoadedRun]) -> list[str]:
    """Return the sets that at least one run was evaluated on: test and validation first."""
    return list(dict.fromkeys(split for run in runs for split in run.results))


def interval_plot(runs: Sequence[LoadedRun]) -> Plot | None:
    """Return the accuracies of all runs on all sets, with their intervals."""
    estimates = [
        Estimate(split, run.title, run.results[split]["accuracy"], run.results[split]["accuracy_interval"], number)
        for split in list_splits(runs)
        for number, run in enumerate(runs)
        if split in run.results
    ]
    if not estimates:
        return None
    return join_estimates(estimates)


def show_comparison_heading(runs: Sequence[LoadedRun]) -> Html:
    """Return the title of the page."""
    return element(
        "header",
        paragraph("submillion \N{MIDDLE DOT} comparison of runs", class_="eyebrow"),
        element("h1", f"{len(runs)} runs side by side"),
        paragraph(" \N{MIDDLE DOT} ".join(run.title for run in runs), class_="sub"),
    )


def _run_row(run: LoadedRun, splits: Sequence[str]) -> list[Child]:
    def accuracy(split: str) -> Child:
        result = run.results.get(split)
        if result is None:
            return DASH
        interval = element("small", words.percent_range(result["accuracy_interval"]))
        return render(words.percent(result["accuracy"]), Html("<br>"), interval)

    return [
        render(
            run.title,
            Html("<br>"),
            element(
                "small",
                run.path.resolve().name if run.kind == "run" else "a run of transformers.Trainer",
                class_="faint",
            ),
        ),
        str((run.config.get("model") or {}).get("base", DASH)),
        str(run.config.get("seed", DASH)),
        words.count(run.plan["trainable_params"]) if run.plan else DASH,
        words.duration(run.train_s) if run.train_s is not None else DASH,
        *(accuracy(split) for split in splits),
    ]


def runs_section(runs: Sequence[LoadedRun], plot: Plot | None) -> Section:
    """Return the figures of all runs."""
    splits = list_splits(runs)
    head = ["Run", "Base", "Seed", "Trainable", "Training time", *(f"Accuracy, {split}" for split in splits)]
    rows = [_run_row(run, splits) for run in runs]
    parts: list[Child] = [table(head, rows, numeric=range(2, len(head)))]
    if plot is not None:
        parts.append(show_plot(plot))
    return Section("runs", "Runs", "What they get right", render(parts))


def _match(first: Predictions, second: Predictions) -> NDArray[np.int64] | str:
    if len(set(first.ids)) != len(first.ids) or len(set(second.ids)) != len(second.ids):
        return "record ids repeat"
    if set(first.ids) != set(second.ids):
        return f"their record ids differ ({len(first.ids):,} and {len(second.ids):,} records)"
    place = {record_id: number for number, record_id in enumerate(second.ids)}
    order = np.array([place[record_id] for record_id in first.ids], dtype=np.int64)
    different = int((first.labels != second.labels[order]).sum())
    return f"{different:,} of their labels differ" if different else order


def tests_section(runs: Sequence[LoadedRun]) -> Section:
    """Return paired tests of every two runs on every set that both hold the same rows of."""
    rows: list[list[Child]] = []
    notes: list[str] = []
    for split in list_splits(runs):
        known = [(run, read_predictions(run.path, split)) for run in runs]
        for (first, left), (second, right) in combinations(known, 2):
            if "trainer" in (first.kind, second.kind):
                continue
            names = f"{first.title} and {second.title}"
            if left is None or right is None:
                notes.append(f"{names} are not compared on {split}: not both hold predictions of it.")
                continue
            order = _match(left, right)
            if isinstance(order, str):
                notes.append(f"{names} are not compared on {split}: {order}.")
                continue
            result = compare_correct(left.right, right.right[order])
            low, high = (words.points(end) for end in result.interval)
            rows.append(
                [
                    split,
                    first.title,
                    second.title,
                    render(words.points(result.difference), Html("<br>"), element("small", f"{low} to {high}")),
                    words.p_value(result.mcnemar_p),
                    words.count(result.only_first_right),
                    words.count(result.only_second_right),
                ]
            )
    head = ["Set", "First", "Second", "First minus second, points", "McNemar", "Only first right", "Only second right"]
    text = (
        "Paired by record id: exact McNemar test and bootstrap interval of the difference in accuracy. "
        f"Each of the {len(rows)} tests has a chance of 5\u202f% to call a difference where there is none; "
        "they are not corrected for their number."
        if len(rows) > 1
        else "Paired by record id: exact McNemar test and bootstrap interval of the difference in accuracy."
    )
    if any(run.kind == "trainer" for run in runs):
        notes.append("Runs of transformers.Trainer keep no predictions in their state, so nothing can be paired.")
    content = render(
        paragraph(text, class_="note"),
        table(head, rows, numeric=range(3, 7)) if rows else paragraph("No two runs share a set.", class_="note"),
        [paragraph(note, class_="note") for note in notes],
    )
    return Section("tests", "Paired tests", "Which differences are real", content)


def overlay_section(runs: Sequence[LoadedRun], plots: Sequence[Plot]) -> Section:
    """Return the curves of all runs, and their validations."""
    content = show_plots(plots) if plots else paragraph("None of the logs holds training steps.", class_="note")
    return Section("training", "Training", "How they learned", render(content, compare_validations(runs)))


def settings_section(runs: Sequence[LoadedRun]) -> Section:
    """Return the settings in which the runs differ."""
    runs = [run for run in runs if run.kind == "run"]  # others do not say how they were set
    if len(runs) < 2:
        text = "Settings are compared where two or more of the runs were trained by submillion."
        return Section("settings", "Settings", "Where they were set differently", paragraph(text, class_="note"))
    flat = [flatten(run.config) for run in runs]
    paths = dict.fromkeys(path for settings in flat for path in settings if path != "about")
    rows = [
        [path, *(words.setting(settings.get(path)) for settings in flat)]
        for path in paths
        if len({words.setting(settings.get(path)) for settings in flat}) > 1
    ]
    if rows:
        content = table(["Setting", *(run.title for run in runs)], rows)
    else:
        content = paragraph("Their settings are the same, letter for letter.", class_="note")
    return Section("settings", "Settings", "Where they were set differently", content)


def show_summary(runs: Sequence[LoadedRun]) -> Html:
    """Return which run is ahead where, or that none was evaluated."""
    ahead = []
    for split in list_splits(runs):
        known = [run for run in runs if split in run.results]
        best = max(known, key=lambda run: float(run.results[split]["accuracy"]))
        accuracy = words.percent(best.results[split]["accuracy"])
        ahead.append(f"{best.title} on {headline.name_split(split)} ({accuracy})")
    if not ahead:
        return paragraph("None of these runs has been evaluated yet.", class_="lead")
    text = f"Highest accuracy: {'; '.join(ahead)}. Which of the differences are more than chance stands below."
    return paragraph(text, class_="lead")
