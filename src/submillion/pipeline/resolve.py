"""The configuration of a run from a recipe's values, then the arguments of a call, then the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from submillion.budget.transfer import adapt_to_base
from submillion.config.nested import apply_overrides
from submillion.config.run import AdapterConfig, RunConfig, load_yaml, parse_config
from submillion.corpus import CORPUS_FOLDER
from submillion.data.columns import Columns, make_columns
from submillion.data.labels import Numbering, NumbersChoice
from submillion.data.texts import name_source
from submillion.errors import ConfigError
from submillion.model.sources import load_base_config
from submillion.recipes import list_recipes, read_recipe

Recipe = str | PathLike[str] | Mapping[str, object] | RunConfig
"""Name of a shipped recipe, path of a YAML file, nested settings, or a whole configuration."""

ExtraRows = str | PathLike[str] | tuple[str | PathLike[str], float]
"""A file of synthetic rows, with the weight of its rows in the loss if that is not 1."""

NUM_HUB_LABELS: Mapping[str, int] = {"hf:fancyzhx/ag_news": 4}
"""Number of classes of the hub data sets in shipped recipes, so that they can be planned without a network."""


@dataclass(frozen=True)
class ResolvedConfig:
    """The configuration of a run, with remarks on how it was made.

    Attributes:
        config: Complete and valid configuration.
        notes: One line for every change that was made to fit another base model.
    """

    config: RunConfig
    notes: tuple[str, ...] = ()


def resolve_config(
    recipe: Recipe,
    *,
    data: object = None,
    base: str | PathLike[str] | None = None,
    budget: int | None = None,
    seed: int | None = None,
    text: str | Sequence[str] = (),
    label: str | None = None,
    row_id: str | None = None,
    numbers: NumbersChoice | None = None,
    extra: Sequence[ExtraRows] = (),
    start_from: str | PathLike[str] | None = None,
    settings: Mapping[str, object] = {},
) -> ResolvedConfig:
    """Return the configuration of a run: a recipe, then the arguments, then the settings.

    A new `data` or `base` drops the revision that pinned the old one. For another base model than the recipe's, layers
    and module names are mapped, which `about` then records. The recipe ``demo`` gets the shipped news items if it has
    no other data. The arguments are those of `submillion.train`.

    Raises:
        ConfigError: The recipe is unknown, its YAML is broken or settings do not fit. All such settings are named at
            once.
        ModelError: A recipe's names must be mapped, and the configuration of a base model cannot be found.
    """
    given, where = _read_values(recipe)
    source, named = name_source(data), _name(base)
    files = [{"data": str(path), "weight": weight} for path, weight in map(_pair_with_weight, extra)]
    columns = make_columns(text, label, row_id)
    arguments: dict[str, object] = {
        "data": {
            "source": source,
            "text": list(columns.text) or None,
            "label": columns.label,
            "id": columns.id,
            "numbers": numbers,
            "extra": files or None,
        },
        "model": {"base": named},
        "budget": budget,
        "seed": seed,
        "start_from": _name(start_from),
    }

    def build(values: dict[str, object]) -> RunConfig:
        return parse_config(apply_overrides(_merge(values, arguments), settings), where=where)

    values = apply_overrides(given, {})
    if recipe == "demo":
        values = _merge({"data": {"source": str(CORPUS_FOLDER)}}, values)
    for section, name, replaced in (("data", "source", source), ("model", "base", named)):
        if replaced is not None and isinstance(values.get(section), dict) and values[section].get(name) != replaced:
            values[section].pop("revision", None)
    config, original = build(values), parse_config(values, where=where)
    if config.model.base == original.model.base or not _names_modules(original.adapter):
        return ResolvedConfig(config)
    changed, notes = _map_names(values, original, config)
    return ResolvedConfig(build(changed) if notes else config, notes)


def _map_names(
    values: Mapping[str, object], original: RunConfig, config: RunConfig
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return a recipe's values with layers and module names mapped to another base model, and the changes."""
    adapter, notes = adapt_to_base(
        original.adapter,
        recipe_config=load_base_config(original.model.base, original.model.revision),
        config=load_base_config(config.model.base, config.model.revision),
    )
    change = f"Mapped from {original.model.base} to {config.model.base}: "
    about = f"{original.about}\n{change}{'; '.join(notes)}.".lstrip()
    changed = {**values, "adapter": adapter.model_dump(mode="json"), "about": about}
    return changed, tuple(f"mapped to {config.model.base}: {note}" for note in notes)


def _name(path: str | PathLike[str] | None) -> str | None:
    return None if path is None else str(path)


def _pair_with_weight(extra: ExtraRows) -> tuple[str | PathLike[str], float]:
    return extra if isinstance(extra, tuple) else (extra, 1.0)


def _names_modules(adapter: AdapterConfig) -> bool:
    """Return whether an adapter names layers or modules of a particular base model."""
    return adapter.layers is not None or any("." in name for name in (*adapter.targets, *adapter.ranks))


def _merge(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
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


def _read_values(recipe: Recipe) -> tuple[dict[str, object], str]:
    """Return a recipe's settings and their origin."""
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
    """Turn a file's stem into a valid beginning for the name of a run folder."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in stem.lower()).lstrip("_.-")
    return kept or "run"


def count_labels(config: RunConfig) -> int:
    """Return the number of classes, from the settings, the data, or the table of known data sets.

    Raises:
        ConfigError: None of them gives the number.
        DataError: The data cannot be read.
    """
    source = config.data.source
    if config.data.labels:
        return len(config.data.labels)
    if source is not None:
        if source in NUM_HUB_LABELS and not Path(source).exists():
            return NUM_HUB_LABELS[source]
        from submillion.data.read import read_dataset

        columns = Columns(config.data.text, config.data.label, config.data.id)
        numbering = Numbering.parse(config.data.numbers)
        labels = read_dataset(source, columns, numbering=numbering, revision=config.data.revision).labels
        if labels is not None:
            return len(labels)
    raise ConfigError(
        "the number of classes is unknown: neither the settings nor the data have labels",
        where="data.labels",
        hint="Give the data, or name the classes: --set 'data.labels=[good, bad]'",
    )
