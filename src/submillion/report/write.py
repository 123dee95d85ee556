"""Write the report of one run, or of several side by side: one HTML file and the same plots as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from submillion.errors import RunError
from submillion.report import comparison, sections, trainer_page, words
from submillion.report.curves import list_curves, list_overlaid_curves
from submillion.report.data_findings import data_section, list_data_plots
from submillion.report.page import Section, build_page
from submillion.report.theme import Plot, render_png
from submillion.report.trainer_state import open_run
from submillion.run.folder import RunDir, refuse_overwriting
from submillion.run.history import LoadedRun, name_runs
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


def _write_pages(loaded: Sequence[LoadedRun], out: Path | None) -> WrittenReport:
    if len(loaded) == 1 and loaded[0].kind == "run":
        file = _place(out, loaded[0].path, "report.html")
        page, plots = _report_run(loaded[0])
        folder = RunDir(loaded[0].path).plots
    elif len(loaded) == 1:
        file = _place(out, loaded[0].path, "submillion-report.html")
        page, plots = _report_trainer(loaded[0])
        folder = file.with_name(f"{file.stem}-plots")
    else:
        file = _place(out, loaded[0].path, "comparison.html")
        page, plots = _report_comparison(loaded)
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
    drawn += [*curves, *by_split.values(), *sections.plan_plots(run), *data_plots]
    return page, drawn


def _report_trainer(run: LoadedRun) -> tuple[str, list[Plot]]:
    curves = list_curves(run)
    page = build_page(
        f"{words.shorten(run.title, 80)} \N{MIDDLE DOT} submillion",
        trainer_page.show_trainer_heading(run),
        trainer_page.show_trainer_opening(run),
        trainer_page.trainer_sections(run, curves),
    )
    return page, curves


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
            comparison.overlay_section(runs, curves),
            comparison.settings_section(runs),
        ],
    )
    return page, [*([accuracies] if accuracies else []), *curves]
