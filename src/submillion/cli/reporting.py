"""`submillion report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from submillion.cli.console import print_json, print_result


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run folders, or a trainer_state.json of transformers.Trainer, or its folder.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE_OR_DIR", help="Place to write to; by default the (first) run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: report, plots.")] = False,
) -> None:
    """Write a self-contained HTML report of one run, or of several side by side, with its plots as PNG."""
    from submillion.cli.progress_bars import open_progress
    from submillion.report.write import write_pages

    progress = open_progress()
    progress.start("report")
    written = write_pages(runs, out)
    progress.finish()
    if as_json:
        print_json({"report": str(written.page), "plots": [str(plot) for plot in written.plots]})
    else:
        print_result(str(written.page))
