"""Prompts: the beginnings of rows by class, shipped for the four news classes or from a user's file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from submillion.config.run import load_yaml
from submillion.errors import ConfigError
from submillion.records import LabelSet

SHIPPED_NAME = "news.yaml"
MAX_CHARS = 500
"""Most characters of a prompt; after a longer one, the new text would be a small part of the row."""

Prompts = Mapping[str, tuple[str, ...]]
"""Prompts of every class by name, in the order of the label ids."""


def read_shipped_prompts() -> str:
    """Return the shipped prompts as YAML text: 16 beginnings for each of World, Sports, Business and Sci/Tech."""
    return (resources.files("submillion.augment") / "prompts" / SHIPPED_NAME).read_text(encoding="utf-8")


def load_prompts(path: Path | None, labels: LabelSet | None) -> Prompts:
    """Return the prompts of every class.

    Args:
        path: YAML file that lists prompts under each class name; the shipped prompts if absent.
        labels: Classes of the data, which the file must have exactly; the classes of the file if absent.

    Raises:
        ConfigError: The file cannot be read or lists something else, or its classes are not those of the data.
    """
    where = str(path) if path is not None else "the shipped prompts"
    values = load_yaml(_read_text(path) if path is not None else read_shipped_prompts(), where=where)
    problems = [problem for name, listed in values.items() for problem in _find_problems(name, listed)]
    if problems:
        raise ConfigError(
            "\n".join(problems),
            where=where,
            hint="Write a class name and below it a list of beginnings, as `submillion augment prompts` prints them.",
        )
    given: dict[str, tuple[str, ...]] = {name: tuple(text.strip() for text in values[name]) for name in values}
    if labels is None:
        names = LabelSet(tuple(given)).names
    elif set(labels) == set(given):
        names = labels.names
    else:
        raise _explain_classes(given, labels, where)
    return {name: given[name] for name in names}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None


def _find_problems(name: Any, listed: Any) -> Iterable[str]:
    if not isinstance(name, str):
        yield f"the class name {name!r} is not text; put it in quotes"
    elif not isinstance(listed, list) or not listed:
        yield f"{name}: expected a list of beginnings, found {listed!r:.60}"
    else:
        for position, text in enumerate(listed, start=1):
            if not isinstance(text, str) or not text.strip():
                yield f"{name}: entry {position} is not text: {text!r:.60}; put it in quotes"
            elif len(text) > MAX_CHARS:
                yield f"{name}: entry {position} has {len(text)} characters, the limit is {MAX_CHARS}"
        repeated = sorted({text for text in listed if isinstance(text, str) and listed.count(text) > 1})
        if repeated:
            yield f"{name}: {repeated[0]!r:.60} appears twice"


def _explain_classes(given: Iterable[str], labels: LabelSet, where: str) -> ConfigError:
    missing = [name for name in labels if name not in set(given)]
    extra = [name for name in given if name not in set(labels)]
    parts = [f"no prompts for {', '.join(map(repr, missing))}"] if missing else []
    parts += [f"prompts for {', '.join(map(repr, extra))}, which the data does not have"] if extra else []
    return ConfigError(
        "; ".join(parts),
        where=where,
        hint="Write a YAML file with a list of beginnings for each of your classes and give it as --prompts FILE "
        "(`submillion augment prompts FILE` copies the shipped one as an example), or use --conditional, "
        "which needs no prompts.",
    )
