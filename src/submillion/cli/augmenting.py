"""`submillion augment`: make synthetic training rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from submillion.cli import generating, options
from submillion.cli.console import print_json, print_result

if TYPE_CHECKING:
    from submillion.wordnet.synonym_rows import SynonymSummary

app = typer.Typer(help="Make synthetic training rows, which `train --extra` trains on.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="New file for the rows, as JSON lines.")]


@app.callback()
def _augment() -> None:
    """Make a group of the commands, even if there is only one."""


@app.command("synonyms")
def synonyms(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Labelled file, folder or hf:owner/name.", show_default=False)
    ],
    *,
    out: Out,
    copies: Annotated[int, typer.Option("--copies", metavar="N", help="Different rows made from each record.")] = 1,
    rate: Annotated[
        float, typer.Option("--rate", metavar="R", help="Chance that a replaceable word is replaced; at least one is.")
    ] = 0.5,
    rows: Annotated[
        int | None,
        typer.Option("--rows", metavar="N", help="Rows in all, in the classes' proportions; by default all possible."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed for the choices.")] = 0,
    lexicon: Annotated[
        Path | None, typer.Option("--lexicon", metavar="DIR", help="Folder of a WordNet database; found by default.")
    ] = None,
    tagger: Annotated[
        Literal["context", "nltk"],
        typer.Option("--tagger", help="Parts of speech from frequency and neighbours, or from nltk's tagger."),
    ] = "context",
    text: options.Text = None,
    label: options.Label = None,
    row_id: options.Id = None,
    as_json: options.Json = False,
) -> None:
    """Replace words of training rows by WordNet synonyms; rows keep their labels and name their source."""
    from submillion.cli.progress_bars import open_progress
    from submillion.run.folder import refuse_overwriting
    from submillion.wordnet.synonym_rows import write_synonym_rows

    refuse_overwriting(out, where=f"--out {out}")
    summary = write_synonym_rows(
        data,
        out,
        copies=copies,
        rate=rate,
        rows=rows,
        seed=seed,
        lexicon=lexicon,
        tagger=tagger,
        columns=options.choose_columns(text, label, row_id),
        progress=open_progress(),
    )
    if as_json:
        print_json(summary.to_json())
    else:
        _print_summary(summary)


def _print_summary(summary: SynonymSummary) -> None:
    from submillion.cli.tables import make_table

    table = make_table("class", "rows")
    for name, count in summary.class_counts.items():
        table.add_row(name, f"{count:,}")
    print_result(table)
    print_result("")
    print_result(f"{summary.num_rows:,} rows, {summary.num_words / summary.num_rows:.2f} words replaced per row")
    print_result(f"{summary.num_records:,} records read, {summary.num_unchanged:,} of them without a word to replace")
    if summary.num_missing:
        print_result(f"{summary.num_missing:,} rows fewer than requested: the records give no more")
    print_result(f"WordNet {summary.lexicon['version']} from {summary.lexicon['place']}")
    print_result(f"train on them: submillion train RECIPE --extra {summary.out}:0.5")
    print_result(str(summary.out))


app.command("generate")(generating.generate)
app.command("prompts")(generating.prompts)
