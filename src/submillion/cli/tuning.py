"""`submillion tune`: a search for better settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from submillion.cli import options
from submillion.cli.console import make_text, print_json, print_note, print_result

if TYPE_CHECKING:
    from rich.table import Table

    from submillion.config.run import RunConfig
    from submillion.search.conduct import SearchResult


Trials = Annotated[
    int | None, typer.Option("--trials", metavar="N", help="Trials of the study, including earlier ones.")
]
Rows = Annotated[int | None, typer.Option("--rows", metavar="N", help="Training rows per trial.")]
ValidationRows = Annotated[
    int | None, typer.Option("--validation-rows", metavar="N", help="Validation rows, equal for all trials.")
]
Steps = Annotated[int | None, typer.Option("--steps", metavar="N", help="Steps per trial at the recipe's batch size.")]
Sampler = Annotated[Literal["tpe", "random"] | None, typer.Option("--sampler", help="Sampler that draws settings.")]
Pruner = Annotated[
    Literal["hyperband", "median", "wilcoxon", "none"] | None,
    typer.Option("--pruner", help="Rule that ends trials early."),
]
Seeds = Annotated[
    int | None, typer.Option("--seeds", metavar="N", help="Seeds for the comparison with the recipe; 0 for none.")
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", metavar="URL", help="sqlite:///F, postgresql://..., journal:F.  [default: in DIR]"),
]
StudyName = Annotated[
    str | None, typer.Option("--study", metavar="NAME", help="Name of the study.  [default: the recipe's]")
]
Workers = Annotated[int, typer.Option("--workers", metavar="K", min=1, help="Trials at the same time.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of the search.  [default: runs/NAME-search]")
]


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
    trials: Trials = None,
    rows: Rows = None,
    validation_rows: ValidationRows = None,
    steps: Steps = None,
    sampler: Sampler = None,
    pruner: Pruner = None,
    seeds: Seeds = None,
    storage: Storage = None,
    study: StudyName = None,
    workers: Workers = 1,
    out: Out = None,
    as_json: options.Json = False,
) -> None:
    """Search for better settings below the budget, confirm the best over seeds and write it as a recipe.

    The same command continues a search that was stopped or killed.
    """
    from submillion.config.nested import add_overrides
    from submillion.search.conduct import choose_search_folder

    given = {
        "trials": trials,
        "rows": rows,
        "validation_rows": validation_rows,
        "steps": steps,
        "sampler": sampler,
        "pruner": pruner,
        "seeds": seeds,
    }
    config = options.resolve(
        recipe,
        data=data,
        base=base,
        budget=budget,
        seed=seed,
        text=options.split_names(text),
        label=label,
        row_id=row_id,
        numbers=numbers,
        settings=add_overrides(
            options.read_settings(settings), {f"search.{key}": value for key, value in given.items()}
        ),
    )
    result = _search(config, choose_search_folder(config, out), storage=storage, study=study, workers=workers)
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(result)


def _search(config: RunConfig, folder: Path, *, storage: str | None, study: str | None, workers: int) -> SearchResult:
    from submillion.cli.progress_bars import open_progress
    from submillion.launch import sigterm_interrupts
    from submillion.pipeline.resolve import count_labels
    from submillion.search.conduct import run_search

    try:
        with sigterm_interrupts():
            return run_search(
                config,
                folder,
                num_labels=count_labels(config),
                storage=storage,
                study=study,
                num_workers=workers,
                progress=open_progress(),
            )
    except KeyboardInterrupt:
        print_note("interrupted; the same command continues the search")
        raise typer.Exit(130) from None


def _print_result(result: SearchResult) -> None:
    print_result(_tabulate_settings(result.best_settings))
    counted = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    print_result(
        f"trial {result.best_trial} is the best: validation {result.metric} {result.best_value:.4f} ({counted})"
    )
    print_result(result.verdict)
    print_result(f"report: {result.report}")
    print_result(str(result.recipe))


def _tabulate_settings(settings: dict[str, object]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("setting")
    table.add_column("value", justify="right")
    for name, value in settings.items():
        table.add_row(make_text(name), make_text(f"{value:.4g}" if isinstance(value, float) else value))
    return table
