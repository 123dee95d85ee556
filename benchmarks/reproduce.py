"""Train the recipes that follow the published systems on the small base, and write docs/published-systems.md.

`make published DATA=agnews` runs it: `agnews` is a folder with the official files, or any data that `submillion train`
takes. A killed call can be repeated to continue. The page is made only from benchmarks/results/published-agnews.json,
so `python -m benchmarks.reproduce --page` writes it again without training. A test compares the two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submillion.config.run import RunConfig

FOLDER = Path(__file__).parent
RESULT = FOLDER / "results" / "published-agnews.json"
PAGE = FOLDER.parent / "docs" / "published-systems.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
OURS = "agnews-minilm"
BASE = "minilm-l6"


@dataclass(frozen=True)
class Published:
    """Facts from a system's README and notebook.

    Attributes:
        trainable_params: Count of trainable parameters on roberta-base.
        num_steps: Number of optimizer steps of `batch_size` records, as far as it is known.
        batch_size: Number of records per step, including accumulation.
        reports: Reported figures.
    """

    trainable_params: int
    num_steps: int
    batch_size: int
    reports: str


SYSTEMS: Mapping[str, Published] = {
    "agnews-qkv-r4-bias": Published(
        916_996, 20_600, 64, "validation 93.83 %, competition 86.95 % (with synonyms and 12,000 generated rows)"
    ),
    "agnews-qv-r10": Published(
        962_308,
        2_000,
        64,
        "validation 93.28 % in the notebook (94.51 % in the README is of training rows), competition 85.33 %",
    ),
    "agnews-mixed-r12": Published(796_420, 22_380, 32, "test 92.96 % in the README, validation 93.91 % on 640 rows"),
    "agnews-qk-r10": Published(962_308, 13_500, 32, "validation 91.52 %"),
    "agnews-qkv-r4": Published(814_852, 2_000, 16, "validation about 89 %, test 88.22 %"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="training, validation and test rows: a folder, file or hub id")
    parser.add_argument("--watch", action="append", default=[], metavar="NAME=DATA[,LABELS]", help="another scored set")
    parser.add_argument("--records", type=int, default=32_000, help="largest number of records that a run trains on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--complete", action="store_true", help=f"also {OURS} without that limit")
    parser.add_argument("--out", type=Path, default=Path("runs/published"), help="folder of the runs")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args()
    if not options.page:
        if options.data is None:
            parser.error("--data is needed")
        write_json(RESULT, reproduce(options))
    PAGE.write_text(build_page(PAGE.read_text(encoding="utf-8"), json.loads(RESULT.read_text())), encoding="utf-8")


def reproduce(options: argparse.Namespace) -> dict[str, Any]:
    """Make all runs that do not exist yet, one after the other, and collect their figures."""
    from submillion.metrics.evaluate import compare_correct
    from submillion.run.history import read_history
    from submillion.run.predictions import read_predictions

    watch = [parse_watch(text) for text in options.watch]
    runs: dict[str, Path] = {}
    for recipe in (*SYSTEMS, OURS):
        runs[recipe] = train(recipe, options, watch, limited=True)
    if options.complete:
        runs[f"{OURS}, complete"] = train(OURS, options, watch, limited=False)
    entries = []
    for name, folder in runs.items():
        run = read_history(folder)
        assert run.config is not None
        assert run.plan is not None
        sets: dict[str, dict[str, Any]] = {}
        for split, figures in run.results.items():
            sets[split] = {
                "accuracy": figures["accuracy"],
                "accuracy_interval": figures["accuracy_interval"],
                "num_records": figures["num_records"],
            }
            mine, ours = read_predictions(folder, split), read_predictions(runs[OURS], split)
            if name != OURS and mine is not None and ours is not None and mine.ids == ours.ids:
                sets[split]["against_ours"] = compare_correct(mine.right, ours.right).to_json()
        recipe = name.partition(",")[0]
        published = SYSTEMS.get(recipe)
        entries.append(
            {
                "name": name,
                "recipe": recipe,
                "published": None if published is None else asdict(published),
                "trainable_params_published_base": count_on_own_base(recipe),
                "trainable_params": run.plan.trainable_params,
                "adapter": show_adapter(run.config),
                "num_steps": int(run.steps["step"][-1]),
                "batch_size": run.config.train.batch_size,
                "num_records_seen": int(run.steps["num_records"].sum()),
                "num_train_records": run.data["num_train"],
                "learning_rate": run.config.train.learning_rate,
                "train_s": run.train_s,
                "precision": None if run.manifest is None else run.manifest.precision,
                "sets": sets,
            }
        )
    first = read_history(runs[OURS])
    assert first.manifest is not None
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": BASE,
        "records": options.records,
        "seed": options.seed,
        "data": first.data["files"],
        "versions": first.manifest.versions,
        "machine": first.manifest.machine,
        "systems": entries,
    }


def parse_watch(text: str) -> dict[str, str]:
    name, _, rest = text.partition("=")
    data, _, labels = rest.partition(",")
    return {"name": name, "data": str(Path(data).resolve())} | (
        {"labels": str(Path(labels).resolve())} if labels else {}
    )


def train(recipe: str, options: argparse.Namespace, watch: Sequence[Mapping[str, str]], *, limited: bool) -> Path:
    """Make one run in its own process, continue it, or read it if it is finished."""
    out: Path = options.out / (recipe if limited else f"{recipe}-complete")
    manifest = out / "manifest.json"
    if manifest.exists() and json.loads(manifest.read_text(encoding="utf-8"))["state"] == "complete":
        return out
    command = [sys.executable, "-P", "-m", "submillion", "train"]
    if (out / "config.yaml").exists():
        command += ["--resume", str(out)]
    else:
        command += [recipe, "--data", options.data, "--base", BASE, "--seed", str(options.seed), "--out", str(out)]
        settings: dict[str, Any] = {"watch": list(watch), "baseline": False}
        if limited:
            settings |= limit_steps(recipe, options.records)
        for key, value in settings.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
    print(" ".join(command), file=sys.stderr)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def limit_steps(recipe: str, num_records: int) -> dict[str, Any]:
    """Return the settings that end a run after a number of records and validate four times."""
    from submillion.pipeline.resolve import resolve_config

    config = resolve_config(recipe, base=BASE).config.train
    num_steps = num_records // config.batch_size
    if config.max_steps is not None:
        num_steps = min(num_steps, config.max_steps)
    every = -(-num_steps // 4)
    settings = {"max_steps": num_steps, "evaluate_every": every, "save_every": every, "interval_unit": "steps"}
    return {f"train.{key}": value for key, value in settings.items()}


def count_on_own_base(recipe: str) -> int:
    from submillion import api

    return int(api.plan(recipe).trainable_params)


def show_adapter(config: RunConfig) -> str:
    adapter = config.adapter
    where = "+".join(adapter.targets) if len(adapter.targets) <= 3 else f"{len(adapter.targets)} modules"
    more = ", all biases" if adapter.bias == "all" else ""
    return f"rank {adapter.rank} on {where}, {config.model.head} head{more}"


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def build_page(text: str, result: Mapping[str, Any]) -> str:
    """Return the page with its generated part made from the result."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n" + "\n".join(show_result(result)) + f"\n\n{END}{after}"


