"""The Python API: `train`, `tune`, `plan`, `load`, `predict` and `export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from submillion.budget.adapter_settings import choose_base
from submillion.budget.folder import plan_adapter_folder
from submillion.budget.plan import Plan, make_plan
from submillion.config.nested import add_overrides
from submillion.config.run import ExportFormat, RunConfig
from submillion.data.columns import make_columns
from submillion.data.labels import NumbersChoice
from submillion.data.texts import is_table, open_source, place_table, placing_table
from submillion.errors import ConfigError
from submillion.model.sources import load_base_config
from submillion.pipeline.resolve import ExtraRows, Recipe, count_labels, resolve_config
from submillion.progress import Progress, Silent

if TYPE_CHECKING:
    from submillion.data.label_files import LabelChoice
    from submillion.pipeline.finish import RunSummary
    from submillion.scoring.exports import Exported
    from submillion.scoring.predictions import PredictedFile
    from submillion.scoring.run_model import RunModel
    from submillion.search.conduct import SearchResult

Data = Any
"""A path, ``hf:owner/name``, or a table: a DataFrame of pandas or polars, or a table of pyarrow."""


def train(
    recipe: Recipe,
    *,
    data: Data | None = None,
    base: str | PathLike[str] | None = None,
    budget: int | None = None,
    seed: int | None = None,
    text: str | Sequence[str] = (),
    label: str | None = None,
    row_id: str | None = None,
    numbers: NumbersChoice | None = None,
    extra: Sequence[ExtraRows] = (),
    start_from: str | PathLike[str] | None = None,
    settings: Mapping[str, object] = {},
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """Train a classifier and return a summary; `load(summary.run)` gives the classifier.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, nested settings, or a whole configuration.
        data: File, folder, hub id or DataFrame (kept as ``<out>.rows.parquet``); the recipe's own if absent.
        base: Base model; the recipe's own if absent.
        budget: Trainable parameters stay strictly below this.
        seed: Seed of the training.
        text: Text columns; the recipe's, or found by name, if empty.
        label: Label column, likewise.
        row_id: Id column, likewise; ``none`` for row numbers.
        numbers: Meaning of numbers as labels: ``names`` of classes, or ``ids`` from 0 or ``ids-from-1``.
        extra: Files of synthetic rows to train on as well, each with its weight in the loss if that is not 1; the
            recipe's own (`data.extra`) if there are none here.
        start_from: Run, checkpoint or PEFT adapter folder whose trained weights the run begins with.
        settings: Further settings by dotted path, applied last, such as ``{"train.epochs": 2}``.
        out: The run folder, empty or absent; a new one under ``runs/`` if not given.
        progress: Receives stages and counts.

    Raises:
        SubmillionError: Its kind says what is wrong: settings, data, budget, model or run.
    """
    from submillion.pipeline.run import choose_folder, start_run

    config = resolve_config(
        recipe,
        data=data,
        base=base,
        budget=budget,
        seed=seed,
        text=text,
        label=label,
        row_id=row_id,
        numbers=numbers,
        extra=extra,
        start_from=start_from,
        settings=settings,
    ).config
    folder = Path(out) if out is not None else choose_folder(config) if is_table(data) else None
    with placing_table(config, data, folder if is_table(data) else None, is_ours=out is None) as placed:
        return start_run(placed, folder, progress=progress or Silent())


def tune(
    recipe: Recipe,
    *,
    data: Data | None = None,
    base: str | PathLike[str] | None = None,
    budget: int | None = None,
    seed: int | None = None,
    text: str | Sequence[str] = (),
    label: str | None = None,
    row_id: str | None = None,
    numbers: NumbersChoice | None = None,
    settings: Mapping[str, object] = {},
    trials: int | None = None,
    storage: str | None = None,
    study: str | None = None,
    workers: int = 1,
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search for better settings of a recipe within its budget; the same call continues a search.

    Args:
        recipe: Recipe as `train` takes it. Its section `search` says what varies, how long a trial is and how the best
            is confirmed.
        data: File, folder, hub id or DataFrame (kept as ``<out>.rows.parquet``); the recipe's own if absent.
        base: Base model; the recipe's own if absent.
        budget: Trainable parameters of every trial stay strictly below this.
        seed: Seed of the search and of the trials.
        text: Text columns; the recipe's, or found by name, if empty.
        label: Label column, likewise.
        row_id: Id column, likewise; ``none`` for row numbers.
        numbers: Meaning of numbers as labels: ``names`` of classes, or ``ids`` from 0 or ``ids-from-1``.
        settings: Further settings by dotted path, applied last, such as ``{"search.steps": 200}``.
        trials: Trials of the study, those of earlier calls included; the recipe's number if absent.
        storage: URL of the study's storage; a SQLite file in the folder if absent.
        study: Name of the study there; the recipe's name if absent.
        workers: Number of trials at the same time, each with its part of the CPUs.
        out: The folder of the search; ``runs/<name>-search`` if not given.
        progress: Receives stages, trials and counts.

    Raises:
        SubmillionError: Its kind says what is wrong: settings, data, budget, model or run.
    """
    from submillion.search.conduct import choose_search_folder, run_search

    if workers < 1:
        raise ConfigError(f"{workers} workers make no trials", where="workers", hint="Give 1 or more.")
    columns: dict[str, Any] = {"text": text, "label": label, "row_id": row_id, "numbers": numbers}
    chosen = add_overrides(settings, {"search.trials": trials})
    config = resolve_config(recipe, data=data, base=base, budget=budget, seed=seed, **columns, settings=chosen).config
    folder = choose_search_folder(config, None if out is None else Path(out))
    config = place_table(config, data, folder)
    classes = count_labels(config)
    return run_search(
        config, folder, num_labels=classes, storage=storage, study=study, num_workers=workers, progress=progress
    )


