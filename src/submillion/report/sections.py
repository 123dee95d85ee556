"""The parts of a report on one run. A part whose facts are absent is left out, with a sentence saying why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from submillion.config.nested import flatten
from submillion.report import headline, words
from submillion.report.calibration import list_calibration_plots
from submillion.report.html import Child, Html, element, pairs, render, table
from submillion.report.learning import judge_run
from submillion.report.page import KeyFigure, Section, paragraph, show_figures, show_plot, show_plots
from submillion.report.plots import Estimate, interval_plot, list_confusion_plots, plan_plot
from submillion.report.theme import Plot
from submillion.report.treemap import budget_plot
from submillion.report.validations import show_validations
from submillion.run.history import LoadedRun, Predictions, read_predictions

NUM_ERRORS = 10
NUM_CONFUSIONS = 6
TEXT_LENGTH = 700


def show_heading(run: LoadedRun) -> Html:
    """Return the name of the run, what has to be said of it before all else, and what it is."""
    model = run.config.get("model") or {}
    facts = [
        f"base model {model.get('base', 'unknown')}",
        f"seed {run.config.get('seed', 0)}",
        f"folder {run.title}",
    ]
    about = str(run.config.get("about") or "")
    return element(
        "header",
        paragraph("submillion \N{MIDDLE DOT} report of a run", class_="eyebrow"),
        element("h1", str(run.config.get("name", run.title))),
        paragraph(" \N{MIDDLE DOT} ".join(facts), class_="sub"),
        [paragraph(sentence, class_="warning") for sentence in judge_run(run).get("sentences", ())],
        paragraph(about, class_="about") if about else "",
    )


def show_opening(run: LoadedRun) -> Html:
    """Return the key figures and the verdict in sentences."""
    split = headline.main_split(run)
    figures: list[KeyFigure] = []
    sentences: list[str] = []
    if split is None:
        steps = len(run.steps.get("step", ()))
        sentences.append(f"Nothing has been evaluated yet: the log holds {words.count(steps)} training steps.")
    else:
        result = run.results[split]
        for name, key in (("Accuracy", "accuracy"), ("Macro-F1", "macro_f1")):
            detail = f"{words.percent_range(result[f'{key}_interval'])} on {split}"
            figures.append(KeyFigure(name, words.percent(result[key]), detail))
        sentences.append(headline.describe_accuracy(split, result))
        sentences.append(headline.describe_baseline(split, run))
        if split != "test":
            sentences.append("There is no test split in this run, so no figure here is from rows that chose nothing.")
    if run.plan:
        trainable, budget = run.plan["trainable_params"], run.plan["budget"]
        detail = f"of fewer than {words.count(budget)} allowed"
        figures.append(KeyFigure("Trainable parameters", words.count(trainable), detail, trainable / budget))
    if run.train_s is not None:
        speed = f"{run.records_per_s:,.0f} records per second" if run.records_per_s else ""
        figures.append(KeyFigure("Training time", words.duration(run.train_s), speed))
    return render(show_figures(figures), paragraph(" ".join(sentences), class_="lead"))


def result_plot(run: LoadedRun) -> Plot | None:
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
    if not estimates:
        return None
    return interval_plot(estimates)


def _result_row(run: LoadedRun, split: str, result: Mapping[str, Any]) -> list[Child]:
    def with_range(value: float, interval: Sequence[float]) -> Html:
        return render(words.percent(value), Html("<br>"), element("small", words.percent_range(interval)))

    baseline = run.baselines.get(split) or {}
    comparison = baseline.get("comparison") or {}
    difference: Child = "\N{EN DASH}"
    if comparison:
        low, high = (words.points(end) for end in comparison["interval"])
        evidence = f"{low} to {high}, {words.p_value(comparison['mcnemar_p'])}"
        difference = render(words.points(comparison["difference"]), Html("<br>"), element("small", evidence))
    return [
        split,
        words.count(result["num_records"]),
        with_range(result["accuracy"], result["accuracy_interval"]),
        with_range(result["macro_f1"], result["macro_f1_interval"]),
        with_range(baseline["accuracy"], baseline["accuracy_interval"]) if baseline else "\N{EN DASH}",
        difference,
        words.count(result.get("num_truncated", 0)),
    ]


def results_section(run: LoadedRun, plot: Plot | None) -> Section:
    """Return the figures of every evaluated set beside the baseline's."""
    if plot is None:
        content = paragraph("No split has been evaluated: training has not come to its end.", class_="note")
        return Section("results", "Results", "What it gets right", content)
    head = ["Set", "Records", "Accuracy", "Macro-F1", "Baseline", "Difference in points", "Texts cut"]
    rows = [_result_row(run, split, result) for split, result in run.results.items()]
    looks = headline.count_test_evaluations(run)
    notes = ["The difference is the model's accuracy minus the baseline's, paired by record."]
    if looks is not None:
        notes.append(f"This run looked at the test split {'once' if looks == 1 else f'{looks} times'}.")
    watched = [split for split in run.results if split not in ("test", "validation")]
    if watched:
        notes.append(f"Watched and steering nothing: {', '.join(watched)}.")
    content = render(
        paragraph(" ".join(notes), class_="note"),
        table(head, rows, numeric=range(1, 7), label="Figures of every evaluated set"),
        paragraph(headline.describe_train_sample(run), class_="note"),
        show_plot(plot),
    )
    return Section("results", "Results", "What it gets right", content)


