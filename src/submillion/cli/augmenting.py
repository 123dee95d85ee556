"""`submillion augment`: make synthetic training rows."""

from __future__ import annotations

import typer

app = typer.Typer(help="Make synthetic training rows, which `train --extra` trains on.", no_args_is_help=True)


@app.callback()
def _augment() -> None:
    """Hold the commands together, also where there is only one."""
