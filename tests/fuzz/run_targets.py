"""What else a stranger may hand over: run folders, bases, adapters, recipes, logs, studies, cache entries."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from .targets import Target, put_as, put_into, run_command

WAYS: Mapping[str, Sequence[str]] = {
    ".json": ("json", "json", "json", "bytes"),
    ".jsonl": ("jsonl", "jsonl", "bytes"),
    ".yaml": ("yaml", "yaml", "yaml", "bytes"),
    ".safetensors": ("safetensors", "bytes"),
}
SETTINGS: Mapping[str, Any] = {
    "name": "fuzzed",
    "budget": 1_000_000,
    "threads": 1,
    "model": {"max_length": 32},
    "adapter": {"rank": 1},
    "train": {"epochs": 1, "batch_size": 16, "learning_rate": 5e-3, "evaluate_every": 0.5, "interval_unit": "epochs"},
    "final": {"proof": False, "report": True},
}
TRAINER_STATE: Mapping[str, Any] = {
    "best_metric": 0.9, "best_model_checkpoint": "out/checkpoint-4", "epoch": 2.0, "eval_steps": 2, "global_step": 4,
    "is_world_process_zero": True, "max_steps": 4, "num_train_epochs": 2, "total_flos": 1e9, "train_batch_size": 8,
    "log_history": [
        {"epoch": 0.5, "grad_norm": 1.5, "learning_rate": 2e-5, "loss": 1.4, "step": 1},
        {"epoch": 1.0, "eval_accuracy": 0.8, "eval_loss": 1.1, "eval_runtime": 3.2, "eval_samples": 9, "step": 2},
        {"epoch": 1.5, "grad_norm": 1.1, "learning_rate": 1e-5, "loss": 0.9, "step": 3},
        {"epoch": 2.0, "eval_accuracy": 0.9, "eval_loss": 0.7, "step": 4},
        {"epoch": 2.0, "step": 4, "total_flos": 1e9, "train_loss": 1.1, "train_runtime": 30.0},
    ],
}  # fmt: skip


class TrainingBegins(Exception):
    """Thrown where a run would make its first step: what follows are the recipe's own wishes."""


class _StopAtTraining:
    """A progress that ends a run before its first step."""

    def start(self, stage: str, total: int | None = None, done: int = 0) -> None:
        if stage == "train":
            raise TrainingBegins

    def advance(self, done: int, **figures: float) -> None:
        pass

    def on_plan(self, plan: object) -> None:
        pass

    def note(self, message: str) -> None:
        print(message)

    def finish(self) -> None:
        pass


@cache
def make_world() -> Path:
    """Build, once, the folder that holds a tiny base, rows, a finished run, an adapter and a search; return it."""
    from submillion import api
    from tests import conftest

    root = Path(conftest._CACHES) / "world"
    root.mkdir()
    base = conftest._build_tiny_base("bert", root / "base")
    conftest._write_news(root / "data" / "train.csv", 64)
    conftest._write_news(root / "data" / "test.csv", 16, start=1000)
    os.environ["SUBMILLION_CACHE"] = str(root / "cache")
    settings = {**SETTINGS, "data": {"source": str(root / "data")}, "model": {"base": str(base), "max_length": 32}}
    api.train(settings, out=root / "run")
    shutil.rmtree(root / "run" / "plots")  # large, and never read
    (root / "run" / "report.html").unlink()
    shutil.copytree(root / "run", root / "second")
    api.export(root / "run", format="adapter", out=root / "adapter-of-run")
    native = {**settings, "model": {**settings["model"], "head": "native"}, "final": {"proof": False, "report": False}}
    api.train(native, out=root / "native")
    _make_search(settings, root / "search")
    return root


def remove_world() -> None:
    """Remove what `make_world` has built."""
    if make_world.cache_info().currsize:
        from tests import conftest

        conftest.pytest_unconfigure()


def _make_search(settings: Mapping[str, Any], folder: Path) -> None:
    """Write the folder of a search that is about to make its first trial."""
    from submillion.config.run import parse_config
    from submillion.model.sources import load_base_config
    from submillion.search.storage import open_storage, require_optuna
    from submillion.search.study import open_study
    from submillion.search.task import Task

    require_optuna()
    space = {
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "adapter.rank": {"type": "rank"},
    }
    config = parse_config({**settings, "search": {"space": space, "trials": 1, "pruner": "none"}}, where="fuzz")
    task = Task(config, load_base_config(config.model.base), 4, "fuzzed", 1)
    folder.mkdir()
    open_study(open_storage(f"sqlite:///{folder / 'study.db'}"), task.study, task.config, task.space.locate_recipe())


