"""The page about a search: what it found, whether that holds, and how each setting mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from submillion.config.run import LOWER_IS_BETTER
from submillion.report import words
from submillion.report.html import Html, element, table
from submillion.report.page import KeyFigure, Section, build_page, paragraph, show_figures, show_plot, show_plots
from submillion.report.study_plots import StudyPicture, StudyPoint, list_study_plots
from submillion.report.theme import Plot, render_png
from submillion.search.space import label_choice
from submillion.search.task import SearchDir, Task
from submillion.search.trial_results import TrialRow, count_states, list_scales
from submillion.storage.files import write_bytes, write_text


def write_search_report(
    folder: SearchDir,
    task: Task,
    *,
    rows: Sequence[TrialRow],
    best: TrialRow,
    importances: Mapping[str, float],
    confirmation: Mapping[str, Any] | None,
) -> None:
    """Write ``report.html`` and its plots as PNG.

    Args:
        folder: Of the search.
        task: What was searched.
        rows: All trials.
        best: The best of them.
        importances: By parameter; may be empty.
        confirmation: What `confirm_settings` found; None where nothing was compared.
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
    states = count_states(rows)
    sections = [
        Section("found", "Settings", "The best settings", _show_settings(task, best)),
        Section("confirmed", "Comparison", "Against the recipe", _show_confirmation(confirmation, best)),
        Section("search", "Search", "The search", _show_pictures(plots)),
        Section("trials", "Trials", "All trials", _show_trials(rows, search.metric)),
    ]
    write_text(
        folder.report,
        build_page(
            f"search {task.config.name}",
            _show_heading(task),
            _show_opening(task, best, states, confirmation),
            sections,
        ),
    )


def _show_pictures(plots: Sequence[Plot]) -> Html:
    small = [plot for plot in plots if not plot.wide]
    return element("div", show_plots(small), [show_plot(plot) for plot in plots if plot.wide])


def _show_value(metric: str, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.4f}" if metric == "loss" else words.percent(value)


def _show_heading(task: Task) -> Html:
    search = task.search
    facts = [
        f"base model {task.config.model.base}",
        f"seed {task.config.seed}",
        f"sampler {search.sampler}",
        f"pruner {search.pruner}",
    ]
    return element(
        "header",
        paragraph("submillion \N{MIDDLE DOT} report of a search", class_="eyebrow"),
        element("h1", task.config.name),
        paragraph(" \N{MIDDLE DOT} ".join(facts), class_="sub"),
    )


def _show_opening(
    task: Task, best: TrialRow, states: Mapping[str, int], confirmation: Mapping[str, Any] | None
) -> Html:
    search = task.search
    metric = search.metric.replace("_", "-")
    figures = [
        KeyFigure("Trials", words.count(states["complete"] + states["pruned"]), _count_in_words(states)),
        KeyFigure(f"Best {metric}", _show_value(search.metric, best.value), f"trial {best.number}, on validation rows"),
    ]
    if confirmation is not None:
        low, high = confirmation["interval"]
        figures.append(
            KeyFigure(
                "Gain over the recipe",
                f"{words.points(confirmation['difference'])} points",
                f"{words.points(low)} to {words.points(high)}, {words.p_value(confirmation['p'])}, "
                f"{confirmation['split']} rows",
            )
        )
    return element("div", show_figures(figures), paragraph(describe_confirmation(confirmation, best)))


def _count_in_words(states: Mapping[str, int]) -> str:
    shown = [f"{count} {state}" for state, count in states.items() if count]
    return ", ".join(shown)


def describe_confirmation(confirmation: Mapping[str, Any] | None, best: TrialRow) -> str:
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


def _show_settings(task: Task, best: TrialRow) -> Html:
    own = task.config.model_dump(mode="json")
    rows = []
    for name, value in best.settings.items():
        section, _, key = name.partition(".")
        rows.append([name, _show_setting(own[section][key]), _show_setting(value)])
    return element(
        "div",
        paragraph(f"Trial {best.number}. Everything else is as in the recipe."),
        table(["Setting", "Recipe", "Tuned"], rows),
    )


def _show_setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    shown = label_choice(value)
    return "not set" if shown is None else str(shown)


def _show_confirmation(confirmation: Mapping[str, Any] | None, best: TrialRow) -> Html:
    if confirmation is None:
        return paragraph(describe_confirmation(None, best), class_="note")
    rows = []
    for pair in confirmation["per_seed"]:
        low, high = pair["interval"]
        rows.append(
            [
                str(pair["seed"]),
                words.percent(pair["recipe_accuracy"]),
                words.percent(pair["tuned_accuracy"]),
                words.points(pair["difference"]),
                f"{words.points(low)} to {words.points(high)}",
                words.p_value(pair["mcnemar_p"]),
            ]
        )
    low, high = confirmation["interval"]
    rows.append(
        [
            "all",
            words.percent(confirmation["recipe_accuracy"]),
            words.percent(confirmation["tuned_accuracy"]),
            words.points(confirmation["difference"]),
            f"{words.points(low)} to {words.points(high)}",
            words.p_value(confirmation["p"]),
        ]
    )
    note = (
        "Each pair of runs shares its seed and all pairs the same rows. A row that several runs have scored counts as "
        "one row: over all seeds, p comes from the exact sign-flip test of each row's difference of right answers "
        "(McNemar's test where there is one seed), and the interval from drawing rows and pairs of runs anew."
    )
    heads = ["Seed", "Recipe", "Tuned", "Difference (points)", "95\u202f% interval", "p"]
    return element("div", table(heads, rows, numeric=range(1, 5)), paragraph(note, class_="note"))


def _show_trials(rows: Sequence[TrialRow], metric: str) -> Html:
    shown = []
    for row in rows:
        drawn = ", ".join(f"{name}={_show_setting(value)}" for name, value in row.settings.items())
        notes = [
            "the recipe's own settings" if row.is_recipe else "",
            f"again trial {row.retry_of}" if row.retry_of is not None else "",
            row.error,
        ]
        seconds = "" if row.duration_s is None else words.duration(row.duration_s)
        text = "; ".join(note for note in notes if note)
        shown.append([str(row.number), row.state, _show_value(metric, row.value), seconds, drawn, text])
    return table(["Trial", "State", metric.replace("_", "-"), "Time", "Settings", "Note"], shown, numeric=(0, 2, 3))
