"""The figures behind the curves as tables: every validation of a run, and the best and last ones of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from submillion.metrics.stats import Interval, wilson_interval
from submillion.report.curves import is_share_name, measured_names, name_figure
from submillion.report.formatting import count
from submillion.run.history import RunHistory, Validation

MAX_ROWS = 60


@dataclass(frozen=True)
class Measured:
    """A figure of a validation.

    Attributes:
        value: The figure.
        is_share: Whether it is shown in percent.
        interval: 95 % interval of the figure, where the number of rows is known.
    """

    value: float
    is_share: bool = False
    interval: Interval | None = None


@dataclass(frozen=True)
class ValidationTable:
    """The evaluations of one set during training: texts of the head, and in each row the step and the figures."""

    split: str
    title: str
    head: list[str]
    rows: list[list[str | Measured | None]]


@dataclass(frozen=True)
class ValidationSummary:
    """The validations of one of several runs.

    Attributes:
        title: The run.
        number: How many there were.
        num_rows: Rows of each; None where nothing says so.
        kept_step: Step of the checkpoint that was kept, if one was.
        kept: Accuracy there, if it was measured.
        last: Accuracy of the last validation, likewise.
        lowest_loss: Likewise.
    """

    title: str
    number: int
    num_rows: int | None
    kept_step: float | None
    kept: Measured | None
    last: Measured | None
    lowest_loss: float | None


def measure_share(value: float | None, num_records: int | None = None) -> Measured | None:
    """Return a share with its 95 % interval where the number of records is known; None where it is not finite.

    A figure above 1 is no share, whatever its name.
    """
    if value is None or not np.isfinite(value):
        return None
    if not 0 <= value <= 1:
        return Measured(value)
    interval = wilson_interval(round(value * num_records), num_records) if num_records else None
    return Measured(value, is_share=True, interval=interval)


def _measure(value: float | None) -> Measured | None:
    return None if value is None else Measured(value)


def _pick(rows: Sequence[Validation]) -> list[Validation]:
    """Return at most `MAX_ROWS` rows, evenly spread, with the first, the last and the best ones among them."""
    if len(rows) <= MAX_ROWS:
        return list(rows)
    places = set(np.linspace(0, len(rows) - 1, MAX_ROWS - 1).round().astype(int).tolist())
    marked = [place for place, row in enumerate(rows) if row.is_best]
    places |= set(marked[-1:])
    return [rows[place] for place in sorted(places)]


def tabulate_validations(run: RunHistory) -> list[ValidationTable]:
    """Return every evaluation during training, one table a set."""
    tables = []
    names = measured_names(run)
    for split, rows in run.evaluations.items():
        present = [name for name in names if any(name in row.figures for row in rows)]
        total = run.count_evaluated(split)
        kept = next((row for row in reversed(rows) if row.is_best), None)
        shown: list[list[str | Measured | None]] = [
            [
                count(row.step) + (" (kept)" if row is kept else ""),
                _measure(row.epoch),
                _measure(row.figures.get("loss")),
                measure_share(row.figures.get("accuracy"), total),
                *(
                    measure_share(row.figures.get(name)) if is_share_name(name) else _measure(row.figures.get(name))
                    for name in present
                ),
            ]
            for row in _pick(rows)
        ]
        number = f"{len(shown)} of {count(len(rows))}" if len(shown) < len(rows) else count(len(rows))
        title = f"{number} evaluations on {split}" if len(rows) != 1 else f"One evaluation on {split}"
        head = ["Step", "Epoch", "Loss", "Accuracy", *(name_figure(name) for name in present)]
        tables.append(ValidationTable(split, title, head, shown))
    return tables


def summarise_validations(runs: Sequence[RunHistory]) -> list[ValidationSummary]:
    """Return the kept and the last validation of each run that has any; no interval where its rows are not known."""
    found = []
    for run in runs:
        known = run.evaluations.get("validation", ())
        scored = [row.figures["accuracy"] for row in known if "accuracy" in row.figures]
        losses = [row.figures["loss"] for row in known if "loss" in row.figures]
        if not scored and not losses:
            continue
        kept, total = run.best, run.count_evaluated("validation")
        found.append(
            ValidationSummary(
                title=run.title,
                number=len(known),
                num_rows=total,
                kept_step=kept.step if kept else None,
                kept=measure_share(kept.figures.get("accuracy"), total) if kept else None,
                last=measure_share(scored[-1], total) if scored else None,
                lowest_loss=min(losses) if losses else None,
            )
        )
    return found
