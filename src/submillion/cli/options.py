"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
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
    typer.Option("--id", metavar="COLUMN", help="Id column; none for row numbers, found by name if absent."),
]
Numbers = Annotated[
    Literal["names", "ids", "ids-from-1"] | None,
    typer.Option("--numbers", help="Numbers as labels: class names, or ids from 0 or 1; as in training if absent."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout; everything else on stderr.")]
Base = Annotated[str | None, typer.Option("--base", metavar="MODEL", help="Base model: short name, hub id or folder.")]
Budget = Annotated[int | None, typer.Option("--budget", metavar="N", help="Trainable parameters stay below N.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of the training.")]
ScorePrecision = Annotated[
    Literal["bf16", "int8"] | None,
    typer.Option("--precision", help="Of the encoder's products; as trained if absent. int8 is the fastest."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. train.epochs=2; repeatable.")
]


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the names of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def choose_columns(text: str | None, label: str | None, row_id: str | None) -> Columns:
    """Return the columns asked for."""
    from submillion.data.columns import Columns

    return Columns(text=split_names(text), label=label, id=row_id)