def show_result(result: Mapping[str, Any]) -> Iterator[str]:
    systems = result["systems"]
    yield "### What was published, and what the recipe counts\n"
    yield "| recipe | they report | trainable, published | the recipe on its own base | on MiniLM |"
    yield "|---|---|---:|---:|---:|"
    for entry in systems:
        published = entry["published"]
        if entry["name"] != entry["recipe"]:
            continue
        theirs = f"{published['trainable_params']:,}" if published else "none: this project's own"
        yield (
            f"| `{entry['recipe']}` | {published['reports'] if published else 'see README'} | {theirs} | "
            f"{entry['trainable_params_published_base']:,} | {entry['trainable_params']:,} |"
        )
    splits = [split for split in systems[-1]["sets"] if split != "validation"]
    yield "\n### What the recipes measure with MiniLM\n"
    yield f"| recipe | steps of records | {' | '.join(describe_set(systems, split) for split in splits)} |"
    yield "|---|---|" + "---|" * len(splits)
    for entry in systems:
        cells = " | ".join(show_accuracy(entry["sets"][split]) for split in splits)
        yield f"| `{entry['recipe']}`{', complete' if ',' in entry['name'] else ''} | {show_steps(entry)} | {cells} |"
    yield f"\n### Paired with `{OURS}` at the same number of records\n"
    yield f"| recipe | {' | '.join(splits)} |"
    yield "|---|" + "---|" * len(splits)
    for entry in systems:
        if entry["name"] != OURS:
            cells = " | ".join(show_comparison(entry["sets"][split]) for split in splits)
            yield f"| `{entry['recipe']}`{', complete' if ',' in entry['name'] else ''} | {cells} |"
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    yield (
        f"\nSeed {result['seed']}, at most {result['records']:,} records a run, on {machine['processor']}, "
        f"{result['created'][:10]}; {versions}."
    )


def describe_set(systems: Sequence[Mapping[str, Any]], split: str) -> str:
    return f"{split} ({systems[0]['sets'][split]['num_records']:,} rows)"


def show_accuracy(figures: Mapping[str, Any]) -> str:
    low, high = figures["accuracy_interval"]
    return f"{figures['accuracy']:.2%} ({low:.2%} .. {high:.2%})"


def show_steps(entry: Mapping[str, Any]) -> str:
    published = entry["published"]
    made = f"{entry['num_steps']:,} of {entry['batch_size']}"
    if published is None:
        return made
    share = entry["num_steps"] * entry["batch_size"] / (published["num_steps"] * published["batch_size"])
    return f"{made}; {share:.0%} of the published {published['num_steps']:,} of {published['batch_size']}"


def show_comparison(figures: Mapping[str, Any]) -> str:
    if "against_ours" not in figures:
        return "not the same rows"
    comparison = figures["against_ours"]
    low, high = (100 * end for end in comparison["interval"])
    p = comparison["mcnemar_p"]
    chance = "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"
    return f"{100 * comparison['difference']:+.2f} ({low:+.2f} .. {high:+.2f}), {chance}"


if __name__ == "__main__":
    main()
