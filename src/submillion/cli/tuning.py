"""`submillion tune`: a search for better settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from submillion.cli import options
from submillion.cli.console import make_text, print_json, print_note, print_result

if TYPE_CHECKING:
    from rich.table import Table

    from submillion.search.conduct import SearchResult


def tune(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe name or YAML file.", show_default=False)],
    *,
    data: options.RecipeData = None,
    base: options.Base = None,
    budget: options.Budget = None,
    seed: options.Seed = None,
    text: options.Text = None,
    label: options.Label = None,
    row_id: options.Id = None,
    numbers: options.Numbers = None,
    settings: options.Settings = None,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", help="Trials of the study, earlier ones included.")
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", metavar="N", help="Training rows of a trial.")] = None,
    validation_rows: Annotated[
        int | None, typer.Option("--validation-rows", metavar="N", help="Validation rows, the same for all trials.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Steps of a trial at the recipe's batch size.")
    ] = None,
    sampler: Annotated[Literal["tpe", "random"] | None, typer.Option("--sampler", help="What draws settings.")] = None,
    pruner: Annotated[
        Literal["hyperband", "median", "wilcoxon", "none"] | None,
        typer.Option("--pruner", help="What ends trials early."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", help="Seeds of the comparison with the recipe; 0 for none.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="URL", help="sqlite:///F, postgresql://..., journal:F.  [default: in DIR]"),
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="Name of the study.  [default: the recipe's]")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="K", min=1, help="Trials at the same time.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the search.  [default: runs/NAME-search]")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Search for better settings below the budget, confirm the best over seeds, write it as a recipe.

    The same command continues a search that was stopped or killed.
    """
    from submillion import api
    from submillion.cli.progress import open_progress
    from submillion.launch import sigterm_interrupts
    from submillion.search.conduct import choose_search_folder, run_search

    given = {
        "trials": trials,
        "rows": rows,
        "validation_rows": validation_rows,
        "steps": steps,
        "sampler": sampler,
        "pruner": pruner,
        "seeds": seeds,
    }
    resolved = api.resolve_config(
        recipe,
        data=data,
        base=base,
        budget=budget,
        seed=seed,
        text=options.split_names(text),
        label=label,
        row_id=row_id,
        numbers=numbers,
        settings=[*(settings or ()), *(f"search.{key}={value}" for key, value in given.items() if value is not None)],
    )
    for note in resolved.notes:
        print_note(note)
    folder = choose_search_folder(resolved.config, out)
    try:
        with sigterm_interrupts():
            result = run_search(
                resolved.config,
                folder,
                num_labels=api.count_labels(resolved.config),
                storage=storage,
                study=study,
                num_workers=workers,
                progress=open_progress(),
            )
    except KeyboardInterrupt:
        print_note("interrupted; the same command continues the search")
        raise typer.Exit(130) from None
    if as_json:
        print_json(result.to_json())
        return
    _print_result(result)


def _print_result(result: SearchResult) -> None:
    print_result(_tabulate_settings(result.best_settings))
    counted = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    print_result(
        f"trial {result.best_trial} is the best: validation {result.metric} {result.best_value:.4f} ({counted})"
    )
    print_result(result.verdict)
    print_result(f"report: {result.report}")
    print_result(str(result.recipe))


def _tabulate_settings(settings: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("setting")
    table.add_column("value", justify="right")
    for name, value in settings.items():
        table.add_row(make_text(name), make_text(f"{value:.4g}" if isinstance(value, float) else value))
    return table
