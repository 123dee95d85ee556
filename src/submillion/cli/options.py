"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from submillion.config.run import RunConfig
    from submillion.data.columns import Columns

ExportFormat = Literal["merged", "adapter"]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
RecipeData = Annotated[
    str | None,
    typer.Option("--data", metavar="DATA", help="File, folder or hf:owner/name.  [default: the recipe's]"),
]
Text = Annotated[str | None, typer.Option("--text", metavar="A,B", help="Text columns, joined by a space.")]
Label = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="Label column.")]
Id = Annotated[
    str | None,
    typer.Option("--id", metavar="COLUMN", help="Id column, or none for row numbers; by default found by name."),
]
Numbers = Annotated[
    Literal["names", "ids", "ids-from-1"] | None,
    typer.Option("--numbers", help="Meaning of numeric labels: names, or ids from 0 or 1; by default as in training."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout, and everything else on stderr.")]
Base = Annotated[str | None, typer.Option("--base", metavar="MODEL", help="Base model: short name, hub id or folder.")]
Budget = Annotated[int | None, typer.Option("--budget", metavar="N", help="Trainable parameters stay below N.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed for the training.")]
ScorePrecision = Annotated[
    Literal["bf16", "int8"] | None,
    typer.Option("--precision", help="Precision of the encoder; by default as trained. int8 is the fastest."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as train.epochs=2; repeatable."),
]


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the names of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def choose_columns(text: str | None, label: str | None, row_id: str | None) -> Columns:
    """Return the requested columns."""
    from submillion.data.columns import make_columns

    return make_columns(split_names(text), label, row_id)


def resolve(recipe: str, **arguments: Any) -> RunConfig:
    """Return the configuration of a run from `resolve_config`, and print the changes to the recipe."""
    from submillion.cli.console import print_note
    from submillion.pipeline.resolve import resolve_config
    from submillion.training.collective import is_first_process

    resolved = resolve_config(recipe, **arguments)
    if is_first_process():
        for note in resolved.notes:
            print_note(note)
    return resolved.config


def read_settings(given: Sequence[str] | None) -> dict[str, object]:
    """Return the ``--set KEY=VALUE`` options as settings by dotted path, with values read as YAML.

    If a path is given twice, the last value counts.

    Raises:
        ConfigError: An option has no ``=`` or broken YAML.
    """
    from submillion.config.yaml_text import parse_yaml
    from submillion.errors import ConfigError

    settings: dict[str, object] = {}
    for text in given or ():
        path, equals, raw = text.partition("=")
        path = path.strip()
        if not equals or not path:
            raise ConfigError(
                f"{text!r} is not of the form key=value",
                where="--set",
                hint="For example --set train.learning_rate=2e-4",
            )
        # A later value is placed after earlier ones, whatever their section.
        settings.pop(path, None)
        settings[path] = parse_yaml(raw, where=f"--set {path[:80]}")
    return settings
