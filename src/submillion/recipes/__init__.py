"""Recipes: complete runs as YAML files, shipped with the package or written by users."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from submillion.config.nested import apply_overrides
from submillion.config.run import RunConfig, load_yaml, parse_config
from submillion.errors import ConfigError


def list_recipes() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def read_recipe(name: str) -> str:
    """Return a recipe's YAML text, by shipped name or by path to a file.

    Raises:
        ConfigError: The recipe is unknown. The message suggests the nearest name.
    """
    if name in list_recipes():
        return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}", where=name) from None
    close = difflib.get_close_matches(name, list_recipes(), n=1)
    suggestion = f"Did you mean {close[0]!r}? " if close else ""
    raise ConfigError(
        f"unknown recipe {name!r}",
        hint=f"{suggestion}Shipped recipes: {', '.join(list_recipes())}. A path to a YAML file works too.",
    )


def load_recipe(name: str, overrides: Mapping[str, object] = {}) -> RunConfig:
    """Return a recipe as a validated configuration, with overrides by dotted path applied.

    Raises:
        ConfigError: The recipe is unknown, its YAML is broken or its settings do not fit.
    """
    values = load_yaml(read_recipe(name), where=name)
    return parse_config(apply_overrides(values, overrides), where=name)


def _folder() -> resources.abc.Traversable:
    return resources.files(__name__)
