"""`submillion plan`: exact counts before any weight is loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from submillion.cli import options
from submillion.cli.console import print_json, print_result


def plan(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE_OR_ADAPTER_DIR", help="Recipe name or file, or a PEFT adapter folder.", show_default=False
        ),
    ],
    *,
    base: options.Base = None,
    budget: options.Budget = None,
    settings: options.Settings = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATA", help="Data that gives the number of classes.")
    ] = None,
    text: options.Text = None,
    label: options.Label = None,
    row_id: options.Id = None,
    numbers: options.Numbers = None,
    as_json: options.Json = False,
) -> None:
    """Count every trainable parameter of a recipe or of an adapter folder, without loading weights."""
    from submillion import api

    planned = api.plan(
        target,
        data=data,
        base=base,
        budget=budget,
        text=options.split_names(text),
        label=label,
        row_id=row_id,
        numbers=numbers,
        settings=options.read_settings(settings),
    )
    if as_json:
        print_json(planned.to_json())
        return
    from submillion.cli.tables import tabulate_plan

    for block in tabulate_plan(planned, details=True):
        print_result(block)
