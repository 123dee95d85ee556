"""Nested settings: applying overrides by dotted path, flattening and comparing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from submillion.config.yaml_text import MAX_DEPTH
from submillion.errors import ConfigError


def apply_overrides(values: Mapping[str, object], overrides: Mapping[str, object]) -> dict[str, Any]:
    """Return nested values with overrides applied in order; each replaces the whole setting that it names.

    Args:
        values: Nested settings, as read from YAML.
        overrides: Values by dotted path, such as ``{"train.learning_rate": 2e-4}``. Arrays, numpy's numbers and paths
            become plain values.

    Raises:
        ConfigError: The overrides are not a mapping, or one leads through a value that is not a section.
    """
    if not isinstance(overrides, Mapping):
        raise ConfigError(
            f"{overrides!r:.80} ({type(overrides).__name__}) is not a mapping",
            where="settings",
            hint='Give values by dotted path, such as {"train.epochs": 2}.',
        )
    result: dict[str, object] = _copy_tree(values)
    for path, value in overrides.items():
        sections, key = _split_path(path)
        node = result
        for section in sections:
            child = node.setdefault(section, {})
            if not isinstance(child, dict):
                raise ConfigError(f"{section!r} is a value, not a section", where=path)
            node = child
        node[key] = _make_plain(value, path)
    return result


def add_overrides(overrides: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """Return overrides followed by more, which take precedence; those that are None are left out."""
    kept = {path: value for path, value in more.items() if value is not None}
    return {path: value for path, value in overrides.items() if path not in kept} | kept


def _split_path(path: object) -> tuple[list[str], str]:
    if not isinstance(path, str) or not all(path.split(".")):
        raise ConfigError(
            f"{path!r:.80} is not the path of a setting",
            where="settings",
            hint="Join its names with dots, as in train.learning_rate.",
        )
    *sections, key = path.split(".")
    if len(sections) > MAX_DEPTH:
        raise ConfigError(f"names {len(sections)} sections within each other", where=f"{path[:80]}")
    return sections, key


def _make_plain(value: object, path: str, depth: int = 0) -> object:
    """Return a value as YAML would give it; values of a grid are often numpy's."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"is nested more than {MAX_DEPTH} deep", where=path)
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _make_plain(inner, path, depth + 1) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_make_plain(inner, path, depth + 1) for inner in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ConfigError(f"{value!r:.80} ({type(value).__name__}) is not a setting", where=path)


def _copy_tree(values: Mapping[str, object]) -> dict[str, object]:
    return {key: _copy_tree(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def flatten(values: Mapping[str, object], *, depth: int = MAX_DEPTH) -> dict[str, object]:
    """Return nested settings under dotted paths, in order; empty mappings and lists stay values.

    Args:
        values: Nested settings.
        depth: Number of levels of sections to open; deeper mappings stay values.
    """
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value and depth > 0:
            flat |= {f"{key}.{path}": inner for path, inner in flatten(value, depth=depth - 1).items()}
        else:
            flat[key] = value
    return flat


def list_changes(before: object, now: object, path: str = "") -> list[tuple[str, object, object]]:
    """Return the differences between two nested values: dotted path, old and new value; a missing value is None."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            change
            for key in {**before, **now}
            for change in list_changes(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if before == now else [(path, before, now)]