def curves_section(run: LoadedRun, plots: Sequence[Plot]) -> Section:
    """Return the curves per step."""
    if not plots:
        content = paragraph("The log holds no training steps.", class_="note")
        return Section("training", "Training", "How it learned", content)
    facts = [f"{words.count(run.steps['step'][-1])} optimizer steps"] if "step" in run.steps else []
    if "epoch" in run.steps:
        facts.append(f"{run.steps['epoch'][-1]:.3g} epochs")
    if "num_tokens" in run.steps:
        facts.append(f"{words.count(float(run.steps['num_tokens'].sum()))} tokens")
    text = ", ".join(facts) + "."
    if run.best is not None:
        text += (
            f" The checkpoint kept is that of step {words.count(run.best['step'])}, "
            f"chosen on validation alone ({words.percent(run.best['accuracy'])} accuracy)."
        )
    notes = [paragraph(note, class_="note") for note in run.notes]
    return Section(
        "training",
        "Training",
        "How it learned",
        render(paragraph(text, class_="note"), notes, show_plots(plots), show_validations(run)),
    )


def _class_table(result: Mapping[str, Any]) -> Html:
    rows = [
        [
            str(entry["label"]),
            words.count(entry["num_records"]),
            words.percent(entry["precision"], 1),
            words.percent(entry["recall"], 1),
            words.percent(entry["f1"], 1),
        ]
        for entry in result["per_class"]
    ]
    return table(["Class", "Records", "Precision", "Recall", "F1"], rows, numeric=range(1, 5))


def _confusion_table(result: Mapping[str, Any], labels: Sequence[str]) -> Html:
    wrong = np.array(result["confusion"], dtype=np.int64)
    totals = np.maximum(wrong.sum(axis=1), 1)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSIONS]
    cells = [divmod(int(cell), len(wrong)) for cell in order]
    rows: list[list[Child]] = [
        [
            f"{labels[true]} taken for {labels[found]}",
            words.count(int(wrong[true, found])),
            words.percent(float(wrong[true, found] / totals[true]), 1),
        ]
        for true, found in cells
        if wrong[true, found]
    ]
    return table(["Most frequent errors", "Records", "Of its class"], rows, numeric=(1, 2), class_="plain")


def _list_errors(predictions: Predictions, labels: Sequence[str]) -> Html:
    wrong = np.flatnonzero(~predictions.right)
    chosen = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:NUM_ERRORS]
    items = [
        element(
            "li",
            element(
                "p",
                element("span", labels[int(predictions.predicted[n])], class_="wrong"),
                f" at {words.percent(float(predictions.confidence[n]), 1)}",
                Html("<br>"),
                f"labelled {labels[int(predictions.labels[n])]}",
                Html("<br>"),
                element("span", predictions.sources[n] or f"id {predictions.ids[n]}", class_="faint"),
                class_="verdict",
            ),
            element("blockquote", words.shorten(predictions.texts[n], TEXT_LENGTH)),
        )
        for n in chosen.tolist()
    ]
    return element("ul", items, class_="errors")


def errors_section(run: LoadedRun, plots: Mapping[str, Plot], predictions: Predictions | None) -> Section | None:
    """Return figures by class, the confusion matrix and the most confident errors of the main split."""
    split = headline.main_split(run)
    if split is None or "confusion" not in plots:
        return None
    result = run.results[split]
    num_wrong = sum(sum(row) for row in result["confusion"]) - sum(
        row[number] for number, row in enumerate(result["confusion"])
    )
    text = (
        f"On {headline.name_split(split)}: {words.count(num_wrong)} of {words.count(result['num_records'])} are wrong."
    )
    tables = [_class_table(result), *([_confusion_table(result, run.labels)] if num_wrong else [])]
    parts: list[Child] = [
        paragraph(text, class_="note"),
        show_plots([plots["confusion"], plots["confusion-counts"]]),
        element("div", *tables, class_="split"),
        element("h3", "Most confident errors"),
    ]
    if predictions is None:
        parts.append(paragraph("The predictions of this split were not kept, so no texts can be shown.", class_="note"))
    elif predictions.right.all():
        parts.append(paragraph("There are none: every record is right.", class_="note"))
    else:
        text = "Where the model was surest and the label disagrees. Some of these are likely errors in the labels."
        parts += [paragraph(text, class_="note"), _list_errors(predictions, run.labels)]
    return Section("errors", "Errors", "Where it errs", render(parts))


