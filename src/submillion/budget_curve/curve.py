"""`submillion.curve`: from a recipe and its overrides to a measured curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from submillion.api import Data
from submillion.budget_curve.fill_budget import parse_budgets
from submillion.budget_curve.measure import CurveResult, measure_curve
from submillion.config.nested import add_overrides
from submillion.data.labels import NumbersChoice
from submillion.data.texts import place_table
from submillion.pipeline.resolve import Recipe, count_labels, resolve_config
from submillion.progress import Progress

DEFAULT_BUDGETS = "10k,30k,100k,300k,1M"


def curve(
    recipe: Recipe,
    *,
    budgets: str | Sequence[int | str] = DEFAULT_BUDGETS,
    seeds: int = 3,
    data: Data | None = None,
    base: str | PathLike[str] | None = None,
    seed: int | None = None,
    text: str | Sequence[str] = (),
    label: str | None = None,
    row_id: str | None = None,
    numbers: NumbersChoice | None = None,
    rows: int | None = None,
    steps: int | None = None,
    settings: Mapping[str, object] = {},
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CurveResult:
    """Measure accuracy against the trainable budget; the same call continues a curve that was stopped or killed.

    Args:
        recipe: Recipe as `submillion.train` takes it. The largest rank below each budget replaces its budget and ranks.
        budgets: ``10k,30k,1M``, or a sequence of numbers and such words.
        seeds: Runs a budget: the recipe's seed and those after it.
        data: File, folder, hub id or DataFrame (kept as ``<out>.rows.parquet``); the recipe's own if absent.
        base: Base model; the recipe's own if absent.
        seed: The first seed; the recipe's if absent.
        text: Text columns; the recipe's, or found by name, if empty.
        label: Label column, likewise.
        row_id: Id column, likewise; ``none`` for row numbers.
        numbers: Meaning of numbers as labels: ``names`` of classes, or ``ids`` from 0 or ``ids-from-1``.
        rows: Training rows of each run (``data.max_records``); the recipe's if absent.
        steps: Optimizer steps of each run (``train.max_steps``); the recipe's if absent.
        settings: Further settings by dotted path, applied last, such as ``{"train.epochs": 2}``.
        out: The folder; ``runs/<name>-curve`` if not given.
        progress: Receives stages, runs and counts.

    Raises:
        ConfigError: Budgets that are none, settings that do not fit, or a folder with runs of other settings.
        BudgetError: A budget that is too small for anything of the recipe.
        SubmillionError: A run has failed.
    """
    wanted = parse_budgets(budgets)
    config = resolve_config(
        recipe,
        data=data,
        base=base,
        seed=seed,
        text=text,
        label=label,
        row_id=row_id,
        numbers=numbers,
        settings=add_overrides(settings, {"data.max_records": rows, "train.max_steps": steps}),
    ).config
    folder = Path("runs") / f"{config.name}-curve" if out is None else Path(out)
    config = place_table(config, data, folder)
    return measure_curve(
        config, wanted, num_labels=count_labels(config), num_seeds=seeds, out=folder, progress=progress
    )
