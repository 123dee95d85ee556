"""Tables of figures for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from submillion.cli.console import make_text
from submillion.report.formatting import show_interval, show_p, show_percent, show_points
from submillion.storage.json_shapes import JsonView

if TYPE_CHECKING:
    from submillion.budget.plan import Plan


def make_table(*columns: str, title: str = "") -> Table:
    """Return an empty table whose first column is left-aligned and the others right-aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), title=title or None, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def tabulate_plan(plan: Plan, *, details: bool = False) -> list[Table | Text]:
    """Return a table of a plan's trainable parameters by part; with details, one of every adapted module too."""
    table = make_table("part", "parameters", "share")
    for part, params in plan.parts:
        table.add_row(make_text(part), f"{params:,}", f"{params / plan.trainable_params:.1%}")
    style = "bold"
    table.add_row(Text("trainable", style), Text(f"{plan.trainable_params:,}", style), "")
    table.add_row("budget (trainable must stay below)", f"{plan.budget:,}", "")
    table.add_row("whole model, head counted once", f"{plan.total_params:,}", "")
    table.add_row("whole model, as PEFT counts it", f"{plan.peft_all_params:,}", "")
    ranks = sorted({module.rank for module in plan.modules})
    line = f"{plan.base} ({plan.family}), {plan.num_labels} classes, {plan.head} head, {plan.variant} on "
    line += f"{len(plan.modules)} linear layers, rank {_join_range(ranks)}"
    blocks: list[Table | Text] = [make_text(line), Text(), table]
    if details:
        modules = make_table("module", "shape", "rank", "alpha", "parameters")
        for module in plan.modules:
            shape = f"{module.out_features} x {module.in_features}"
            modules.add_row(make_text(module.name), shape, str(module.rank), f"{module.alpha:g}", f"{module.params:,}")
        blocks += [Text(), modules]
    return blocks


def _join_range(numbers: Sequence[int]) -> str:
    if len(numbers) > 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return str(numbers[0]) if numbers else "-"


def tabulate_evaluation(figures: JsonView) -> list[Table | Text]:
    """Return tables of the figures of one scored set: summary, classes and confusion."""
    summary = make_table("figure", "value", "95 % interval")
    for name in ("accuracy", "macro_f1"):
        summary.add_row(
            name.replace("_", " "), show_percent(figures[name]), show_interval(figures.get(f"{name}_interval"))
        )
    summary.add_row("calibration error", show_percent(figures["ece"]), "")
    summary.add_row("calibration error, raw", show_percent(figures["ece_raw"]), "")
    summary.add_row("Brier score", f"{figures['brier']:.4f}", "")
    summary.add_row("records", f"{figures['num_records']:,}", "")
    summary.add_row("records cut to the length", f"{figures['num_truncated']:,}", "")
    classes = make_table("class", "precision", "recall", "F1", "records")
    names = [entry["label"] for entry in figures["per_class"]]
    for entry in figures["per_class"]:
        shares = [show_percent(entry[key]) for key in ("precision", "recall", "f1")]
        classes.add_row(make_text(entry["label"]), *shares, f"{entry['num_records']:,}")
    confusion = make_table("true \\ predicted", *(_shorten(name) for name in names))
    for name, row in zip(names, figures["confusion"], strict=True):
        confusion.add_row(make_text(name), *(f"{count:,}" for count in row))
    return [summary, Text(), classes, Text(), confusion]


def _shorten(name: str) -> str:
    clean = make_text(name).plain
    return clean if len(clean) <= 16 else clean[:15] + "\N{HORIZONTAL ELLIPSIS}"


def tabulate_run(evaluations: Mapping[str, JsonView], baselines: Mapping[str, JsonView]) -> Table:
    """Return a table with one row per scored set: model, interval, TF-IDF baseline, and model minus baseline."""
    table = make_table("set", "records", "accuracy", "95 % interval", "TF-IDF", "difference", "p")
    for name, figures in evaluations.items():
        beside = ["-", "-", "-"]
        if name in baselines:
            baseline = baselines[name]
            comparison = baseline["comparison"]
            beside = [
                show_percent(baseline["accuracy"]),
                show_points(comparison["difference"], comparison["interval"]),
                show_p(comparison["mcnemar_p"]),
            ]
        accuracy = Text(show_percent(figures["accuracy"]), "bold")
        interval = show_interval(figures["accuracy_interval"])
        table.add_row(make_text(name), f"{figures['num_records']:,}", accuracy, interval, *beside)
    return table
