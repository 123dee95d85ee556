"""`submillion train` and `submillion demo`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from submillion.cli import options
from submillion.cli.console import print_json, print_note, print_result
from submillion.storage.json_shapes import JsonObject

if TYPE_CHECKING:
    from submillion.config.run import RunConfig
    from submillion.pipeline.finish import RunSummary

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="New or empty run folder.  [default: runs/NAME-TIME]"),
]


Extra = Annotated[
    list[str] | None,
    typer.Option(
        "--extra", metavar="FILE[:WEIGHT]", help="Synthetic rows from `augment` to train on as well; repeatable."
    ),
]
StartFrom = Annotated[
    str | None,
    typer.Option("--from", metavar="RUN", help="Start from the weights of a run, checkpoint or adapter folder."),
]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="DIR", help="Continue the run in this folder, without a recipe.")
]


def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="Recipe name or YAML file.", show_default=False)
    ] = None,
    *,
    data: options.RecipeData = None,
    base: options.Base = None,
    budget: options.Budget = None,
    seed: options.Seed = None,
    text: options.Text = None,
    label: options.Label = None,
    row_id: options.Id = None,
    numbers: options.Numbers = None,
    extra: Extra = None,
    settings: options.Settings = None,
    out: Out = None,
    start_from: StartFrom = None,
    resume: Resume = None,
    as_json: options.Json = False,
) -> None:
    """Train a classifier: read, clean, check, split, plan, train, test, report. The run folder is printed last."""
    from submillion.errors import ConfigError

    if resume is not None:
        given = {
            "RECIPE": recipe,
            "--data": data,
            "--base": base,
            "--budget": budget,
            "--seed": seed,
            "--text": text,
            "--label": label,
            "--id": row_id,
            "--numbers": numbers,
            "--extra": extra or None,
            "--set": settings or None,
            "--out": out,
            "--from": start_from,
        }
        _refuse_changes(resume, given)
        _print_summary(_resume(resume), as_json=as_json)
        return
    if recipe is None:
        hint = "`submillion recipes` lists them. --resume DIR needs none."
        raise ConfigError("no recipe is given", where="train", hint=hint)
    config = options.resolve(
        recipe,
        data=data,
        base=base,
        budget=budget,
        seed=seed,
        text=options.split_names(text),
        label=label,
        row_id=row_id,
        numbers=numbers,
        extra=[_split_weight(given) for given in extra or ()],
        start_from=start_from,
        settings=options.read_settings(settings),
    )
    _print_summary(_start(config, out), as_json=as_json)


def _refuse_changes(resume: Path, given: Mapping[str, object]) -> None:
    from submillion.errors import ConfigError

    useless = [name for name, value in given.items() if value is not None]
    if useless:
        raise ConfigError(
            f"{', '.join(useless)} cannot be changed in a run that is continued",
            where="--resume",
            hint=f"Give only --resume {resume}; or start a new run without it.",
        )


def _split_weight(given: str) -> tuple[str, float]:
    """Return file and weight of ``FILE`` or ``FILE:WEIGHT``; if the whole text is an existing file, that is used."""
    path, colon, weight = given.rpartition(":")
    if not colon or Path(given).exists():
        return given, 1.0
    try:
        return path, float(weight)
    except ValueError:
        return given, 1.0


def demo(out: Out = None) -> None:
    """Train on the shipped news items with the bundled MiniLM: the whole pipeline, without a network."""
    from submillion.report.formatting import show_interval, show_percent
    from submillion.run.folder import RunDir
    from submillion.training.collective import is_first_process

    summary = _start(options.resolve("demo"), out)
    figures, baseline = summary.evaluations["test"], summary.baselines["test"]
    _print_summary(summary, as_json=False)
    if not is_first_process():
        return
    print_result("")
    for name, values in (("accuracy", figures), ("TF-IDF baseline", baseline)):
        interval = show_interval(values["accuracy_interval"])
        records = f"{values['num_records']:,} test items"
        print_result(f"{name + ':':<17}{show_percent(values['accuracy'])} (95 % interval {interval}) on {records}")
    print_result(f"{'report:':<17}{RunDir(summary.run).report}")


def _start(config: RunConfig, out: Path | None) -> RunSummary:
    from submillion.cli.progress_bars import open_progress
    from submillion.pipeline.run import choose_folder, start_run

    folder = out or choose_folder(config)
    with _resumable(folder):
        return start_run(config, folder, progress=open_progress())


def _resume(folder: Path) -> RunSummary:
    from submillion.cli.progress_bars import open_progress
    from submillion.pipeline.run import resume_run

    with _resumable(folder):
        return resume_run(folder, progress=open_progress())


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, and print after either how to continue the run.

    With several processes, only the first one prints, since a signal to one of them ends all.
    """
    from submillion.errors import SubmillionError
    from submillion.launch import sigterm_interrupts
    from submillion.training.collective import is_first_process

    try:
        with sigterm_interrupts():
            yield
    except KeyboardInterrupt:
        from submillion.run.folder import RunDir

        if is_first_process() and RunDir(folder).config.exists():
            print_note(f"interrupted; continue with: submillion train --resume {folder}")
        raise typer.Exit(130) from None
    except SubmillionError as error:
        if is_first_process():
            raise
        raise typer.Exit(error.exit_code) from None


def _print_summary(summary: RunSummary, *, as_json: bool) -> None:
    from submillion.cli.progress_bars import format_duration
    from submillion.cli.tables import tabulate_run
    from submillion.run.folder import RunDir
    from submillion.training.collective import is_first_process

    if not is_first_process():
        return
    report = RunDir(summary.run).report if RunDir(summary.run).report.exists() else None
    if as_json:
        print_json(_describe(summary, report))
        return
    for sentence in summary.verdict.get("sentences", ()):
        print_result(sentence)
    print_result(tabulate_run(summary.evaluations, summary.baselines))
    if summary.baselines:
        print_result("difference: model minus TF-IDF baseline on the same rows, in points; p: McNemar's exact test")
    print_result("")
    rate = f", {summary.rows_per_s:.1f} training rows/s" if summary.rows_per_s is not None else ""
    print_result(f"{summary.plan.trainable_params:,} trainable parameters, {format_duration(summary.wall_s)}{rate}")
    if report is not None:
        print_result(f"report: {report}")
    print_result(str(summary.run))


def _describe(summary: RunSummary, report: Path | None) -> JsonObject:
    plan = summary.plan
    return {
        "run": str(summary.run),
        "report": None if report is None else str(report),
        "trainable_params": plan.trainable_params,
        "adapter_params": plan.adapter_params,
        "head_params": plan.head_params,
        "bias_params": plan.bias_params,
        "budget": plan.budget,
        "evaluations": summary.evaluations,
        "baselines": summary.baselines,
        "verdict": summary.verdict,
        "wall_s": summary.wall_s,
        "rows_per_s": summary.rows_per_s,
    }
