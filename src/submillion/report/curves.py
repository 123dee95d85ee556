"""Curves of one run, or of several laid over each other: what each shows, and where in the log it comes from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from submillion.metrics.stats import wilson_interval
from submillion.report.formatting import shorten
from submillion.report.lines import MAX_POINTS, Series, describe_series, draw_series
from submillion.report.theme import Plot
from submillion.run.history import FloatArray, RunHistory

GROUPS = {"adapter_a": "adapter A", "adapter_b": "adapter B", "head": "head", "bias": "biases"}
SHARES = ("accuracy", "precision", "recall", "f1")
AVERAGES = ("macro", "micro", "weighted")
MAX_OTHER_FIGURES, MAX_QUALITY_PLOTS = 8, 4  # The tables have all figures.
SMOOTH_POINTS = 60  # of noisy lines beside others: fewer means, or the lines hide each other
THINNED = "Long lines are means of neighbouring steps; darker shade: most single steps, lighter: all of them."


@dataclass(frozen=True)
class _Candidate:
    """A plot, if it has any series; the last four fields are those of `draw_series`."""

    name: str
    title: str
    caption: str
    series: list[Series]
    ylabel: str
    shares: bool = False
    log: bool = False
    xlabel: str = "optimizer step"


def _evaluated(run: RunHistory, split: str, name: str, *, label: str = "", number: int = 0) -> list[Series]:
    rows = [row for row in run.evaluations.get(split, ()) if np.isfinite(row.figures.get(name, np.nan))]
    if not rows:
        return []
    steps = np.array([row.step for row in rows])
    values = np.array([row.figures[name] for row in rows])
    # Every validation that beat those before it is marked; the last one of them chose the checkpoint.
    marked = [place for place, row in enumerate(rows) if row.is_best]
    return [Series(label, steps, values, number, markers=True, style=number, best=marked[-1] if marked else None)]


def _stepped(run: RunHistory, name: str, label: str, colour: int = 0, *, smooth: bool = False) -> list[Series]:
    if name not in run.steps or not np.isfinite(run.steps[name]).any():
        return []
    max_points = SMOOTH_POINTS if smooth else MAX_POINTS
    return [Series(label, run.steps["step"], run.steps[name], colour, averaged=True, max_points=max_points)]


def _learning_rates(run: RunHistory) -> list[Series]:
    if not run.learning_rates:
        return _stepped(run, "learning_rate", "learning rate")
    groups: list[tuple[list[str], FloatArray]] = []
    for name, values in run.learning_rates.items():
        label = GROUPS.get(name, shorten(name, 24))
        same = [names for names, known in groups if np.array_equal(known, values, equal_nan=True)]
        if same:
            same[0].append(label)
        else:
            groups.append(([label], values))
    return [
        Series(" and ".join(names), run.steps["step"], values, number, style=number)
        for number, (names, values) in enumerate(groups)
    ]


def _speed(run: RunHistory) -> list[Series]:
    if not {"num_records", "step_s"} <= set(run.steps):
        return []
    seconds = np.maximum(run.steps["step_s"], 1e-9)
    return [Series("records", run.steps["step"], run.steps["num_records"] / seconds, 0, averaged=True)]


def _running_accuracy(run: RunHistory) -> list[Series]:
    if not {"num_right", "num_records"} <= set(run.steps):
        return []
    shares = run.steps["num_right"] / np.maximum(run.steps["num_records"], 1)
    return [Series("training", run.steps["step"], shares, 1, averaged=True, max_points=SMOOTH_POINTS)]


def _by_epoch(run: RunHistory) -> list[Series]:
    """Return validation accuracy with its intervals over epochs, and training accuracy between the validations."""
    rows = [row for row in run.evaluations.get("validation", ()) if np.isfinite(row.figures.get("accuracy", np.nan))]
    rows = [row for row in rows if row.epoch is not None]
    if not rows:
        return []
    epochs = np.array([row.epoch for row in rows], dtype=np.float64)
    values = np.array([row.figures["accuracy"] for row in rows])
    intervals = None
    total = run.count_evaluated("validation")
    if total is not None and values.min() >= 0 and values.max() <= 1:
        intervals = np.array([wilson_interval(round(value * total), total) for value in values])
    best = None if run.best is None else next((n for n, row in enumerate(rows) if row.step == run.best.step), None)
    lines = [Series("validation", epochs, values, 0, markers=True, best=best, intervals=intervals)]
    if {"num_right", "num_records"} <= set(run.steps):
        places = np.searchsorted([row.step for row in rows], run.steps["step"])
        inside = places < len(rows)
        right, total_rows = (
            np.bincount(places[inside], run.steps[name][inside], minlength=len(rows))
            for name in ("num_right", "num_records")
        )
        shares = np.divide(right, total_rows, out=np.full(len(rows), np.nan), where=total_rows > 0)
        if np.isfinite(shares).any():
            lines.append(Series("training", epochs, shares, 1, markers=True, style=1))
    return lines


def measured_names(run: RunHistory) -> list[str]:
    """Return the names of all figures that evaluations during training hold, in the order of their appearance."""
    known = dict.fromkeys(name for rows in run.evaluations.values() for row in rows for name in row.figures)
    return [name for name in known if name not in ("loss", "accuracy")]


def is_share_name(name: str) -> bool:
    """Return whether a figure of this name is a precision, recall or F1, whatever its average."""
    return bool(set(SHARES[1:]) & set(name.lower().split("_")))


def name_figure(name: str) -> str:
    """Return the name of a logged figure as a reader wants it: ``macro_f1`` as ``F1``."""
    parts = [part for part in name.split("_") if part not in AVERAGES]
    extra = [part for part in name.split("_") if part in AVERAGES and part != "macro"]
    return shorten(" ".join("F1" if part == "f1" else part for part in [*parts, *extra]), 24)


def _is_within_one(series: Sequence[Series]) -> bool:
    return all(line.values.min() >= 0 and line.values.max() <= 1 for line in series)


def _quality(run: RunHistory) -> list[_Candidate]:
    """Return precision, recall and F1 of the validation rows, six lines a plot, where others log one of each class."""
    splits = ["validation"] if "validation" in run.evaluations else list(run.evaluations)[:1]
    names = [name for name in measured_names(run) if is_share_name(name)]
    found = []
    for part, start in enumerate(range(0, min(len(names), 6 * MAX_QUALITY_PLOTS), 6), start=1):
        lines = [
            replace(line, best=None)
            for number, name in enumerate(names[start : start + 6])
            for split in splits
            for line in _evaluated(run, split, name, label=name_figure(name), number=number)
        ]
        caption = "As logged." if not run.is_ours else "Validation split, unweighted means over the classes."
        figure = "macro average" if run.is_ours else "share"
        more = f"-{part}" if part > 1 else ""
        title = "Precision, recall and F1" + (f" ({part})" if part > 1 else "")
        found.append(_shares(f"precision-recall-f1{more}", title, caption, lines, figure))
    return found


def _others(run: RunHistory) -> list[_Candidate]:
    """Return one plot for each figure that has no place in the other plots, such as those of another trainer."""
    names = [name for name in measured_names(run) if not is_share_name(name)]
    found = []
    for position, name in enumerate(names[:MAX_OTHER_FIGURES]):
        series = [
            line
            for number, split in enumerate(run.evaluations)
            for line in _evaluated(run, split, name, label=shorten(split, 24), number=number)
        ]
        title = shorten(name.replace("_", " "), 40)
        # A name from a file may hold anything, so it does not become the name of a file.
        found.append(_Candidate(f"figure-{position}", title[:1].upper() + title[1:], "", series, title))
    return found


def _name_file(split: str, number: int) -> str:
    # Watched sets have names that can be part of a file's name; those that others wrote need not.
    return split if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,60}", split) else f"set-{number}"


def _describe_thinning(series: Sequence[Series]) -> str:
    return THINNED if any(len(line.values) > line.max_points for line in series) else ""


def _shares(
    name: str, title: str, caption: str, series: list[Series], figure: str, *, xlabel: str = "optimizer step"
) -> _Candidate:
    """Return a plot of shares in percent; figures above 1 are none, whatever their name, and are shown as logged."""
    if series and _is_within_one(series):
        return _Candidate(name, title, caption, series, f"{figure} (%)", shares=True, xlabel=xlabel)
    return _Candidate(name, title, caption, series, f"{figure} (as logged)", xlabel=xlabel)


def _collect(candidates: Sequence[_Candidate]) -> list[Plot]:
    return [
        Plot(
            entry.name,
            entry.title,
            entry.caption,
            partial(
                draw_series,
                series=entry.series,
                ylabel=entry.ylabel,
                shares=entry.shares,
                log=entry.log,
                xlabel=entry.xlabel,
            ),
            alt=describe_series(entry.series, shares=entry.shares),
        )
        for entry in candidates
        if entry.series
    ]


def list_curves(run: RunHistory) -> list[Plot]:
    """Return the curves of one run; those without any logged value are left out."""
    return _collect(
        [
            *_losses(run),
            *_accuracies(run),
            *_quality(run),
            _Candidate(
                "learning-rate",
                "Learning rate",
                "By parameter group.",
                _learning_rates(run),
                "learning rate (per step)",
            ),
            _Candidate(
                "gradient-norm",
                "Gradient norm",
                "Of all trained parameters, before clipping.",
                _stepped(run, "grad_norm", "gradient norm", 2),
                "L2 norm",
                log=True,
            ),
            _Candidate("speed", "Speed", "Training steps only.", _speed(run), "records per second"),
            *(_others(run) if not run.is_ours else []),
        ]
    )


def _name_watched(run: RunHistory) -> dict[str, str]:
    """Return the names in legends of the sets beside validation, by set."""
    watched = [split for split in run.evaluations if split != "validation"]
    return {split: f"{shorten(split, 20)} (watched)" if run.is_ours else shorten(split, 24) for split in watched}


def _losses(run: RunHistory) -> list[_Candidate]:
    validation = _evaluated(run, "validation", "loss", label="validation")
    loss = _stepped(run, "loss", "training", 1, smooth=bool(validation)) + validation
    for number, (split, name) in enumerate(_name_watched(run).items(), start=2):
        loss += _evaluated(run, split, "loss", label=name, number=number) if not run.is_ours else []
    title = "Training and validation loss" if validation else "Training loss"
    alone = _stepped(run, "loss", "training") if validation else []
    caption = f"This is the loss of each step's records. {_describe_thinning(_stepped(run, 'loss', ''))}".strip()
    return [
        _Candidate("loss", title, _describe_thinning(loss), loss, "loss (nats)"),
        _Candidate("training-loss", "Training loss", caption, alone, "loss (nats)", log=True),
    ]


def _accuracies(run: RunHistory) -> list[_Candidate]:
    accuracy = _evaluated(run, "validation", "accuracy", label="validation")
    watched = _name_watched(run)
    for number, (split, name) in enumerate(watched.items(), start=1):
        accuracy += _evaluated(run, split, "accuracy", label=name, number=number)
    running, epochs = _running_accuracy(run), _by_epoch(run)
    compared = [*running, *(replace(line, best=None) for line in accuracy[:1])] if running else []
    watched_note = " Watched sets steer nothing." if watched and run.is_ours else ""
    ring = "The ring marks the checkpoint that was kept." if run.best is not None else ""
    bars = "Bars are 95\u202f% intervals. " if epochs and epochs[0].intervals is not None else ""
    by_epoch = f"{bars}Training: mean of the steps since the validation before." if running else bars.strip()
    low = "Training: each step's own records, before its update and with dropout, so it runs low. "
    return [
        _shares("accuracy", "Accuracy", f"{ring}{watched_note}".strip(), accuracy, "accuracy"),
        _shares("accuracy-by-epoch", "Validation accuracy by epoch", by_epoch, epochs, "accuracy", xlabel="epoch"),
        _Candidate(
            "training-accuracy",
            "Training and validation accuracy",
            f"{low}{_describe_thinning(running)}".strip(),
            compared,
            "accuracy (%)",
            shares=True,
        ),
    ]


def list_overlaid_curves(runs: Sequence[RunHistory]) -> list[Plot]:
    """Return the curves of several runs laid over each other, and those of each set watched by at least one."""

    def overlay(pick: Callable[[RunHistory], list[Series]]) -> list[Series]:
        return [
            replace(line, label=shorten(run.title, 28), colour=number, style=number, max_points=SMOOTH_POINTS)
            for number, run in enumerate(runs)
            for line in pick(run)[:1]
        ]

    def of(split: str, name: str) -> list[Series]:
        return overlay(lambda run: _evaluated(run, split, name))

    def stepped(name: str) -> list[Series]:
        return overlay(lambda run: _stepped(run, name, ""))

    watched = sorted({split for run in runs for split in run.evaluations if split != "validation"})
    steers = "Watched; it steers nothing." if all(run.is_ours for run in runs) else ""
    f1 = overlay(lambda run: _evaluated(run, "validation", "macro_f1") or _evaluated(run, "validation", "f1"))
    smoothed = "Means over neighbouring steps; shaded where single steps lie."
    found = [
        _Candidate("loss", "Training loss", smoothed, stepped("loss"), "loss (nats)"),
        _Candidate("validation-loss", "Validation loss", "", of("validation", "loss"), "loss (nats)"),
        _shares("validation-accuracy", "Validation accuracy", "", of("validation", "accuracy"), "accuracy"),
        *(
            _shares(
                f"accuracy-{_name_file(split, number)}",
                f"Accuracy on {shorten(split, 30)}",
                steers,
                of(split, "accuracy"),
                "accuracy",
            )
            for number, split in enumerate(watched, start=1)
        ),
        _shares("validation-f1", "Validation F1", "", f1, "F1"),
        _Candidate(
            "learning-rate",
            "Learning rate",
            "This is the rate of the adapter, where groups differ.",
            stepped("learning_rate"),
            "learning rate (per step)",
        ),
        _Candidate(
            "gradient-norm",
            "Gradient norm",
            "Before clipping; means over neighbouring steps.",
            stepped("grad_norm"),
            "L2 norm",
            log=True,
        ),
    ]
    return _collect([_name_single(entry) for entry in found])


def _name_single(entry: _Candidate) -> _Candidate:
    """Say whose a single line is, which has no legend."""
    if len(entry.series) != 1:
        return entry
    return replace(entry, caption=f"{entry.series[0].label} alone. {entry.caption}".strip())
