"""The plain sentences of a report: what was measured, how sure it is, and against what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from submillion.data.legibility import explain_unread
from submillion.metrics.stats import subtract_shares
from submillion.report.words import count, p_value, percent, percent_range, points
from submillion.run.history import LoadedRun

BASELINE = "TF-IDF with a linear SVM"
SIGNIFICANT = 0.05


def main_split(run: LoadedRun) -> str | None:
    """Return the split that the verdict rests on: test, else validation, else any evaluated set."""
    return next(iter(run.results), None)


def name_split(split: str) -> str:
    """Return a split's name as it stands in a sentence."""
    return (
        split
        if split in ("test", "validation")
        else f"\N{LEFT DOUBLE QUOTATION MARK}{split}\N{RIGHT DOUBLE QUOTATION MARK}"
    )


def describe_accuracy(split: str, result: Mapping[str, Any]) -> str:
    """Return one sentence on the accuracy of a split and its interval."""
    return (
        f"The model is right on {percent(result['accuracy'])} of the {count(result['num_records'])} "
        f"{name_split(split)} records (95{chr(0x202F)}% interval {percent_range(result['accuracy_interval'])})."
    )


def describe_comparison(comparison: Mapping[str, Any], first: str, second: str) -> str:
    """Return one sentence on a paired comparison: its size, its interval, and whether chance explains it."""
    difference, p = comparison["difference"], comparison["mcnemar_p"]
    low, high = (points(end) for end in comparison["interval"])
    evidence = f"95{chr(0x202F)}% interval {low} to {high}, exact McNemar {p_value(p)}"
    if p < SIGNIFICANT:
        better, worse = (first, second) if difference > 0 else (second, first)
        return (
            f"{better[0].upper()}{better[1:]} is better than {worse} by {points(abs(difference)).lstrip('+')} points "
            f"on the same records ({evidence})."
        )
    return (
        f"Between {first} and {second} lie {points(difference)} points on the same records ({evidence}): "
        "chance alone can explain that."
    )


def describe_baseline(split: str, run: LoadedRun) -> str:
    """Return the sentences on the baseline of a split, or why there is none."""
    baseline = run.baselines.get(split)
    if not baseline:
        return "No baseline was trained in this run, so there is no yardstick beside the model."
    text = f"{BASELINE}, trained on the same rows, is right on {percent(baseline['accuracy'])}."
    if baseline.get("comparison"):
        comparison = baseline["comparison"]
        text += " " + describe_comparison(comparison, "the model", "the baseline")
        reason = explain_unread(run.data)
        if reason and comparison["difference"] < 0 and comparison["mcnemar_p"] < SIGNIFICANT:
            text += f" This is the likely reason: {reason[0].lower()}{reason[1:]}."
    return text


def describe_train_sample(run: LoadedRun) -> str:
    """Return the sentences on training rows scored at the end, and their distance to validation."""
    known = run.train_sample
    if not known:
        return "No training rows were scored at the end of this run, so accuracy on them is unknown."
    chosen = (
        f"{count(known['num_records'])} of its {count(known['num_train'])} training rows, drawn by chance"
        if known["num_records"] < known["num_train"]
        else f"all its {count(known['num_train'])} training rows"
    )
    text = (
        f"On {chosen}, the finished model is right on {percent(known['accuracy'])} "
        f"({percent_range(known['accuracy_interval'])}). It has seen the labels of these rows, so this is no measure "
        "of quality"
    )
    held_out = run.results.get("validation")
    if not held_out:
        return f"{text}."
    difference, (low, high) = subtract_shares(
        (known["accuracy"], known["accuracy_interval"]), (held_out["accuracy"], held_out["accuracy_interval"])
    )
    return (
        f"{text}; on validation rows it is right on {percent(held_out['accuracy'])}, a gap of {points(difference)} "
        f"points (95{chr(0x202F)}% interval {points(low)} to {points(high)})."
    )


def describe_budget(plan: Mapping[str, Any]) -> str:
    """Return one sentence on the trainable parameters and their limit."""
    trainable, budget = plan["trainable_params"], plan["budget"]
    return (
        f"{count(trainable)} parameters were trained, {percent(trainable / plan['total_params'], 2)} of "
        f"{count(plan['total_params'])}; the budget is {count(budget)}, so {count(budget - trainable)} were left."
    )


def count_test_evaluations(run: LoadedRun) -> int | None:
    """Return how often this run looked at its test split, if the manifest says so."""
    return None if run.manifest is None else run.manifest.num_test_evaluations
