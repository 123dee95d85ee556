"""``python -m benchmarks [train|score|data]``, from the root of the repository."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperCommand

from benchmarks.command import bench
from submillion.cli import run_program
from submillion.cli.app import ending_quietly


class QuietCommand(TyperCommand):
    """A command that ends like the commands of submillion."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command until it ends, the user interrupts it or the reader of stdout closes it."""
        with ending_quietly():
            return super().invoke(ctx)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command("benchmarks", cls=QuietCommand, context_settings={"help_option_names": ["-h", "--help"]})(bench)


if __name__ == "__main__":
    sys.exit(run_program(lambda: app, "benchmarks"))
