"""`submillion augment generate` and `augment prompts`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from submillion.cli import options
from submillion.cli.console import make_text, print_json, print_note, print_raw, print_result
from submillion.storage.json_shapes import JsonObject

if TYPE_CHECKING:
    from submillion.augment.generate import Generated

SHOWN_ROWS = 3


Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="A new .jsonl file.", show_default=False)]
Target = Annotated[str | None, typer.Option("--target", metavar="FILE", help="Unlabelled rows to adapt the model to.")]
ClassifierRun = Annotated[
    Path | None, typer.Option("--classifier", metavar="RUN", help="Run that must predict the class of a row.")
]
LabelledData = Annotated[
    str | None, typer.Option("--data", metavar="DATA", help="Labelled data; by default the classifier's.")
]
Tests = Annotated[
    list[str] | None,
    typer.Option("--test", metavar="FILE", help="Test file, whose rows the model is not trained on; repeatable."),
]
PromptFile = Annotated[
    Path | None, typer.Option("--prompts", metavar="FILE", help="Prompts by class (YAML); by default for news.")
]
LanguageModelName = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="Causal language model; by default gpt2.")
]
FromScratch = Annotated[
    bool, typer.Option("--from-scratch", help="Train a tiny model on the given rows only; it writes junk.")
]
Full = Annotated[bool, typer.Option("--full", help="Train every parameter instead of LoRA.")]
Conditional = Annotated[
    bool, typer.Option("--conditional", help="Learn `label: text` from the training rows, without prompts.")
]
Keep = Annotated[int | None, typer.Option("--keep", metavar="N", help="Rows to keep per class; by default 500.")]
RowSeed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed for fine-tuning and rows.")]
GenerateOverrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as sample.top_p=0.9; repeatable."),
]


def generate(
    *,
    out: Out,
    target: Target = None,
    classifier: ClassifierRun = None,
    data: LabelledData = None,
    test: Tests = None,
    prompts: PromptFile = None,
    model: LanguageModelName = None,
    from_scratch: FromScratch = False,
    full: Full = False,
    conditional: Conditional = False,
    keep: Keep = None,
    seed: RowSeed = None,
    text: options.Text = None,
    settings: GenerateOverrides = None,
    as_json: options.Json = False,
) -> None:
    """Write labelled rows with a language model, and keep those that pass the filters.

    If it is killed or interrupted, the same command continues it.
    """
    from submillion.augment.generate import generate_rows
    from submillion.augment.prompt_examples import Inputs
    from submillion.cli.progress_bars import open_progress
    from submillion.config.generate import make_settings
    from submillion.run.folder import refuse_overwriting

    given: JsonObject = {
        "model": model,
        "from_scratch": from_scratch or None,
        "full": full or None,
        "conditional": conditional or None,
        "keep": keep,
        "seed": seed,
    }
    values = {name: value for name, value in given.items() if value is not None}
    inputs = Inputs(
        target=target,
        data=data,
        tests=tuple(test or ()),
        classifier=classifier,
        prompts=prompts,
        text=options.split_names(text),
    )
    refuse_overwriting(out, where=f"--out {out}")
    try:
        generated = generate_rows(
            inputs,
            out,
            make_settings(values, options.read_settings(settings), where="settings"),
            progress=open_progress(),
        )
    except KeyboardInterrupt:
        print_note("The same command continues from here.")
        raise
    if as_json:
        print_json({"out": str(generated.out), **generated.counts})
    else:
        _print_counts(generated)


def _print_counts(generated: Generated) -> None:
    from submillion.augment.filter_rows import REASONS
    from submillion.augment.generate import JUNK
    from submillion.augment.generation_state import WorkDir
    from submillion.cli.tables import make_table
    from submillion.data.synthetic import read_rows

    counts = generated.counts
    used = [reason for reason in REASONS if counts["dropped"][reason]]
    table = make_table("class", "drafts", "kept", *(reason.replace("_", " ") for reason in used))
    for name, entry in {**counts["classes"], "all": counts}.items():
        figures = [entry["num_drafts"], entry["num_kept"], *(entry["dropped"][reason] for reason in used)]
        table.add_row(make_text(name), *(f"{figure:,}" for figure in figures))
    print_result(table)
    tuned = counts["language_model"].get("finetuned")
    if tuned and tuned["held_out_loss"] is not None:
        print_result(
            f"language model: loss per token on {tuned['num_held_out']:,} held-out rows "
            f"{tuned['held_out_loss_before']:.2f} before and {tuned['held_out_loss']:.2f} after "
            f"{tuned['num_steps']:,} steps"
        )
    for row in read_rows(generated.out)[:SHOWN_ROWS]:
        print_result(f"{row.label}: {row.text}")
    if counts["junk"]:
        print_note(JUNK)
    if not counts["complete"]:
        print_note(
            f"Only {counts['num_kept']:,} of {counts['num_wanted']:,} rows: a class reached its limit of drafts, "
            "attempts times keep. For more, use --set attempts=N with another --out."
        )
    print_note(f"counts: {WorkDir(generated.out).counts}")
    print_result(str(generated.out))


def prompts(
    to: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="File to write; by default stdout.", show_default=False)
    ] = None,
) -> None:
    """Print the shipped prompts, or copy them to a file that you can change."""
    from submillion.augment.prompt_files import read_shipped_prompts
    from submillion.errors import ConfigError
    from submillion.storage.files import write_text

    content = read_shipped_prompts()
    if to is None:
        print_raw(content)
        return
    if to.exists():
        raise ConfigError("exists already", where=str(to), hint="Name another file.")
    if not to.parent.is_dir():
        raise ConfigError("there is no such folder", where=str(to.parent), hint="Make it first.")
    write_text(to, content)
    print_note(f"Use it: submillion augment generate --prompts {to} ...")
    print_result(str(to))
