"""The report on a run of `transformers.Trainer`: its curves and what its state file says."""

from __future__ import annotations

from collections.abc import Sequence

from submillion.metrics.stats import wilson_interval
from submillion.report import words
from submillion.report.html import Child, Html, element, pairs, render
from submillion.report.page import KeyFigure, Section, paragraph, show_figures, show_plots
from submillion.report.theme import Plot
from submillion.report.validations import show_validations
from submillion.run.history import LoadedRun, is_number

TEXT_LENGTH = 200


def show_trainer_heading(run: LoadedRun) -> Html:
    """Return the name of the run and what it is."""
    return element(
        "header",
        paragraph("submillion \N{MIDDLE DOT} a run of transformers.Trainer", class_="eyebrow"),
        element("h1", words.shorten(run.title, 80)),
        paragraph("Read from its trainer_state.json; submillion neither trained nor scored it.", class_="sub"),
    )


def _show(value: object) -> str:
    if is_number(value):
        return words.number(value)  # type: ignore[arg-type]  # a number by then
    return words.shorten(words.setting(value), TEXT_LENGTH)


def show_trainer_opening(run: LoadedRun) -> Html:
    """Return the key figures, and what the file cannot say."""
    figures: list[KeyFigure] = []
    kept = run.best
    if kept is not None and is_number(kept.get("accuracy")) and 0 <= kept["accuracy"] <= 1:
        total = run.count_evaluated("validation")
        interval = wilson_interval(round(kept["accuracy"] * total), total) if total else None
        shown = f"{words.percent_range(interval)}, " if interval else ""
        detail = f"{shown}at the kept step {words.count(kept['step'])}"
        figures.append(KeyFigure("Accuracy, as logged", words.percent(kept["accuracy"]), detail))
    elif is_number(run.facts.get("best_metric")):
        figures.append(KeyFigure("Best metric, as logged", _show(run.facts["best_metric"])))
    planned = run.facts.get("max_steps")
    detail = f"of {_show(planned)} planned" if is_number(planned) else ""
    figures.append(KeyFigure("Steps", _show(run.facts["global_step"]), detail))
    if len(run.steps.get("loss", ())):
        figures.append(KeyFigure("Last training loss", _show(float(run.steps["loss"][-1])), "nats, as logged"))
    if is_number(run.facts.get("train_runtime")):
        figures.append(KeyFigure("Training time", words.duration(float(run.facts["train_runtime"]))))
    text = "These figures are the Trainer's own. "
    if run.set_sizes:
        known = ", ".join(f"{words.count(n)} on {words.shorten(split, 40)}" for split, n in run.set_sizes.items())
        text += (
            f"How many rows it scored ({known}) follows from its seconds and rows per second, and gives the intervals "
            "of accuracies. "
        )
    else:
        text += "The file does not tell how many rows an evaluation had, so there are no intervals. "
    text += "Where the same rows also chose the checkpoint, their figures flatter it."
    return render(show_figures(figures), paragraph(text, class_="lead"))


def trainer_sections(run: LoadedRun, plots: Sequence[Plot]) -> list[Section]:
    """Return the curves, and all that the file says besides."""
    notes = []
    if run.num_skipped:
        notes.append(
            f"{words.count(run.num_skipped)} logged value{'s are' if run.num_skipped > 1 else ' is'} not finite (NaN "
            "or infinite) and stand in no curve."
        )
    if run.best is not None:
        notes.append(f"The ring marks step {words.count(run.best['step'])}, which the Trainer calls its best.")
    parts: list[Child] = [paragraph(" ".join(notes), class_="note")] if notes else []
    parts.append(show_plots(plots) if plots else paragraph("The file holds no logged values.", class_="note"))
    parts.append(show_validations(run))
    facts = [(name, _show(value)) for name, value in run.facts.items()]
    return [
        Section("training", "Training", "How it learned", render(parts)),
        Section("facts", "Facts", "What else the file says", pairs(facts)),
    ]