def trust_section(run: LoadedRun, plots: Mapping[str, Plot]) -> Section | None:
    """Return the calibration of the main split."""
    split = headline.main_split(run)
    if split is None or "reliability" not in plots:
        return None
    result = run.results[split]
    text = (
        f"On {headline.name_split(split)}. The gap between confidence and accuracy (expected calibration error) is "
        f"{words.percent(result['ece_raw'])} as trained and {words.percent(result['ece'])} after dividing the logits "
        f"by {result.get('temperature', 1):.3f}, a temperature fitted on validation. "
        f"The Brier score is {result['brier']:.4f}; 0 is perfect."
    )
    shown = [plots[name] for name in ("reliability", "coverage") if name in plots]
    by_class = show_plot(plots["class-reliability"]) if "class-reliability" in plots else ""
    content = render(paragraph(text, class_="note"), show_plots(shown), by_class)
    return Section("trust", "Trust", "How far its probabilities hold", content)


def plan_section(run: LoadedRun) -> Section | None:
    """Return where the trainable parameters are."""
    plan = run.plan
    if not plan:
        return None
    ranks = sorted({int(module["rank"]) for module in plan.get("modules") or []})
    rows = [
        ("Adapter", words.count(plan["adapter_params"])),
        ("Head", words.count(plan["head_params"])),
        ("Biases", words.count(plan["bias_params"])),
        ("Trainable", words.count(plan["trainable_params"])),
        ("Budget, never reached", words.count(plan["budget"])),
        ("All parameters", words.count(plan["total_params"])),
        ("As PEFT counts them, head twice", words.count(plan["peft_all_params"])),
        ("Adapted modules", words.count(len(plan.get("modules") or []))),
        ("Ranks", ", ".join(str(rank) for rank in ranks) or "\N{EN DASH}"),
        ("Variant", str(plan.get("variant", "lora"))),
    ]
    content = render(
        paragraph(headline.describe_budget(plan), class_="note"),
        [show_plot(plot) for plot in plan_plots(run)],
        element("dl", [element("div", element("dt", a), element("dd", b)) for a, b in rows], class_="columns"),
    )
    return Section("parameters", "Parameters", "Where the parameters are", content)


def plan_plots(run: LoadedRun) -> list[Plot]:
    """Return the pictures of where the trainable parameters are; none without a plan."""
    return [budget_plot(run.plan), plan_plot(run.plan)] if run.plan else []


def repeat_section(run: LoadedRun) -> Section:
    """Return what is needed to repeat the run: settings, versions, digests, machine."""
    settings = flatten(run.config)
    shown = [(path, words.setting(value)) for path, value in settings.items() if path != "about"]
    known = {} if run.manifest is None else run.manifest.to_json()
    facts = [(path, words.setting(value)) for path, value in flatten(known).items()]
    parts: list[Child] = [
        paragraph(
            "The config.yaml of the folder gives the same run again on data of the same digests and the same versions.",
            class_="note",
        ),
    ]
    if facts:
        parts += [element("h3", "Machine, versions and digests"), pairs(facts)]
    else:
        parts.append(paragraph("The run has no manifest, so versions and digests are unknown.", class_="note"))
    parts.append(element("details", element("summary", f"All {len(shown)} settings"), pairs(shown)))
    return Section("repeat", "Repeat", "How to repeat it", render(parts))


def load_main_predictions(run: LoadedRun) -> Predictions | None:
    """Return the predictions of the split that the verdict rests on, where they were kept."""
    split = headline.main_split(run)
    return None if split is None else read_predictions(run.path, split)


def split_plots(run: LoadedRun, predictions: Predictions | None) -> dict[str, Plot]:
    """Return the plots of the split that the verdict rests on, by name."""
    split = headline.main_split(run)
    if split is None:
        return {}
    result = run.results[split]
    return list_confusion_plots(result, run.labels) | list_calibration_plots(result, run.labels, predictions)
