"""`submillion curve`: accuracy against the trainable budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from submillion.cli import options
from submillion.cli.console import make_text, print_json, print_note, print_result

if TYPE_CHECKING:
    from submillion.budget_curve.measure import CurveResult


def curve(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe name or YAML file.", show_default=False)],
    *,
    budgets: Annotated[
        str, typer.Option("--budgets", metavar="N,N,...", help="Trainable parameters stay below each; 10k, 1M.")
    ] = "10k,30k,100k,300k,1M",
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Runs a budget.")] = 3,
    data: options.RecipeData = None,
    base: options.Base = None,
    seed: options.Seed = None,
    text: options.Text = None,
    label: options.Label = None,
    row_id: options.Id = None,
    numbers: options.Numbers = None,
    settings: options.Settings = None,
    rows: Annotated[int | None, typer.Option("--rows", metavar="N", help="Training rows of each run.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", metavar="N", help="Optimizer steps of each run.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the curve.  [default: runs/NAME-curve]")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Train a recipe at several budgets over several seeds: table, plot and page of accuracy against the budget.

    The same command continues a curve that was stopped or killed.
    """
    from submillion.budget_curve.command import curve as measure
    from submillion.cli.progress import open_progress
    from submillion.launch import sigterm_interrupts

    try:
        with sigterm_interrupts():
            result = measure(
                recipe,
                budgets=budgets,
                seeds=seeds,
                data=data,
                base=base,
                seed=seed,
                text=options.split_names(text),
                label=label,
                row_id=row_id,
                numbers=numbers,
                rows=rows,
                steps=steps,
                set=settings or (),
                out=out,
                progress=open_progress(),
            )
    except KeyboardInterrupt:
        print_note("interrupted; the same command continues the curve")
        raise typer.Exit(130) from None
    if as_json:
        print_json(result.to_json())
        return
    _print_result(result)


def _print_result(result: CurveResult) -> None:
    from submillion.cli.tables import make_table, show_interval, show_p, show_percent, show_points

    figures = result.figures
    table = make_table("budget", "trainable", "accuracy", "95 % interval", "against the one before", "p", "filled with")
    table.columns[-1].justify = "left"
    steps = [None, *figures["tests"]]
    for point, step in zip(figures["points"], steps, strict=True):
        more = ("-", "-") if step is None else (show_points(step["difference"], step["interval"]), show_p(step["p"]))
        table.add_row(
            f"{point['budget']:,}",
            f"{point['trainable_params']:,}",
            show_percent(point["accuracy"]),
            show_interval(point["accuracy_interval"]),
            *more,
            make_text(point["how"]),
        )
    print_result(table)
    seeds = f"mean of seeds {', '.join(map(str, figures['seeds']))}"
    baseline = "" if figures["baseline"] is None else f"; TF-IDF baseline {show_percent(figures['baseline'])}"
    print_result(f"{seeds}, {figures['num_records']:,} {figures['split']} records{baseline}")
    print_result(f"report: {result.report}")
    print_result(str(result.folder))