def load(
    run: str | PathLike[str],
    *,
    base: str | PathLike[str] | None = None,
    precision: Literal["bf16", "int8"] | None = None,
) -> RunModel:
    """Return a trained run, ready to classify: ``load("runs/news").classify(["Rain stops play"])``.

    Args:
        run: A run folder, or an adapter folder in PEFT's format with a classification head in it.
        base: Base model of an adapter folder, where it is not the one that the adapter names.
        precision: Precision of the encoder's products; as trained if absent. ``int8`` is the fastest.

    Raises:
        RunError: The folder is no finished run.
        ConfigError: A base for a run, which has its own; or a precision that is not to be had on this machine.
        ModelError: The base model cannot be found, or the adapter does not fit it.
    """
    from submillion.scoring.run_model import load_run

    return load_run(Path(run), base=None if base is None else str(base), precision=precision)


def predict(
    run: str | PathLike[str] | RunModel,
    data: Data,
    *,
    out: str | PathLike[str],
    labels: LabelChoice | None = None,
    probabilities: bool = False,
    defuse_formulas: bool = False,
    text: str | Sequence[str] = (),
    row_id: str | None = None,
    precision: Literal["bf16", "int8"] | None = None,
    progress: Progress | None = None,
) -> PredictedFile:
    """Predict the labels of a file, row by row in its order, as a file with the columns ID and Label.

    Few rows are in memory at once. The new file is there when all rows are done, and otherwise not at all.

    Args:
        run: A folder that `load` takes, or what it has loaded.
        data: File, folder or hub id with one file, or DataFrame.
        out: A .csv, .jsonl or .parquet file.
        labels: ``ids`` for positions from 0, ``names`` for class names; as the training rows had them if absent.
        probabilities: Whether each class gets a column ``probability_<class>``.
        defuse_formulas: Whether csv cells that a spreadsheet would compute get a quote before them.
        text: Text columns of this data; those that the run was trained on if empty.
        row_id: Id column, likewise; ``none`` for row numbers.
        precision: Precision of the encoder's products for a folder; as trained if absent.
        progress: Receives stages, counts and notes.

    Raises:
        ConfigError: An output that could not be written, or would destroy something.
        DataError: Data that cannot be read, or lacks a column of the run.
        RunError: The folder is no finished run, or the disk is full.
    """
    from submillion.scoring.predictions import predict_file
    from submillion.scoring.run_model import RunModel

    with open_source(data) as source:
        return predict_file(
            lambda: run if isinstance(run, RunModel) else load(run, precision=precision),
            source,
            Path(out),
            asked=make_columns(text, None, row_id),
            labels=labels,
            probabilities=probabilities,
            defuse_formulas=defuse_formulas,
            progress=progress,
        )


