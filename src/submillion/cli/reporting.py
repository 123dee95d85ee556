"""`submillion report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from submillion.cli.console import print_result


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One or more run folders.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE_OR_DIR", help="Where to; into the (first) run if absent.")
    ] = None,
) -> None:
    """Write a self-contained HTML report of one run, or of several side by side, and its plots as PNG."""
    from submillion.cli.progress import open_progress
    from submillion.report import write_report

    progress = open_progress()
    progress.start("report")
    path = write_report(runs, out)
    progress.finish()
    print_result(str(path))
