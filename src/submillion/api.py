"""The Python API: `train`, `tune`, `load`, `export` and `plan`, and how a recipe becomes the configuration of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from submillion.budget.adapter_settings import read_adapter_config
from submillion.budget.folder import plan_adapter_folder
from submillion.budget.plan import Plan, make_plan
from submillion.budget.transfer import adapt_to_base
from submillion.config import AdapterConfig, ExportFormat, RunConfig, apply_overrides, load_yaml, parse_config
from submillion.corpus import CORPUS_FOLDER
from submillion.data.labels import Numbering, NumbersChoice
from submillion.data.texts import is_table, name_source, place_table, placing_table
from submillion.errors import ConfigError
from submillion.model.sources import load_base_config
from submillion.progress import Progress, Silent
from submillion.recipes import list_recipes, read_recipe

if TYPE_CHECKING:
    from submillion.conclude import RunSummary
    from submillion.exports import Exported
    from submillion.run_model import RunModel
    from submillion.search.conduct import SearchResult

Data = Any
"""A path, ``hf:owner/name``, or a table: a DataFrame of pandas or polars, or a table of pyarrow."""

NUM_HUB_LABELS: Mapping[str, int] = {"hf:fancyzhx/ag_news": 4}
"""Number of classes of the hub data sets that shipped recipes name, so that they can be planned with no network."""


def train(
    recipe: str | PathLike[str] | Mapping[str, Any] | RunConfig,
    *,
    data: Data | None = None,
    base: str | PathLike[str] | None = None,
    budget: int | None = None,
    seed: int | None = None,
    extra: Sequence[str | PathLike[str] | tuple[str | PathLike[str], float]] = (),
    start_from: str | PathLike[str] | None = None,
    set: Sequence[str] = (),
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """Train a classifier and return what came of it; `load(summary.run)` gives the classifier.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, nested settings, or a whole configuration.
        data: File, folder, hub id or DataFrame (kept as ``<out>.rows.parquet``); the recipe's own if absent.
        base: Base model; the recipe's own if absent.
        budget: Trainable parameters stay strictly below this.
        seed: Seed of the training.
        extra: Files of synthetic rows to train on as well, each with its weight in the loss if that is not 1; the
            recipe's own (`data.extra`) if there are none here.
        start_from: Run, checkpoint or PEFT adapter folder whose trained weights the run begins with.
        set: ``key.path=value`` settings, applied last.
        out: The run folder, empty or absent; a new one under ``runs/`` if not given.
        progress: Receives stages and counts.

    Raises:
        SubmillionError: Of the kind that says what is wrong: settings, data, budget, model or run.
    """
    from submillion.pipeline import choose_folder, start_run

    config = resolve_config(
        recipe,
        data=name_source(data),
        base=None if base is None else str(base),
        budget=budget,
        seed=seed,
        extra=extra,
        start_from=None if start_from is None else str(start_from),
        settings=set,
    ).config
    folder = Path(out) if out is not None else choose_folder(config) if is_table(data) else None
    with placing_table(config, data, folder if is_table(data) else None, is_ours=out is None) as placed:
        return start_run(placed, folder, progress=progress or Silent())


def tune(
    recipe: str | PathLike[str] | Mapping[str, Any] | RunConfig,
    *,
    data: Data | None = None,
    base: str | PathLike[str] | None = None,
    budget: int | None = None,
    seed: int | None = None,
    set: Sequence[str] = (),
    trials: int | None = None,
    storage: str | None = None,
    study: str | None = None,
    workers: int = 1,
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search for better settings of a recipe within its budget; the same call continues a search.

    Args:
        recipe: What `train` takes; its section `search` says what varies, how long a trial is and how the best is
            confirmed.
        data: File, folder, hub id or DataFrame (kept as ``<out>.rows.parquet``); the recipe's own if absent.
        base: Base model; the recipe's own if absent.
        budget: Trainable parameters of every trial stay strictly below this.
        seed: Seed of the search and of the trials.
        set: ``key.path=value`` settings, applied last, such as ``search.steps=200``.
        trials: Trials of the study, those of earlier calls included; the recipe's number if absent.
        storage: URL of the study's storage; a SQLite file in the folder if absent.
        study: Its name there; the recipe's name if absent.
        workers: Processes that make trials on this machine, each with its part of the CPUs.
        out: The folder of the search; ``runs/<name>-search`` if not given.
        progress: Receives stages, trials and counts.

    Raises:
        SubmillionError: Of the kind that says what is wrong: settings, data, budget, model or run.
    """
    from submillion.search.conduct import choose_search_folder, run_search

    if workers < 1:
        raise ConfigError(f"{workers} workers make no trials", where="workers", hint="Give 1 or more.")
    wanted = () if trials is None else (f"search.trials={trials}",)
    settings = (*set, *wanted)
    named = None if base is None else str(base)
    config = resolve_config(
        recipe, data=name_source(data), base=named, budget=budget, seed=seed, settings=settings
    ).config
    folder = choose_search_folder(config, None if out is None else Path(out))
    config = place_table(config, data, folder)
    return run_search(
        config,
        folder,
        num_labels=count_labels(config),
        storage=storage,
        study=study,
        num_workers=workers,
        progress=progress,
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
        precision: Of the encoder's products; as trained if absent. ``int8`` is the fastest.

    Raises:
        RunError: The folder is no finished run.
        ConfigError: A base for a run, which has its own; or a precision that is not to be had on this machine.
        ModelError: The base model cannot be found, or the adapter does not fit it.
    """
    from submillion.run_model import load_run

    return load_run(Path(run), base=None if base is None else str(base), precision=precision)


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
    from submillion.exports import export_run

    return export_run(Path(run), format=format, out=None if out is None else Path(out), progress=progress)


def plan(
    target: str | PathLike[str] | Mapping[str, Any] | RunConfig,
    *,
    data: Data | None = None,
    base: str | PathLike[str] | None = None,
    budget: int | None = None,
    set: Sequence[str] = (),
) -> Plan:
    """Count every trainable parameter of a recipe, or of a PEFT adapter folder, without loading weights.

    Args:
        target: What `train` takes as a recipe, or a folder with adapter_config.json and adapter_model.safetensors.
        data: Where the number of classes is taken from, if the recipe does not say.
        base: Base model; the one named by the recipe or the adapter if absent.
        budget: Limit that the trainable parameters must stay strictly below.
        set: ``key.path=value`` settings of a recipe.

    Raises:
        ConfigError: Settings that do not fit each other or the base model.
        BudgetError: The plan reaches the budget; says what would fit.
        ModelError: The base model's configuration or the adapter cannot be read.

    Examples:
        >>> plan("agnews-qkv-r4").trainable_params
        814852
    """
    named = None if base is None else str(base)
    if isinstance(target, (str, PathLike)) and Path(target).is_dir():
        return _plan_folder(Path(target), data=name_source(data), base=named, budget=budget, settings=set)
    config = resolve_config(target, data=name_source(data), base=named, budget=budget, settings=set).config
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


@dataclass(frozen=True)
class ResolvedConfig:
    """The configuration of a run, and what its user should know of how it came about.

    Attributes:
        config: Complete and valid.
        notes: One line for everything that was changed to fit another base model.
    """

    config: RunConfig
    notes: tuple[str, ...] = ()


def resolve_config(
    recipe: str | PathLike[str] | Mapping[str, Any] | RunConfig,
    *,
    data: str | None = None,
    base: str | None = None,
    budget: int | None = None,
    seed: int | None = None,
    text: Sequence[str] = (),
    label: str | None = None,
    row_id: str | None = None,
    numbers: NumbersChoice | None = None,
    extra: Sequence[str | PathLike[str] | tuple[str | PathLike[str], float]] = (),
    start_from: str | None = None,
    settings: Sequence[str] = (),
) -> ResolvedConfig:
    """Return the configuration of a run: a recipe, then the arguments, then the settings.

    A new `data` or `base` drops the revision that pinned the old one. On another base model than the recipe's, its
    layers and module names are mapped, which `about` then records. The recipe ``demo`` gets the shipped news items
    where it has no other data.

    Raises:
        ConfigError: Unknown recipe, broken YAML, or settings that do not fit, all of them at once.
        ModelError: A recipe's names must be mapped, and the configuration of a base model cannot be found.
    """
    given, where = _read_values(recipe)
    files = [{"data": str(path), "weight": weight} for path, weight in map(_pair_with_weight, extra)]
    arguments: dict[str, Any] = {
        "data": {
            "source": data,
            "text": list(text) or None,
            "label": label,
            "id": row_id,
            "numbers": numbers,
            "extra": files or None,
        },
        "model": {"base": base},
        "budget": budget,
        "seed": seed,
        "start_from": start_from,
    }

    def build(values: dict[str, Any]) -> RunConfig:
        return parse_config(apply_overrides(_merge(values, arguments), settings), where=where)

    values = apply_overrides(given, ())
    if recipe == "demo":
        values = _merge({"data": {"source": str(CORPUS_FOLDER)}}, values)
    for section, name, replaced in (("data", "source", data), ("model", "base", base)):
        if replaced is not None and isinstance(values.get(section), dict) and values[section].get(name) != replaced:
            values[section].pop("revision", None)
    config = build(values)
    original = parse_config(values, where=where)
    if config.model.base == original.model.base or not _names_modules(original.adapter):
        return ResolvedConfig(config)
    adapter, notes = adapt_to_base(
        original.adapter,
        recipe_config=load_base_config(original.model.base, original.model.revision),
        config=load_base_config(config.model.base, config.model.revision),
    )
    if not notes:
        return ResolvedConfig(config)
    change = f"Mapped from {original.model.base} to {config.model.base}: "
    values["adapter"] = adapter.model_dump(mode="json")
    values["about"] = f"{original.about}\n{change}{'; '.join(notes)}.".lstrip()
    return ResolvedConfig(build(values), tuple(f"mapped to {config.model.base}: {note}" for note in notes))


def _pair_with_weight(
    extra: str | PathLike[str] | tuple[str | PathLike[str], float],
) -> tuple[str | PathLike[str], float]:
    return extra if isinstance(extra, tuple) else (extra, 1.0)


def _names_modules(adapter: AdapterConfig) -> bool:
    """Return whether an adapter names layers or modules of one particular base model."""
    return adapter.layers is not None or any("." in name for name in (*adapter.targets, *adapter.ranks))


def _merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with every change that is not None."""
    merged = dict(values)
    for key, change in changes.items():
        if isinstance(change, Mapping):
            old = merged.get(key)
            inner = _merge(old if isinstance(old, Mapping) else {}, change)
            if inner and (old is None or isinstance(old, Mapping)):
                merged[key] = inner
        elif change is not None:
            merged[key] = change
    return merged


def _read_values(recipe: str | PathLike[str] | Mapping[str, Any] | RunConfig) -> tuple[dict[str, Any], str]:
    """Return a recipe's settings and where they come from."""
    if isinstance(recipe, RunConfig):
        return recipe.model_dump(mode="json"), "settings"
    if isinstance(recipe, Mapping):
        return dict(recipe), "settings"
    name = str(recipe)
    values = load_yaml(read_recipe(name), where=name)
    if name not in list_recipes():
        values.setdefault("name", _make_name(Path(name).stem))
    return values, name


def _make_name(stem: str) -> str:
    """Turn a file's stem into a name that a run folder may begin with."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in stem.lower()).lstrip("_.-")
    return kept or "run"


def count_labels(config: RunConfig) -> int:
    """Return the number of classes, from the settings, the data, or what is known of the data.

    Raises:
        ConfigError: None of them says.
        DataError: The data cannot be read.
    """
    source = config.data.source
    if config.data.labels:
        return len(config.data.labels)
    if source is not None:
        if source in NUM_HUB_LABELS and not Path(source).exists():
            return NUM_HUB_LABELS[source]
        from submillion.data.read import Columns, read_dataset

        columns = Columns(config.data.text, config.data.label, config.data.id)
        numbering = Numbering.parse(config.data.numbers)
        labels = read_dataset(source, columns, numbering=numbering, revision=config.data.revision).labels
        if labels is not None:
            return len(labels)
    raise ConfigError(
        "the number of classes is unknown: there are no labels in the settings and none in the data",
        where="data.labels",
        hint="Give the data, or name the classes: --set 'data.labels=[good, bad]'",
    )


def _plan_folder(
    folder: Path, *, data: str | None, base: str | None, budget: int | None, settings: Sequence[str]
) -> Plan:
    if data is not None or settings:
        given = "data" if data is not None else settings[0]
        raise ConfigError(
            f"{given!r} has no effect on an adapter folder",
            where=str(folder),
            hint="Its counts come from the adapter itself; leave the setting out.",
        )
    name = base or str(read_adapter_config(folder).get("base_model_name_or_path") or "")
    if not name:
        raise ConfigError("the adapter does not name its base model", where=str(folder), hint="Name it with --base.")
    limit = RunConfig().budget if budget is None else budget
    return plan_adapter_folder(folder, load_base_config(name), budget=limit, base=name)
