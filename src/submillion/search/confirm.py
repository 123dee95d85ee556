"""Whether the best trial's settings are better than the recipe's: full runs of both over several seeds, paired."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion import stats
from submillion.config import RunConfig, dump_config
from submillion.errors import RunError
from submillion.evaluate import compare_correct
from submillion.launch import LaunchedRun, launch_run
from submillion.progress import Progress
from submillion.report.load import read_predictions
from submillion.search.trials import make_confirming_config
from submillion.search_config import SearchConfig


def confirm_settings(
    config: RunConfig, search: SearchConfig, settings: Mapping[str, Any], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Train the recipe and the recipe with other settings over the same seeds, and compare them on the same rows.

    The rows are the test rows, which no trial has scored; the validation rows where the data has no test rows. Runs
    that are there already are taken as they are.

    Args:
        config: The recipe.
        search: Number of seeds and length of the runs.
        settings: Of the best trial, by dotted path.
        folder: Of the runs.
        progress: Told of each run.

    Returns:
        What `compare_runs` returns, and ``split``, ``seeds`` and the run folders ``recipe_runs`` and ``tuned_runs``.

    Raises:
        SubmillionError: A run has failed.
        KeyboardInterrupt: Asked to stop; the run under way has saved.
    """
    seeds = [config.seed + number for number in range(search.seeds)]
    runs: dict[str, list[LaunchedRun]] = {"recipe": [], "tuned": []}
    progress.start("confirm", 2 * search.seeds)
    for number in range(search.seeds):
        for kind, chosen in (("recipe", {}), ("tuned", settings)):
            changed = make_confirming_config(config, search, chosen, seed=number)
            digest = hashlib.sha256(dump_config(changed).encode()).hexdigest()[:8]
            # Another winner, or another length, is another run.
            out = folder / f"{kind}-seed-{changed.seed}-{digest}"
            out.parent.mkdir(parents=True, exist_ok=True)
            runs[kind].append(launch_run(changed, out))
            progress.advance(len(runs["recipe"]) + len(runs["tuned"]))
            figures = runs[kind][-1].evaluations
            shown = ", ".join(f"{name} {values['accuracy']:.2%}" for name, values in figures.items())
            progress.note(f"{kind}, seed {changed.seed}: accuracy on {shown}")
    progress.finish()
    split = "test" if all("test" in run.evaluations for run in runs["recipe"]) else "validation"
    found = compare_runs(read_outcomes(runs["tuned"], split), read_outcomes(runs["recipe"], split), seeds)
    return {
        "split": split,
        **found,
        "recipe_runs": [str(run.run) for run in runs["recipe"]],
        "tuned_runs": [str(run.run) for run in runs["tuned"]],
    }


def read_outcomes(runs: Sequence[LaunchedRun], split: str) -> NDArray[np.bool_]:
    """Return whether each run was right on each record of a split, shape (S, n).

    Raises:
        RunError: The runs have scored different rows, or none.
    """
    rows, ids = [], None
    for run in runs:
        predictions = read_predictions(run.run, split)
        if predictions is None or (ids is not None and predictions.ids != ids):
            raise RunError(f"has not scored the {split} rows that the other runs have", where=str(run.run))
        ids = predictions.ids
        rows.append(predictions.right)
    return np.stack(rows)


def compare_runs(tuned: NDArray[np.bool_], recipe: NDArray[np.bool_], seeds: Sequence[int]) -> dict[str, Any]:
    """Compare runs that are paired by seed and scored the same records.

    A record scored by three runs is one record and not three: the test is of each record's difference of right
    answers over all seeds (`stats.find_flip_p`). Its p value is about these trained models and all records like these;
    the interval is wider, since it is about other seeds as well (`stats.bootstrap_runs`).

    Args:
        tuned: Whether each run with the tuned settings was right on each record, shape (S, n).
        recipe: Those of the recipe, shape (S, n).
        seeds: Of the pairs, length S.

    Returns:
        ``difference`` of the mean accuracies, tuned minus recipe, its ``interval``, ``p``, ``num_records``, both
        ``..._accuracy`` means, and ``per_seed`` with the figures of each pair.
    """
    differences = tuned.sum(axis=0).astype(np.int64) - recipe.sum(axis=0).astype(np.int64)
    per_seed = []
    for seed, mine, theirs in zip(seeds, tuned, recipe, strict=True):
        paired = compare_correct(mine, theirs).to_json()
        per_seed.append(
            {"seed": seed, "tuned_accuracy": float(mine.mean()), "recipe_accuracy": float(theirs.mean()), **paired}
        )
    return {
        "num_records": tuned.shape[1],
        "seeds": list(seeds),
        "tuned_accuracy": float(tuned.mean()),
        "recipe_accuracy": float(recipe.mean()),
        "difference": float(tuned.mean() - recipe.mean()),
        "interval": list(stats.bootstrap_runs(tuned, recipe, seed=0)),
        "p": stats.find_flip_p(differences),
        "per_seed": per_seed,
    }
