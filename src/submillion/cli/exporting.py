"""`submillion export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from submillion.cli import options
from submillion.cli.console import print_json, print_note, print_result


def export(
    run: options.Run,
    *,
    format: Annotated[
        options.ExportFormat,
        typer.Option("--format", help="merged: base and adapter as one model; adapter: a PEFT folder."),
    ] = "merged",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="New or empty folder.  [default: RUN/export/FORMAT]"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Export a trained run for other libraries, and compare the export's logits with the run's."""
    from submillion.cli.progress_bars import open_progress
    from submillion.scoring.exports import export_run

    exported = export_run(run, format=format, out=out, progress=open_progress())
    if as_json:
        print_json(exported.to_json())
        return
    print_note(
        f"{exported.num_params:,} numbers; on {exported.num_probes} validation texts logits differ from the run's by "
        f"at most {exported.max_logit_difference:.1e} (allowed: {exported.bound:.1e})"
    )
    print_note(f"load it with {exported.loads_with}")
    print_result(str(exported.folder))