def export(
    run: str | PathLike[str],
    *,
    format: ExportFormat = "merged",
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Export a trained run for other libraries, and compare its logits with the run's before it is handed out.

    Args:
        run: The run folder.
        format: ``merged``, base and adapter as one model, or ``adapter``, PEFT's folder.
        out: The new folder, empty or absent; ``export/<format>`` in the run if not given.
        progress: Receives stages and counts.

    Raises:
        ConfigError: `out` exists and is not empty.
        RunError: No trained run; or the export gives other logits than the run, and then nothing of it stays.
        ModelError: The base model cannot be found.
    """
    from submillion.scoring.exports import export_run

    return export_run(Path(run), format=format, out=None if out is None else Path(out), progress=progress)


def plan(
    target: Recipe,
    *,
    data: Data | None = None,
    base: str | PathLike[str] | None = None,
    budget: int | None = None,
    text: str | Sequence[str] = (),
    label: str | None = None,
    row_id: str | None = None,
    numbers: NumbersChoice | None = None,
    settings: Mapping[str, object] = {},
) -> Plan:
    """Count every trainable parameter of a recipe, or of a PEFT adapter folder, without loading weights.

    Args:
        target: Recipe as `train` takes it, or a folder with adapter_config.json and adapter_model.safetensors.
        data: Data that gives the number of classes, if the recipe does not say.
        base: Base model; the one named by the recipe or the adapter if absent.
        budget: Limit that the trainable parameters must stay strictly below.
        text: Text columns; the recipe's, or found by name, if empty.
        label: Label column, likewise.
        row_id: Id column, likewise; ``none`` for row numbers.
        numbers: Meaning of numbers as labels: ``names`` of classes, or ``ids`` from 0 or ``ids-from-1``.
        settings: Further settings of a recipe by dotted path, applied last, such as ``{"adapter.rank": 4}``.

    Raises:
        ConfigError: Settings that do not fit each other or the base model.
        BudgetError: The plan reaches the budget; says what would fit.
        ModelError: The base model's configuration or the adapter cannot be read.

    Examples:
        >>> plan("agnews-qkv-r4").trainable_params
        814852
    """
    columns: dict[str, Any] = {"text": text, "label": label, "row_id": row_id, "numbers": numbers}
    if isinstance(target, (str, PathLike)) and Path(target).is_dir():
        _refuse_useless({"data": data, **columns, **settings}, target)
        return _plan_folder(Path(target), base=None if base is None else str(base), budget=budget)
    config = resolve_config(target, data=data, base=base, budget=budget, **columns, settings=settings).config
    with TemporaryDirectory(prefix="submillion-plan-") as folder:
        num_labels = count_labels(place_table(config, data, Path(folder) / "plan"))
    return make_plan(
        load_base_config(config.model.base, config.model.revision),
        base=config.model.base,
        num_labels=num_labels,
        model=config.model,
        adapter=config.adapter,
        budget=config.budget,
    )


def _refuse_useless(given: Mapping[str, object], folder: str | PathLike[str]) -> None:
    useless = [name for name, value in given.items() if value is not None and value != ()]
    if useless:
        raise ConfigError(
            f"{useless[0]!r} has no effect on an adapter folder",
            where=str(folder),
            hint="Its counts come from the adapter itself; leave it out.",
        )


def _plan_folder(folder: Path, *, base: str | None, budget: int | None) -> Plan:
    name, revision = choose_base(folder, base)
    limit = RunConfig().budget if budget is None else budget
    return plan_adapter_folder(folder, load_base_config(name, revision), budget=limit, base=name)
