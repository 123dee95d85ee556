"""Write the report of one run, or of several side by side: one HTML file and the same plots as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from submillion.errors import RunError
from submillion.report.comparison import build_comparison
from submillion.report.run_page import build_run_page
from submillion.report.theme import render_png
from submillion.report.trainer_page import build_trainer_page
from submillion.report.trainer_state import open_run
from submillion.run.folder import RunDir, refuse_overwriting
from submillion.run.history import RunHistory, name_runs
from submillion.run.shapes import damage_is_run_error
from submillion.storage.files import explain_odd_file, write_bytes, write_text


@dataclass(frozen=True)
class WrittenReport:
    """The files of a report.

    Attributes:
        page: The HTML file.
        plots: The pictures, in the order of the page.
    """

    page: Path
    plots: tuple[Path, ...]


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write a report and return its HTML file; see `write_pages`."""
    return write_pages(runs, out).page


def write_pages(runs: Sequence[Path], out: Path | None = None) -> WrittenReport:
    """Write a self-contained HTML report and its plots as PNG.

    One run: ``report.html`` in its folder, plots in its ``plots`` folder. One run of `transformers.Trainer`:
    ``submillion-report.html`` and ``submillion-report-plots`` beside its trainer_state.json. Several runs:
    ``comparison.html`` in the first one's folder, plots in a folder ``comparison-plots`` beside it.

    Args:
        runs: Run folders, or files and folders of a Trainer as `open_run` takes them; at least one.
        out: The HTML file (``.html``), or a folder for it, instead of the default; plots of several runs go beside it.

    Raises:
        RunError: No run, a folder that is none of a run, the same folder twice, or a damaged file.
    """
    if not runs:
        raise RunError("no run folder given", hint="Give at least one folder under runs/.")
    if len({run.resolve() for run in runs}) != len(runs):
        raise RunError("a run folder is given twice", hint="Give each folder once.")
    loaded = name_runs([open_run(path) for path in runs])
    with damage_is_run_error(loaded[0].path):
        return _write_pages(loaded, out)


def _write_pages(loaded: Sequence[RunHistory], out: Path | None) -> WrittenReport:
    if len(loaded) == 1 and loaded[0].is_ours:
        file = _place(out, loaded[0].path, "report.html")
        page, plots = build_run_page(loaded[0])
        folder = RunDir(loaded[0].path).plots
    elif len(loaded) == 1:
        file = _place(out, loaded[0].path, "submillion-report.html")
        page, plots = build_trainer_page(loaded[0])
        folder = file.with_name(f"{file.stem}-plots")
    else:
        file = _place(out, loaded[0].path, "comparison.html")
        page, plots = build_comparison(loaded)
        folder = file.with_name(f"{file.stem}-plots")
    pictures = tuple(folder / f"{plot.name}.png" for plot in plots)
    try:
        for picture, plot in zip(pictures, plots, strict=True):
            write_bytes(picture, render_png(plot))
        write_text(file, page)
    except OSError as error:
        hint = "Choose another place for it with --out."
        raise RunError(f"the report cannot be written: {error.strerror}", where=str(file), hint=hint) from None
    return WrittenReport(file, pictures)


def _place(out: Path | None, folder: Path, name: str) -> Path:
    if out is None:
        return folder / name
    file = out if out.suffix in (".html", ".htm") and not out.is_dir() else out / name
    reason = "" if file.is_symlink() else explain_odd_file(file)
    if reason:
        raise RunError(f"the report cannot be written: {reason}", where=str(file), hint="Choose another name for it.")
    if file.resolve() != (folder / name).resolve():
        refuse_overwriting(file, where=f"--out {out}")
    return file
