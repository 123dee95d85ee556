"""Whether the search is worth its cost: TPE against random search, and their results against the recipe.

    python -m benchmarks.tune_worth --data agnews

For each seed, both samplers search the same space with the same number of trials of the same records, without pruning,
from the same first trial (the recipe's settings). The best trial of each search and the recipe are then trained with
that seed and scored on the test rows, which no trial has seen. Everything is paired by seed and by test row. A killed
call can be repeated to continue. The result is benchmarks/results/tune-agnews.json. A short table is printed, and
`--table` prints it again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SAMPLERS = ("tpe", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="training and test rows: a folder, file or hub id")
    parser.add_argument("--recipe", default="agnews-minilm")
    parser.add_argument("--base", help="base model; by default the recipe's")
    parser.add_argument("--trials", type=int, default=10, help="trials of each search")
    parser.add_argument("--startup", type=int, default=4, help="random trials before TPE begins")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=12_000, help="training rows per trial")
    parser.add_argument("--validation-rows", type=int, default=3_000)
    parser.add_argument("--steps", type=int, default=60, help="steps per trial, at the recipe's batch size")
    parser.add_argument("--final-rows", type=int, help="training rows of the scored runs; by default as in a trial")
    parser.add_argument("--final-steps", type=int, help="steps of the scored runs; by default as in a trial")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/tune-worth"), help="folder of the runs")
    parser.add_argument("--result", default="tune-agnews", help="name of the result")
    parser.add_argument("--table", action="store_true", help="only print the table of the existing result")
    options = parser.parse_args()
    file = RESULTS / f"{options.result}.json"
    if not options.table:
        if options.data is None:
            parser.error("--data is needed")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(measure(options), indent=1) + "\n", encoding="utf-8")
    print("\n".join(tabulate(json.loads(file.read_text(encoding="utf-8")))))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make all searches and scored runs that do not exist yet, and compare them."""
    from submillion import api
    from submillion.config.run import RunConfig
    from submillion.launch import LaunchedRun, launch_run
    from submillion.run.folder import RunDir
    from submillion.run.paired import read_outcomes
    from submillion.run.reader import read_manifest
    from submillion.search.confirm import compare_runs
    from submillion.search.trials import make_confirming_config
    from submillion.storage.files import read_json

    seeds = list(range(options.seeds))
    searches: list[dict[str, Any]] = []
    runs: dict[str, list[LaunchedRun]] = {"recipe": [], **{sampler: [] for sampler in SAMPLERS}}

    def train(kind: str, config: RunConfig, settings: Mapping[str, Any]) -> None:
        assert config.search is not None
        chosen = make_confirming_config(config, config.search, settings, seed=0)
        out = options.out / "final" / f"{kind}-seed-{config.seed}"
        out.parent.mkdir(parents=True, exist_ok=True)
        runs[kind].append(launch_run(chosen, out))
        show(f"{kind}, seed {config.seed}: test {runs[kind][-1].evaluations['test']['accuracy']:.4f}")

    for seed in seeds:
        for sampler in SAMPLERS:
            config = resolve(options, sampler, seed)
            folder = options.out / f"{sampler}-seed-{seed}"
            began = time.perf_counter()
            found = api.tune(config, out=folder, workers=options.workers)
            trials = read_json(found.results)["all_trials"]
            show(f"{sampler}, seed {seed}: best validation {found.best_value:.4f} in trial {found.best_trial}")
            searches.append(
                {
                    "sampler": sampler,
                    "seed": seed,
                    "best_trial": found.best_trial,
                    "best_value": found.best_value,
                    "best_settings": found.best_settings,
                    "values": [trial["value"] for trial in trials if trial["state"] in {"complete", "pruned"}],
                    "trial_s": [trial["duration_s"] for trial in trials if trial["duration_s"] is not None],
                    "call_s": time.perf_counter() - began,
                }
            )
            train(sampler, config, found.best_settings)
        train("recipe", resolve(options, SAMPLERS[0], seed), {})
    outcomes = {kind: read_outcomes([run.run for run in made], "test") for kind, made in runs.items()}
    pairs = {
        f"{first} against {second}": describe_pair(compare_runs(outcomes[first], outcomes[second], seeds))
        for first, second in (("tpe", "random"), ("tpe", "recipe"), ("random", "recipe"))
    }
    manifest = read_manifest(RunDir(runs["recipe"][0].run))
    shown = ("recipe", "base", "trials", "startup", "seeds", "rows", "validation_rows", "steps", "final_rows")
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {name: getattr(options, name) for name in (*shown, "final_steps")},
        "searches": searches,
        "test": pairs,
        "machine": manifest.machine,
        "versions": manifest.versions,
    }


def resolve(options: argparse.Namespace, sampler: str, seed: int) -> Any:
    """Return the recipe with its search settings."""
    from submillion.pipeline.resolve import resolve_config

    search = {
        "trials": options.trials,
        "startup": options.startup,
        "sampler": sampler,
        "pruner": "none",
        "reports": 2,
        "rows": options.rows,
        "validation_rows": options.validation_rows,
        "steps": options.steps,
        "seeds": 0,
        "confirm_rows": options.final_rows or options.rows,
        "confirm_steps": options.final_steps or options.steps,
    }
    settings = {f"search.{name}": value for name, value in search.items()}
    return resolve_config(options.recipe, data=options.data, base=options.base, seed=seed, settings=settings).config


def describe_pair(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a comparison under names that fit any pair: `first` minus `second`."""
    per_seed = [
        {"seed": pair["seed"], "first": pair["tuned_accuracy"], "second": pair["recipe_accuracy"]}
        for pair in found["per_seed"]
    ]
    kept = {name: found[name] for name in ("num_records", "difference", "interval", "p")}
    return {"first": found["tuned_accuracy"], "second": found["recipe_accuracy"], **kept, "per_seed": per_seed}


def tabulate(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    settings = result["settings"]
    yield (
        f"{settings['recipe']}: {settings['trials']} trials a search of {settings['steps']} steps on "
        f"{settings['rows']:,} rows, {settings['validation_rows']:,} validation rows\n"
    )
    yield "| sampler | seed | best validation | in trial | the recipe's own | minutes |"
    yield "|---|---:|---:|---:|---:|---:|"
    for search in result["searches"]:
        minutes = sum(search["trial_s"]) / 60
        yield (
            f"| {search['sampler']} | {search['seed']} | {search['best_value']:.2%} | {search['best_trial']} "
            f"| {search['values'][0]:.2%} | {minutes:.1f} |"
        )
    yield "\n| test accuracy, mean of the seeds | first | second | difference in points | p |"
    yield "|---|---:|---:|---|---:|"
    for name, pair in result["test"].items():
        low, high = (100 * end for end in pair["interval"])
        difference = f"{100 * pair['difference']:+.2f} ({low:+.2f} .. {high:+.2f})"
        yield f"| {name} | {pair['first']:.2%} | {pair['second']:.2%} | {difference} | {show_p(pair['p'])} |"


def show_p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def show(*words: Sequence[Any]) -> None:
    print(*words, flush=True)


if __name__ == "__main__":
    main()
