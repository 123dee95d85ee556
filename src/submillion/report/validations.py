"""The figures behind the curves as tables: every validation of a run, and the best and last ones of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from submillion.metrics.stats import wilson_interval
from submillion.report import words
from submillion.report.curves import is_share_name, measured_names, name_figure
from submillion.report.html import Child, Html, element, render, table
from submillion.report.page import paragraph
from submillion.run.history import LoadedRun, is_number

MAX_ROWS = 60
DASH = "\N{EN DASH}"


def show_share(value: object, num_records: int | None = None) -> Child:
    """Return a share in percent, with its 95 % interval where the number of records is known.

    A figure above 1 is no share, whatever its name, and is shown as it is.
    """
    if not is_number(value) or not np.isfinite(value):  # type: ignore[call-overload]  # a number by then
        return DASH
    share = float(value)  # type: ignore[arg-type]  # a number by then
    if not 0 <= share <= 1:
        return words.number(share)
    if not num_records:
        return words.percent(share)
    interval = wilson_interval(round(share * num_records), num_records)
    return render(words.percent(share), Html("<br>"), element("small", words.percent_range(interval)))


def _show_number(value: object) -> str:
    return words.number(float(value)) if is_number(value) else DASH  # type: ignore[arg-type]  # a number by then


def _pick(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return at most `MAX_ROWS` rows, evenly spread, with the first, the last and the best ones among them."""
    if len(rows) <= MAX_ROWS:
        return list(rows)
    places = set(np.linspace(0, len(rows) - 1, MAX_ROWS - 1).round().astype(int).tolist())
    marked = [place for place, row in enumerate(rows) if row.get("best")]
    places |= set(marked[-1:])
    return [rows[place] for place in sorted(places)]


def show_validations(run: LoadedRun) -> Html:
    """Return every evaluation during training as a table that unfolds; nothing where there is none."""
    parts = []
    names = measured_names(run)
    for split, rows in run.evaluations.items():
        present = [name for name in names if any(is_number(row.get(name)) for row in rows)]
        head = ["Step", "Epoch", "Loss", "Accuracy", *(name_figure(name) for name in present)]
        total = run.count_evaluated(split)
        marked = [place for place, row in enumerate(rows) if row.get("best")]
        kept = rows[marked[-1]] if marked else None
        body: list[list[Child]] = [
            [
                words.count(row["step"]) + (" (kept)" if row is kept else ""),
                _show_number(row.get("epoch")),
                _show_number(row.get("loss")),
                show_share(row.get("accuracy"), total),
                *(
                    show_share(row.get(name)) if is_share_name(name) else _show_number(row.get(name))
                    for name in present
                ),
            ]
            for row in _pick(rows)
        ]
        shown = f"{len(body)} of {words.count(len(rows))}" if len(body) < len(rows) else words.count(len(rows))
        title = f"{shown} evaluations on {split}" if len(rows) != 1 else f"One evaluation on {split}"
        inner = table(head, body, numeric=range(1, len(head)), label=f"Evaluations on {split}")
        parts.append(element("details", element("summary", title), inner))
    return render(parts)


def compare_validations(runs: Sequence[LoadedRun]) -> Html:
    """Return the best and the last validation of each run; no interval where the number of rows is unknown."""
    rows: list[list[Child]] = []
    unknown = []
    for run in runs:
        known = run.evaluations.get("validation", [])
        scored = [row for row in known if is_number(row.get("accuracy"))]
        losses = [float(row["loss"]) for row in known if is_number(row.get("loss"))]
        if not scored and not losses:
            continue
        kept, total = run.best or {}, run.count_evaluated("validation")
        if total is None:
            unknown.append(run.title)
        rows.append(
            [
                run.title,
                words.count(len(known)),
                words.count(kept["step"]) if kept else DASH,
                show_share(kept.get("accuracy"), total),
                show_share(scored[-1]["accuracy"], total) if scored else DASH,
                words.number(min(losses)) if losses else DASH,
            ]
        )
    if not rows:
        return Html("")
    head = ["Run", "Validations", "Kept step", "Accuracy there", "Last accuracy", "Lowest loss"]
    text = "During training, each run on its own validation rows: these figures are not paired and chose checkpoints."
    if unknown:
        text += f" Without an interval where the files do not say how many rows were scored: {', '.join(unknown)}."
    return render(
        element("h3", "Validation during training"),
        paragraph(text, class_="note"),
        table(head, rows, numeric=range(1, len(head)), label="Validation during training"),
    )
