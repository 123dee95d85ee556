"""The effect of synthetic rows: the same recipe with and without them, compared in pairs on the same rows and seeds.

    python -m benchmarks.augment_effect --data AGNEWS --arm synonyms=synonyms.jsonl --arm generated=rows.jsonl \\
        --watch bbc=bbc.csv --seeds 0 1 2

An arm is one or more files of synthetic rows that are trained on together. For each seed there is a run without
synthetic rows and one run per arm, each in its own process. All are scored on the same rows in and out of distribution.
A difference is pooled over the seeds as elsewhere (`submillion.run.paired`): its interval is about other rows and other
seeds, its p value about these trained models. Finished runs are not repeated, so a call that was killed can be
continued. The effect is recorded whatever its sign.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submillion import __version__
from submillion.cli.options import read_settings
from submillion.config.nested import add_overrides
from submillion.config.run import RunConfig
from submillion.data.synthetic import read_rows
from submillion.launch import launch_run
from submillion.metrics.evaluate import compare_correct
from submillion.pipeline.resolve import resolve_config
from submillion.run.folder import RunDir
from submillion.run.paired import compare_outcomes, read_outcomes
from submillion.storage.files import read_json, write_json
from submillion.training.device import count_cpus, read_cpu_capabilities

FOLDER = Path(__file__).parent
WITHOUT = "without"


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="agnews-minilm")
    parser.add_argument("--data", required=True, help="Data with a test split, the rows in distribution.")
    parser.add_argument(
        "--arm", required=True, action="append", dest="arms", metavar="NAME=FILE[,FILE]", help="Files of rows."
    )
    parser.add_argument("--weight", type=float, default=1.0, help="Weight of a synthetic row in the loss.")
    parser.add_argument(
        "--watch", nargs="*", default=[], metavar="NAME=FILE[,LABELS]", help="Rows out of distribution."
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, default=Path("runs/augment-effect"), help="Folder of the runs.")
    parser.add_argument("--out", type=Path, default=FOLDER / "results" / "augment-agnews.json")
    return parser.parse_args(words)


def split_named(entry: str, flag: str) -> tuple[str, list[str]]:
    """Return the name and the files of ``NAME=FILE[,FILE]``."""
    name, equals, files = entry.partition("=")
    if not equals or not name or not all(files.split(",")):
        sys.exit(f"error: {flag} {entry!r} is not of the form NAME=FILE or NAME=FILE,FILE")
    return name, files.split(",")


def make_config(arguments: argparse.Namespace, seed: int, files: Sequence[str]) -> RunConfig:
    """Return the configuration of one run; the runs of a seed differ only in `data.extra`."""
    watch = []
    for name, (data, *labels) in (split_named(entry, "--watch") for entry in arguments.watch):
        watch.append({"name": name, "data": data} | ({"labels": labels[0]} if labels else {}))
    extra = [{"data": file, "weight": arguments.weight} for file in files]
    settings = add_overrides(read_settings(arguments.settings), {"watch": watch, "data.extra": extra})
    return resolve_config(arguments.recipe, data=arguments.data, seed=seed, settings=settings).config


def compare_arm(runs: Mapping[int, Mapping[str, RunDir]], arm: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the effect of an arm's rows on each set, per seed and over all seeds."""
    sets: dict[str, Any] = {}
    for name in names:
        right = {kind: read_outcomes([kinds[kind].path for kinds in runs.values()], name) for kind in (arm, WITHOUT)}
        seeds = [
            {"seed": seed, **compare_correct(mine, theirs, seed=seed).to_json()}
            for seed, mine, theirs in zip(runs, right[arm], right[WITHOUT], strict=True)
        ]
        accuracies = {"accuracy_with": float(right[arm].mean()), "accuracy_without": float(right[WITHOUT].mean())}
        sets[name] = {**compare_outcomes(right[arm], right[WITHOUT]), **accuracies, "seeds": seeds}
    return sets


def describe_arm(files: Sequence[str], run: RunDir) -> dict[str, Any]:
    """Return a description of an arm's rows, and how many of them a run has trained on."""
    rows = [row for file in files for row in read_rows(Path(file))]
    extra = read_json(run.data)["extra"]
    return {
        "methods": sorted({str(row.provenance["method"]) for row in rows}),
        "junk": any(row.provenance.get("junk", False) for row in rows),
        # The files' folders are left out, since their digests identify them.
        "extra": [{**entry, "data": Path(entry["data"]).name} for entry in extra],
    }


def print_table(arms: Mapping[str, Any]) -> None:
    print(f"{'arm':<14}{'set':<12}{'rows':>7}{'without':>10}{'with':>10}   points (95 %){'p':>22}   by seed")
    for arm, description in arms.items():
        for name, entry in description["sets"].items():
            low, high = (100 * value for value in entry["interval"])
            seeds = ", ".join(f"{100 * seed['difference']:+.2f}" for seed in entry["seeds"])
            difference = f"{100 * entry['difference']:+.2f} ({low:+.2f} .. {high:+.2f})"
            print(
                f"{arm:<14}{name:<12}{entry['num_records']:>7,}{100 * entry['accuracy_without']:>9.2f}%"
                f"{100 * entry['accuracy_with']:>9.2f}%   {difference:<27}{entry['p']:>8.4f}   {seeds}"
            )


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(words)
    arms = {WITHOUT: [], **dict(split_named(entry, "--arm") for entry in arguments.arms)}
    for files in arms.values():
        for file in files:
            read_rows(Path(file))  # a bad file should fail before the first run
    runs: dict[int, dict[str, RunDir]] = {}
    arguments.work.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for arm, files in arms.items():
            folder = arguments.work / f"{arm}-{seed}"
            print(f"seed {seed}, {arm}: {folder}", file=sys.stderr)
            runs.setdefault(seed, {})[arm] = RunDir(launch_run(make_config(arguments, seed, files), folder).run)
    names = ["test", *(split_named(entry, "--watch")[0] for entry in arguments.watch)]
    first = runs[arguments.seeds[0]]
    described = {
        arm: {**describe_arm(files, first[arm]), "sets": compare_arm(runs, arm, names)}
        for arm, files in arms.items()
        if arm != WITHOUT
    }
    write_json(
        arguments.out,
        {
            "kind": "augment-effect",
            "recipe": arguments.recipe,
            "settings": arguments.settings,
            "weight": arguments.weight,
            "seeds": arguments.seeds,
            "num_train": read_json(first[WITHOUT].data)["num_train"],
            "arms": described,
            "version": __version__,
            "machine": {
                "cpu": str(read_cpu_capabilities().get("cpu_name", platform.processor())),
                "cpus": count_cpus(),
                "python": platform.python_version(),
            },
        },
    )
    print_table(described)
    print(arguments.out, file=sys.stderr)


if __name__ == "__main__":
    main()
