"""Whether the best trial's settings are better than the recipe's: full runs of both over several seeds, paired."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from submillion.config.run import RunConfig, dump_config
from submillion.config.search import SearchConfig
from submillion.launch import LaunchedRun, launch_run
from submillion.metrics.evaluate import compare_correct
from submillion.progress import Progress
from submillion.run.paired import compare_outcomes, read_outcomes
from submillion.search.trials import make_confirming_config


def confirm_settings(
    config: RunConfig, search: SearchConfig, settings: Mapping[str, object], folder: Path, progress: Progress
) -> dict[str, object]:
    """Train the recipe and the recipe with other settings over the same seeds, and compare them on the same rows.

    The rows are the test rows, which no trial has scored; the validation rows where the data has no test rows. Runs
    that are there already are taken as they are.

    Args:
        config: The recipe.
        search: Number of seeds and length of the runs.
        settings: Settings of the best trial, by dotted path.
        folder: Folder of the runs.
        progress: Receiver of the runs.

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
    right = {kind: read_outcomes([run.run for run in made], split) for kind, made in runs.items()}
    found = compare_runs(right["tuned"], right["recipe"], seeds)
    return {
        "split": split,
        **found,
        "recipe_runs": [str(run.run) for run in runs["recipe"]],
        "tuned_runs": [str(run.run) for run in runs["tuned"]],
    }


def compare_runs(tuned: NDArray[np.bool_], recipe: NDArray[np.bool_], seeds: Sequence[int]) -> dict[str, object]:
    """Compare runs that are paired by seed and scored the same records.

    `compare_outcomes` says what the figures over all seeds mean.

    Args:
        tuned: Right answers of each run with the tuned settings on each record, boolean, shape (S, n).
        recipe: Right answers of the recipe's runs, boolean, shape (S, n).
        seeds: Seeds of the pairs, length S.

    Returns:
        ``difference`` of the mean accuracies, tuned minus recipe, its ``interval``, ``p``, ``num_records``, both
        ``..._accuracy`` means, and ``per_seed`` with the figures of each pair.
    """
    per_seed = []
    for seed, mine, theirs in zip(seeds, tuned, recipe, strict=True):
        paired = compare_correct(mine, theirs).to_json()
        per_seed.append(
            {"seed": seed, "tuned_accuracy": float(mine.mean()), "recipe_accuracy": float(theirs.mean()), **paired}
        )
    return {
        **compare_outcomes(tuned, recipe),
        "seeds": list(seeds),
        "tuned_accuracy": float(tuned.mean()),
        "recipe_accuracy": float(recipe.mean()),
        "per_seed": per_seed,
    }
