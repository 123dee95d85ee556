"""The page about a search: what it found, whether that holds, and how each setting mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from submillion.metrics.direction import LOWER_IS_BETTER
from submillion.report.study_plots import StudyPicture, StudyPoint, list_study_plots
from submillion.report.templates import render_page
from submillion.report.theme import render_png
from submillion.search.space import label_choice
from submillion.search.task import SearchDir, Task
from submillion.search.trial_results import TrialRow, count_states, list_scales
from submillion.storage.files import write_bytes, write_text
from submillion.storage.json_shapes import JsonView


def write_search_report(
    folder: SearchDir,
    task: Task,
    *,
    rows: Sequence[TrialRow],
    best: TrialRow,
    importances: Mapping[str, float],
    confirmation: JsonView | None,
) -> None:
    """Write ``report.html`` and its plots as PNG.

    Args:
        folder: Folder of the search.
        task: The search.
        rows: All trials.
        best: The best of them.
        importances: By parameter; may be empty.
        confirmation: Result of `confirm_settings`; None if nothing was compared.
    """
    search = task.search
    points = [
        StudyPoint(row.number, row.value, row.state == "complete", row.params)
        for row in rows
        if row.value is not None and row.state in {"complete", "pruned"}
    ]
    picture = StudyPicture(
        points=points,
        metric=search.metric,
        lower_is_better=search.metric in LOWER_IS_BETTER,
        scales=list_scales(task),
        importances=importances,
    )
    plots = list_study_plots(picture)
    for plot in plots:
        write_bytes(folder.plots / f"{plot.name}.png", render_png(plot))
    page = render_page(
        "search.html",
        config=task.config,
        search=search,
        states=count_states(rows),
        best=best,
        confirmation=confirmation,
        verdict=describe_confirmation(confirmation, best),
        settings=_compare_settings(task, best),
        plots=plots,
        trials=[_describe_trial(row) for row in rows],
    )
    write_text(folder.report, page)


def describe_confirmation(confirmation: JsonView | None, best: TrialRow) -> str:
    """Return in a sentence or two whether the best settings are better than the recipe's."""
    if best.is_recipe:
        return "No trial did better than the recipe's own settings, so there is nothing to compare."
    if confirmation is None:
        return (
            "The best trial was not compared with the recipe. It is the best of many on the validation rows that chose "
            "it, so its figure is too good."
        )
    low, high = confirmation["interval"]
    if low > 0:
        verdict = "The tuned settings are better than the recipe's"
    elif high < 0:
        verdict = "The tuned settings are worse than the recipe's"
    else:
        verdict = "It is not shown that the tuned settings are better than the recipe's"
    seeds = len(confirmation["seeds"])
    how = "of one seed" if seeds == 1 else f"the mean of {seeds} seeds each"
    return (
        f"{verdict}: {confirmation['tuned_accuracy']:.2%} against {confirmation['recipe_accuracy']:.2%} on "
        f"{confirmation['num_records']:,} {confirmation['split']} rows, {how}; a difference of "
        f"{100 * confirmation['difference']:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})."
    )


def _compare_settings(task: Task, best: TrialRow) -> list[tuple[str, str, str]]:
    """Return each setting that was searched, with the recipe's value and the best one."""
    own = task.config.model_dump(mode="json")
    rows = []
    for name, value in best.settings.items():
        section, _, key = name.partition(".")
        rows.append((name, _show_setting(own[section][key]), _show_setting(value)))
    return rows


def _show_setting(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    shown = label_choice(value)
    return "not set" if shown is None else str(shown)


@dataclass(frozen=True)
class _ShownTrial:
    """A trial as its row in the table shows it."""

    row: TrialRow
    settings: str
    notes: str


def _describe_trial(row: TrialRow) -> _ShownTrial:
    drawn = ", ".join(f"{name}={_show_setting(value)}" for name, value in row.settings.items())
    notes = [
        "the recipe's own settings" if row.is_recipe else "",
        f"again trial {row.retry_of}" if row.retry_of is not None else "",
        row.error,
    ]
    return _ShownTrial(row, drawn, "; ".join(note for note in notes if note))
