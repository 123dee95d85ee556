"""Measure a curve: plan every budget, train each over the seeds in separate processes, combine, draw.

The same call continues: finished runs are kept, and the one that was under way continues from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from submillion.budget_curve.fill_budget import Filled, fill_budget
from submillion.config.run import FinalConfig, RunConfig
from submillion.errors import ConfigError
from submillion.launch import LaunchedRun, launch_run
from submillion.metrics import stats
from submillion.model.sources import load_base_config
from submillion.progress import Progress, Silent
from submillion.report.budget_page import write_budget_page
from submillion.run.folder import RunDir, refuse_overwriting
from submillion.run.paired import compare_outcomes, read_outcomes
from submillion.run.reader import read_manifest
from submillion.storage.files import read_json, write_json
from submillion.storage.json_shapes import JsonObject

SHOWN = ("validation", "test")


@dataclass(frozen=True)
class CurveResult:
    """A measured curve.

    Attributes:
        folder: Folder with the runs, ``curve.json``, ``curve.csv``, ``curve.png`` and ``curve.html``.
        figures: Content of ``curve.json``: ``recipe``, ``base``, ``split``, ``num_records``, ``seeds``, ``points`` (one
            a budget, ascending), ``tests`` (of neighbouring budgets) and ``baseline`` (TF-IDF on the same rows, or
            None).
    """

    folder: Path
    figures: JsonObject

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "curve.html"

    def to_json(self) -> JsonObject:
        """Return the figures with the folder and the page."""
        return {"folder": str(self.folder), "report": str(self.report), **self.figures}


def measure_curve(
    config: RunConfig,
    budgets: Sequence[int],
    *,
    num_labels: int,
    num_seeds: int,
    out: Path | None = None,
    progress: Progress | None = None,
) -> CurveResult:
    """Train a recipe at several budgets over several seeds, and write table, plot and page.

    All budgets are planned before the first run, so that one that cannot be filled costs nothing. Every run scores
    its test rows once, which its manifest records.

    Args:
        config: The recipe; its budget, rank and ranks have no effect (see `fill_budget`).
        budgets: Ascending, each once.
        num_labels: Number of classes C.
        num_seeds: Runs a budget, with the recipe's seed and those after it.
        out: The folder; ``runs/<name>-curve`` if None.
        progress: Receiver of a note for each run.

    Raises:
        ConfigError: No seeds, or a folder with runs of other settings.
        BudgetError: A budget that nothing of the recipe fits.
        SubmillionError: A run has failed.
        KeyboardInterrupt: Asked to stop; the run under way has saved.
    """
    if num_seeds < 1:
        raise ConfigError(f"{num_seeds} seeds give no runs", where="seeds", hint="Three show how much runs differ.")
    progress = progress or Silent()
    folder = out or Path("runs") / f"{config.name}-curve"
    refuse_overwriting(folder, where=str(folder))
    base_config = load_base_config(config.model.base, config.model.revision)
    filled = [fill_budget(config, base_config, num_labels=num_labels, budget=budget) for budget in budgets]
    for choice in filled:
        progress.note(f"budget {choice.plan.budget:,}: {choice.plan.trainable_params:,} parameters, {choice.how}")
    seeds = [config.seed + number for number in range(num_seeds)]
    runs: dict[int, list[LaunchedRun]] = {budget: [] for budget in budgets}
    progress.start("curve", len(filled) * num_seeds)
    done = 0
    # Seed by seed, so that a curve that is stopped halfway is a whole curve over fewer seeds.
    for seed in seeds:
        for choice in filled:
            budget = choice.plan.budget
            launched = _launch(choice, seed, folder, has_baseline=config.baseline and seed == config.seed)
            runs[budget].append(launched)
            done += 1
            shown = ", ".join(
                f"{name} {values['accuracy']:.2%}" for name, values in launched.evaluations.items() if name in SHOWN
            )
            progress.note(f"budget {budget:,}, seed {seed}: accuracy on {shown}")
            progress.advance(done)
    progress.finish()
    figures = _describe(config, filled, runs, seeds)
    write_json(folder / "curve.json", figures)
    write_budget_page(folder, figures)
    return CurveResult(folder, figures)


def _launch(choice: Filled, seed: int, folder: Path, *, has_baseline: bool) -> LaunchedRun:
    name = f"budget-{choice.plan.budget}-seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    # One page for all runs. The baseline sees the same rows in each; which runs have it must not depend on the other
    # budgets, or adding one would change the settings of those that are there.
    final = FinalConfig(test=True, proof=True, report=False)
    changes: JsonObject = {"seed": seed, "baseline": has_baseline, "final": final}
    return launch_run(choice.config.model_copy(update=changes), folder / name)


def _describe(
    config: RunConfig, filled: Sequence[Filled], runs: dict[int, list[LaunchedRun]], seeds: Sequence[int]
) -> JsonObject:
    split = "test" if all("test" in run.evaluations for kept in runs.values() for run in kept) else "validation"
    budgets = [choice.plan.budget for choice in filled]
    right = read_outcomes([run.run for budget in budgets for run in runs[budget]], split)
    outcomes = dict(zip(budgets, np.split(right, len(budgets)), strict=True))
    points = []
    for choice in filled:
        budget = choice.plan.budget
        points.append(
            {
                "budget": budget,
                "trainable_params": choice.plan.trainable_params,
                "how": choice.how,
                **describe_point(outcomes[budget]),
                "runs": [run.run.name for run in runs[budget]],
                "num_test_evaluations": [read_manifest(RunDir(run.run)).num_test_evaluations for run in runs[budget]],
            }
        )
    tests = [
        {"smaller": first, "larger": second, **compare_outcomes(outcomes[second], outcomes[first])}
        for first, second in pairwise(budgets)
    ]
    baseline = RunDir(runs[budgets[0]][0].run).evaluation(f"{split}.baseline")
    return {
        "recipe": config.name,
        "base": config.model.base,
        "split": split,
        "num_records": int(outcomes[budgets[0]].shape[1]),
        "seeds": list(seeds),
        "points": points,
        "tests": tests,
        "baseline": read_json(baseline)["accuracy"] if baseline.exists() else None,
    }


def describe_point(right: NDArray[np.bool_]) -> dict[str, object]:
    """Return mean accuracy over seeds, its 95 % interval, and what each seed had.

    The interval draws runs and records with replacement (`stats.bootstrap_runs`), so it is about other seeds and other
    records at once; a record that three runs have scored counts as one record. With one seed it is about records alone.

    Args:
        right: Whether each run was right on each record, shape (S, n).
    """
    interval = stats.bootstrap_runs(right, np.zeros_like(right), seed=0)
    return {
        "accuracy": float(right.mean()),
        "accuracy_interval": list(interval),
        "accuracies": [float(run.mean()) for run in right],
    }