# ------------------------------------------------------------------------------------------------ what is done with it


def _classify(run: Path) -> None:
    run_command("classify", run, "the council met", "--json")


def _show(run: Path) -> None:
    run_command("classify", run, "the council met")


def _predict(run: Path) -> None:
    run_command("predict", run, make_world() / "data" / "test.csv", "--out", run.parent / "predicted.csv")


def _evaluate(run: Path) -> None:
    run_command("evaluate", run, make_world() / "data" / "test.csv")


def _compare(run: Path) -> None:
    run_command("compare", run, make_world() / "second", make_world() / "data" / "test.csv")


def _report(run: Path, *others: Path) -> None:
    from submillion.report import write

    # The page has the same drawings as SVG; making both doubles the time, which is long already.
    setattr(write, "render_png", lambda plot: plot.name.encode())  # noqa: B010 - its module only imports the name
    run_command("report", run, *others, "--out", run.parent / "page")


def _report_two(run: Path) -> None:
    _report(run, make_world() / "second")


def _export(run: Path, format: str) -> None:
    run_command("export", run, "--format", format, "--out", run.parent / "exported")


def _plan_adapter(run: Path) -> None:
    run_command("plan", run / "adapter" if (run / "adapter").exists() else run, "--base", make_world() / "base")


def _resume(run: Path) -> None:
    from submillion.pipeline.run import resume_run

    with suppress(TrainingBegins):
        resume_run(run, progress=_StopAtTraining())


def _resume_unfinished(run: Path) -> None:
    """Resume a run that was ended between two checkpoints."""
    shutil.rmtree(run / "adapter", ignore_errors=True)
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    manifest = run / "manifest.json"
    try:
        values = json.loads(manifest.read_text())
        values.pop("temperature", None)
        manifest.write_text(json.dumps(values))
    except (ValueError, AttributeError, RecursionError, OSError):
        pass
    _resume(run)


def _train(**changes: Any) -> None:
    from submillion import api

    root = make_world()
    settings = {
        **SETTINGS,
        "data": {"source": str(root / "data")},
        "model": {"base": str(root / "base"), "max_length": 32},
    }
    settings["final"] = {"proof": False, "report": False}
    keywords = {key: changes.pop(key) for key in ("start_from", "base") if key in changes}
    with suppress(TrainingBegins):
        api.train({**settings, **changes}, out=Path.cwd() / "new", progress=_StopAtTraining(), **keywords)


def _train_from(run: Path) -> None:
    _train(start_from=run)


def _train_on_base(base: Path) -> None:
    _train(base=str(base))


def _plan_base(base: Path) -> None:
    run_command("plan", "demo", "--base", base)


def _check_base(base: Path) -> None:
    run_command("check", make_world() / "data", "--base", base)


def _classify_adapter(folder: Path) -> None:
    from submillion import api

    api.load(folder, base=str(make_world() / "base")).classify(["the council met"])


def _plan_recipe(recipe: Path) -> None:
    run_command("plan", recipe, "--base", make_world() / "base")


def _train_recipe(recipe: Path) -> None:
    from submillion import api

    root = make_world()
    with suppress(TrainingBegins):
        api.train(
            recipe, data=str(root / "data"), base=str(root / "base"), out=Path.cwd() / "new", progress=_StopAtTraining()
        )


def _train_with_cache(folder: Path) -> None:
    os.environ["SUBMILLION_CACHE"] = str(folder)
    try:
        _train()
    finally:
        os.environ["SUBMILLION_CACHE"] = str(make_world() / "cache")


def _list_trials(folder: Path) -> None:
    from submillion.search.storage import open_storage, require_optuna, storage_errors
    from submillion.search.trial_results import list_rows

    require_optuna()
    import optuna

    url = f"sqlite:///{folder / 'study.db'}"
    with storage_errors(url):
        list_rows(optuna.create_study(study_name="fuzzed", storage=open_storage(url), load_if_exists=True))


