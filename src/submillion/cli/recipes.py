"""`submillion recipes`: list, show and copy the shipped recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from submillion.cli.console import make_text, print_note, print_raw, print_result

app = typer.Typer(help="List, show or copy the shipped recipes.", invoke_without_command=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a shipped recipe.", show_default=False)]


@app.callback()
def _list(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from submillion.recipes import list_recipes, load_recipe

    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for column in ("recipe", "base", "about"):
        table.add_column(column)
    for name in list_recipes():
        recipe = load_recipe(name)
        table.add_row(make_text(name, "bold"), make_text(recipe.model.base), make_text(_first_sentence(recipe.about)))
    print_result(table)


def _first_sentence(text: str) -> str:
    first, dot, _ = " ".join(text.split()).partition(". ")
    return first + "." if dot else first


@app.command("show")
def show(name: Name) -> None:
    """Print a recipe as YAML."""
    from submillion.recipes import read_recipe

    print_raw(read_recipe(name))


@app.command("copy")
def copy(
    name: Name,
    to: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="File to write; by default ./NAME.yaml.", show_default=False)
    ] = None,
) -> None:
    """Copy a recipe to a file that you can change."""
    from submillion.errors import ConfigError
    from submillion.recipes import read_recipe
    from submillion.storage.files import write_text

    text = read_recipe(name)
    path = to or Path(f"{Path(name).stem}.yaml")
    if path.exists():
        raise ConfigError("exists already", where=str(path), hint="Name another file: `recipes copy NAME FILE`.")
    if not path.parent.is_dir():
        raise ConfigError("there is no such folder", where=str(path.parent), hint="Make it first.")
    write_text(path, text)
    print_note("Train with it: submillion train " + str(path))
    print_result(str(path))
