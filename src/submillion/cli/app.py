"""The commands of the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from submillion import __version__
from submillion.cli import (
    augmenting,
    curving,
    data,
    exporting,
    planning,
    recipes,
    reporting,
    scoring,
    training,
    tuning,
)


@contextmanager
def ending_quietly() -> Iterator[None]:
    """Exit with 130 on Ctrl-C and with 141 if the reader of stdout has closed it, as shells expect.

    Raises:
        Exit: The block was ended in one of these ways.
    """
    from submillion.cli.console import print_note, silence_stdout

    try:
        yield
    except KeyboardInterrupt:
        print_note("interrupted")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        silence_stdout()
        raise typer.Exit(141) from None


class Commands(TyperGroup):
    """The group of all commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command until it ends, the user interrupts it or the reader of stdout closes it."""
        with ending_quietly():
            return super().invoke(ctx)


app = typer.Typer(
    name="submillion",
    cls=Commands,
    help="Fine-tune a text classifier with fewer than a million trainable parameters, and know exactly what you got.",
    epilog="Exit codes: 0 done, 1 bug, 2 usage or settings, 3 data, 4 budget, 5 model, 6 run, 130 interrupted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"submillion {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; accepted anywhere on the line.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("demo")(training.demo)
app.add_typer(recipes.app, name="recipes")
app.command("plan")(planning.plan)
app.command("check")(data.check)
app.command("train")(training.train)
app.add_typer(augmenting.app, name="augment")
app.command("tune")(tuning.tune)
app.command("curve")(curving.curve)
app.command("evaluate")(scoring.evaluate)
app.command("compare")(scoring.compare)
app.command("predict")(scoring.predict)
app.command("classify")(scoring.classify)
app.command("export")(exporting.export)
app.command("report")(reporting.report)
