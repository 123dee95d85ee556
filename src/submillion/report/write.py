"""Write the report of one run, or of several side by side: one HTML file and the same plots as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

from submillion.errors import RunError
from submillion.report import comparison, sections
from submillion.report.curves import list_curves, list_overlaid_curves
from submillion.report.findings import data_section, list_data_plots
from submillion.report.load import LoadedRun, load_run, name_runs
from submillion.report.page import Section, build_page
from submillion.report.plots import plan_plot
from submillion.report.theme import Plot, render_png
from submillion.rundir import RunDir, write_atomically, write_text


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write a self-contained HTML report and its plots as PNG.

    One run: ``report.html`` in its folder, plots in its ``plots`` folder. Several: ``comparison.html`` in the first
    run's folder, plots in a folder ``comparison-plots`` beside it.

    Args:
        runs: Run folders, at least one.
        out: The HTML file (``.html``), or a folder for it, instead of the default; plots of several runs go beside it.

    Returns:
        The HTML file.

    Raises:
        RunError: No run, a folder that is none of a run, the same folder twice, or a damaged file.
    """
    if not runs:
        raise RunError("no run folder given", hint="Give at least one folder under runs/.")
    if len({run.resolve() for run in runs}) != len(runs):
        raise RunError("a run folder is given twice", hint="Give each folder once.")
    loaded = name_runs([load_run(path) for path in runs])
    if len(loaded) == 1:
        file = _place(out, runs[0], "report.html")
        page, plots = _report_run(loaded[0])
        folder = RunDir(runs[0]).plots
    else:
        file = _place(out, runs[0], "comparison.html")
        page, plots = _report_comparison(loaded)
        folder = file.with_name(f"{file.stem}-plots")
    for plot in plots:
        write_atomically(folder / f"{plot.name}.png", partial(_write_bytes, render_png(plot)))
    write_text(file, page)
    return file


def _write_bytes(content: bytes, stream: IO[bytes]) -> int:
    return stream.write(content)


def _place(out: Path | None, folder: Path, name: str) -> Path:
    if out is None:
        return folder / name
    return out if out.suffix in (".html", ".htm") and not out.is_dir() else out / name


def _report_run(run: LoadedRun) -> tuple[str, list[Plot]]:
    predictions = sections.load_main_predictions(run)
    curves = list_curves(run)
    accuracies = sections.result_plot(run)
    by_split = sections.split_plots(run, predictions)
    data_plots = list_data_plots(run)
    candidates: list[Section | None] = [
        sections.results_section(run, accuracies),
        sections.curves_section(run, curves),
        sections.errors_section(run, by_split, predictions),
        sections.trust_section(run, by_split),
        sections.plan_section(run),
        data_section(run, data_plots),
        sections.repeat_section(run),
    ]
    page = build_page(
        f"{run.config.get('name', run.title)} \N{MIDDLE DOT} submillion",
        sections.show_heading(run),
        sections.show_opening(run),
        [section for section in candidates if section is not None],
    )
    drawn = [accuracies] if accuracies else []
    drawn += [*curves, *by_split.values(), *([plan_plot(run)] if run.plan else []), *data_plots]
    return page, drawn


def _report_comparison(runs: Sequence[LoadedRun]) -> tuple[str, list[Plot]]:
    accuracies = comparison.interval_plot(runs)
    curves = list_overlaid_curves(runs)
    page = build_page(
        f"{len(runs)} runs \N{MIDDLE DOT} submillion",
        comparison.show_comparison_heading(runs),
        comparison.show_summary(runs),
        [
            comparison.runs_section(runs, accuracies),
            comparison.tests_section(runs),
            comparison.overlay_section(curves),
            comparison.settings_section(runs),
        ],
    )
    return page, [*([accuracies] if accuracies else []), *curves]
