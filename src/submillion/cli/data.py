"""`submillion check`: the data doctor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from submillion.cli import options
from submillion.cli.console import make_text, print_json, print_note, print_result
from submillion.storage.json_shapes import JsonView

if TYPE_CHECKING:
    from submillion.config.run import ModelConfig
    from submillion.data.read import Dataset
    from submillion.encoding.text_encoder import TextEncoder

SHOWN_EXAMPLES = 3


Against = Annotated[
    str | None, typer.Option("--against", metavar="DATA", help="Other data, to look for rows that are in both.")
]
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", metavar="RECIPE", help="Recipe whose base, max_length and long_texts are used."),
]


def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="File, folder or hf:owner/name.", show_default=False)],
    *,
    against: Against = None,
    text: options.Text = None,
    label: options.Label = None,
    row_id: options.Id = None,
    recipe: Recipe = None,
    base: options.Base = None,
    settings: options.Settings = None,
    numbers: options.Numbers = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if there are findings.")] = False,
    as_json: options.Json = False,
) -> None:
    """Examine data: duplicates, label conflicts, leaks, damage, and how much a base (default minilm-l6) can read."""
    from submillion.cli.progress_bars import open_progress
    from submillion.data.check import check_records
    from submillion.data.labels import Numbering
    from submillion.data.read import read_dataset
    from submillion.encoding.text_encoder import started_beside

    progress = open_progress()
    model = _choose_model(recipe, base, settings)
    columns = options.choose_columns(text, label, row_id)
    progress.start("read")
    dataset = read_dataset(data, columns, numbering=Numbering.parse(numbers))
    numbering = dataset.reading.numbering if dataset.reading is not None else None
    others = read_dataset(against, columns, labels=dataset.labels, numbering=numbering) if against is not None else None
    progress.finish()
    for note in (*dataset.notes, *(others.notes if others is not None else ())):
        print_note(note)
    encoder = _find_encoder(model, is_chosen=recipe is not None or base is not None)
    counts = {
        name: partial(encoder.count_tokens, [record.text for record in rows])
        for name, rows in dataset.splits.items()
        if encoder is not None
    }
    with started_beside(counts) as count_tokens:
        report = check_records(
            dataset.splits,
            dataset.labels,
            count_tokens=count_tokens or None,
            max_length=model.num_tokens_kept,
            long_texts=model.long_texts,
            column_names=dataset.column_names,
            label_column=None if dataset.reading is None else dataset.reading.label,
            against=_name_splits(against, others),
            on_progress=progress.start,
        )
    progress.finish()
    findings = report.to_json()
    if as_json:
        print_json(findings)
    else:
        _print_findings(findings)
    if strict and _has_findings(findings):
        raise typer.Exit(3)


def _name_splits(against: str | None, dataset: Dataset | None) -> dict[str, Sequence[Any]] | None:
    if dataset is None:
        return None
    return {name if name == "all" else f"{against}:{name}": rows for name, rows in dataset.splits.items()}


def _choose_model(recipe: str | None, base: str | None, settings: Sequence[str] | None) -> ModelConfig:
    """Return the model settings that texts are checked for."""
    from submillion.config.nested import add_overrides, apply_overrides
    from submillion.config.run import parse_config
    from submillion.errors import ConfigError
    from submillion.recipes import load_recipe

    overrides = add_overrides(options.read_settings(settings), {"model.base": base})
    if recipe is None:
        model = parse_config(apply_overrides({}, overrides), where="--set").model
    else:
        model = load_recipe(recipe, overrides).model
    if not isinstance(model.max_length, int):
        raise ConfigError(
            f"{model.max_length} is measured on a run's training rows; `check` needs a number",
            where="model.max_length",
            hint="Give one: --set model.max_length=256",
        )
    return model


def _find_encoder(model: ModelConfig, *, is_chosen: bool) -> TextEncoder | None:
    """Return the tokenizer of a base model; for the default base None, with a note, if it is not installed."""
    from submillion.errors import ModelError
    from submillion.model.sources import find_base, load_base_config

    if is_chosen:
        from submillion.model.encoder import check_length

        check_length(load_base_config(model.base, model.revision), model.max_length)
    try:
        folder = find_base(model.base, model.revision).folder
    except ModelError as error:
        if is_chosen:
            raise
        print_note(f"lengths are in words instead of tokens, and unknown tokens are not counted: {error.message}")
        return None
    from submillion.encoding.text_encoder import TextEncoder

    return TextEncoder(folder, model.num_tokens_kept, model.long_texts)


_COUNTS = {
    "num_empty": "empty rows",
    "num_too_long": "rows longer than the model reads",
    "num_exact_duplicates": "exact duplicates",
    "num_near_duplicates": "near duplicates",
    "num_label_conflicts": "texts with more than one label",
    "num_encoding_damage": "rows with damaged characters or entities, before cleaning",
    "num_similar_labels": "class names that look alike",
    "num_doubtful_labels": "class names that read like a missing value or a header",
}


def _has_findings(findings: JsonView) -> bool:
    from submillion.data.legibility import list_loud

    is_loud = findings["legibility"] is not None and list_loud(findings["legibility"])
    return bool(findings["leaks"] or is_loud) or any(findings[key] for key in _COUNTS)


def _print_findings(findings: JsonView) -> None:
    from submillion.cli.tables import make_table
    from submillion.data.findings import describe_labels
    from submillion.data.legibility import describe_legibility

    splits = make_table("split", "records", "median length", "longest", "classes")
    splits.columns[-1].justify = "left"
    for name, split in findings["splits"].items():
        lengths = split["lengths"]
        counts = split["class_counts"] or {}
        classes = ", ".join(f"{label} {count:,}" for label, count in list(counts.items())[:8]) or "no labels"
        more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
        median = f"{lengths['percentiles']['p50']:g} {lengths['unit']}"
        splits.add_row(make_text(name), f"{split['num_records']:,}", median, f"{lengths['max']:,}", classes + more)
    print_result(splits)
    print_result("")
    table = make_table("finding", "count")
    for key, name in _COUNTS.items():
        table.add_row(name, f"{findings[key]:,}")
    print_result(table)
    for line in describe_legibility(findings["legibility"] or {}, what="texts"):
        print_result("")
        print_result(line)
    for line in describe_labels(findings):
        print_result(line.removeprefix("check: "))
    for leak in findings["leaks"]:
        kind = {"exact": "equal texts", "near": "nearly equal texts", "column": "one column equal"}[leak["kind"]]
        print_result("")
        print_result(f"leak: {leak['num_records']:,} rows of {leak['left']} are in {leak['right']} ({kind})")
        for example in leak["examples"][:SHOWN_EXAMPLES]:
            print_result(f"  {example['left']} ~ {example['right']}: {example['text']}")
    for example in findings["label_conflicts"]["examples"][:SHOWN_EXAMPLES]:
        places = ", ".join(f"{name} at {place}" for name, place in example.items() if name != "text")
        print_result(f"conflict: {places}: {example['text']}")
    for name, split in findings["splits"].items():
        for key in ("exact_duplicates", "near_duplicates"):
            for example in split[key]["examples"][:SHOWN_EXAMPLES]:
                shown = f"{example['left']} ~ {example['right']}: {example['text']}"
                print_result(f"{key.replace('_', ' ').removesuffix('s')} in {name}: {shown}")
        for sign, finding in split["damage"].items():
            for example in finding["examples"][:SHOWN_EXAMPLES]:
                print_result(f"{sign.replace('_', ' ')} at {example['place']}: {example['text']}")