_USE = (_classify, _show, _predict, _evaluate, _compare)
_EXPORT = (partial(_export, format="merged"), partial(_export, format="adapter"))
_GO_ON = (_resume, _resume_unfinished, _train_from)
# Actions that read a file of a run, by the beginning of its path; the first match is used.
_READERS: tuple[tuple[str, Sequence[Callable[[Path], object]], float], ...] = (
    ("config.yaml", (*_USE, *_EXPORT, *_GO_ON, _report, _report_two), 3),
    ("plan.json", (*_USE, *_EXPORT, *_GO_ON, _report), 2),
    ("data.json", (*_USE, *_EXPORT, *_GO_ON, _report, _report_two), 2),
    ("manifest.json", (*_USE, *_EXPORT, *_GO_ON, _report, _report_two), 2),
    ("log.jsonl", (_report, _report_two, _resume, _resume_unfinished), 2),
    ("adapter/", (_classify, _predict, *_EXPORT, _train_from, _plan_adapter), 1.5),
    ("head.safetensors", (_classify, *_EXPORT, _train_from), 1),
    ("tokenizer/", (_classify, _predict, _EXPORT[0]), 1),
    ("checkpoints/", (_resume, _resume_unfinished, _resume_unfinished, _train_from), 0.7),
    ("evaluation/", (_report, _report_two, _EXPORT[0]), 0.7),
)


def _ways_of(name: str) -> Sequence[str]:
    return WAYS.get(Path(name).suffix, ("bytes",))


def _iter_run_targets() -> Iterator[tuple[str, Callable[[], Target]]]:
    # The names are known beforehand, so that listing targets does not build anything.
    names = (
        *("config.yaml", "plan.json", "data.json", "manifest.json", "log.jsonl", "head.safetensors"),
        *("adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
        *("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"),
        *("checkpoints/last", "checkpoints/best", "checkpoints/*/state.json"),
        *("checkpoints/*/parameters.safetensors", "checkpoints/*/optimizer.safetensors"),
        *("evaluation/test.json", "evaluation/validation.json", "evaluation/test.baseline.json"),
        *("evaluation/train.sample.json", "evaluation/test.predictions.parquet"),
    )

    def build(name: str) -> Target:
        root = make_world()
        file = sorted((root / "run").glob(name))[-1]
        inside = str(file.relative_to(root / "run"))
        actions, weight = next((found, weight) for start, found, weight in _READERS if name.startswith(start))
        return Target(
            f"run/{name}", [file.read_bytes()], _ways_of(name), put_into(root / "run", inside), actions, weight
        )

    for name in names:
        yield f"run/{name}", partial(build, name)


def _iter_folder_targets(
    group: str, folder: str, names: Sequence[str], actions: Sequence[Callable[[Path], object]], weight: float
) -> Iterator[tuple[str, Callable[[], Target]]]:
    def build(name: str) -> Target:
        source = make_world() / folder
        file = sorted(source.glob(name))[0]
        put = put_into(source, str(file.relative_to(source)))
        return Target(f"{group}/{name}", [file.read_bytes()], _ways_of(name), put, actions, weight)

    for name in names:
        yield f"{group}/{name}", partial(build, name)


def _iter_single_targets() -> Iterator[tuple[str, Callable[[], Target]]]:
    def build_recipe() -> Target:
        from submillion.recipes import list_recipes, read_recipe

        contents = [read_recipe(name).encode() for name in list_recipes()]
        return Target(
            "recipe/recipe.yaml",
            contents,
            WAYS[".yaml"],
            put_as("recipe.yaml"),
            [_plan_recipe, _plan_recipe, _train_recipe],
            2,
        )

    def build_trainer() -> Target:
        contents = [json.dumps(TRAINER_STATE).encode()]
        return Target("trainer/trainer_state.json", contents, WAYS[".json"], put_as("trainer_state.json"), [_report], 2)

    yield "recipe/recipe.yaml", build_recipe
    yield "trainer/trainer_state.json", build_trainer


def iter_run_targets() -> Iterator[tuple[str, Callable[[], Target]]]:
    """Yield (name, function that makes the target) for everything but files of rows."""
    yield from _iter_run_targets()
    base = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    yield from _iter_folder_targets("base", "base", base, (_train_on_base, _plan_base, _check_base), 1)
    adapter = ("adapter_config.json", "adapter_model.safetensors")
    yield from _iter_folder_targets(
        "adapter", "native/adapter", adapter, (_classify_adapter, _plan_adapter, _train_from), 1
    )
    yield from _iter_folder_targets(
        "cache", "cache", ("data/rows-*", "data/findings-*", "data/tokens-*"), (_train_with_cache,), 0.5
    )
    yield from _iter_folder_targets("search", "search", ("study.db",), (_list_trials,), 0.5)
    yield from _iter_single_targets()


if __name__ == "__main__":
    print(make_world(), file=sys.stderr)
