"""`submillion.curve`: from a recipe and its overrides to a measured curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from submillion import api
from submillion.budget_curve.fill import parse_budgets
from submillion.budget_curve.measure import CurveResult, measure_curve
from submillion.config import RunConfig
from submillion.data.labels import NumbersChoice
from submillion.data.texts import name_source, place_table
from submillion.progress import Progress

DEFAULT_BUDGETS = "10k,30k,100k,300k,1M"


def curve(
    recipe: str | PathLike[str] | Mapping[str, Any] | RunConfig,
    *,
    budgets: str | Sequence[int | str] = DEFAULT_BUDGETS,
    seeds: int = 3,
    data: api.Data | None = None,
    base: str | PathLike[str] | None = None,
    seed: int | None = None,
    text: Sequence[str] = (),
    label: str | None = None,
    row_id: str | None = None,
    numbers: NumbersChoice | None = None,
    rows: int | None = None,
    steps: int | None = None,
    set: Sequence[str] = (),
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CurveResult:
    """Measure accuracy against the trainable budget; the same call continues a curve that was stopped or killed.

    Args:
        recipe: What `submillion.train` takes; its budget and ranks make way for the largest rank below each budget.
        budgets: ``10k,30k,1M``, or a sequence of numbers and such words.
        seeds: Runs a budget: the recipe's seed and those after it.
        data: File, folder, hub id or DataFrame (kept as ``<out>.rows.parquet``); the recipe's own if absent.
        base: Base model; the recipe's own if absent.
        seed: The first seed; the recipe's if absent.
        text: Text columns; found by name if empty.
        label: Label column; found by name if absent.
        row_id: Id column; row numbers if absent.
        numbers: What numbers as labels mean; the recipe's if absent.
        rows: Training rows of each run (``data.max_records``); the recipe's if absent.
        steps: Optimizer steps of each run (``train.max_steps``); the recipe's if absent.
        set: ``key.path=value`` settings.
        out: The folder; ``runs/<name>-curve`` if not given.
        progress: Receives stages, runs and counts.

    Raises:
        ConfigError: Budgets that are none, settings that do not fit, or a folder with runs of other settings.
        BudgetError: A budget that is too small for anything of the recipe.
        SubmillionError: A run has failed.
    """
    wanted = parse_budgets(budgets)
    chosen = {"data.max_records": rows, "train.max_steps": steps}
    settings = [*set, *(f"{path}={value}" for path, value in chosen.items() if value is not None)]
    config = api.resolve_config(
        recipe,
        data=name_source(data),
        base=None if base is None else str(base),
        seed=seed,
        text=text,
        label=label,
        row_id=row_id,
        numbers=numbers,
        settings=settings,
    ).config
    folder = Path("runs") / f"{config.name}-curve" if out is None else Path(out)
    config = place_table(config, data, folder)
    return measure_curve(
        config,
        wanted,
        num_labels=api.count_labels(config),
        num_seeds=seeds,
        out=folder,
        progress=progress,
    )
