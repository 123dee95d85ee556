"""`submillion evaluate`, `compare`, `predict` and `classify`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from submillion.cli import options
from submillion.cli.console import make_text, print_json, print_note, print_result
from submillion.storage.json_shapes import JsonObject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from submillion.data.legibility import Legibility
    from submillion.records import LabelSet, Prediction

BAR_WIDTH = 30

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="Labelled file, folder or hf:owner/name.", show_default=False)
]
LabelsFile = Annotated[
    Path | None, typer.Option("--labels", metavar="FILE", help="File with id,label rows, if DATA has no labels.")
]


def evaluate(
    run: options.Run,
    data: Data,
    *,
    labels: LabelsFile = None,
    text: options.Text = None,
    label: options.Label = None,
    row_id: options.Id = None,
    numbers: options.Numbers = None,
    precision: options.ScorePrecision = None,
    as_json: options.Json = False,
) -> None:
    """Evaluate a run on labelled data: metrics with 95 % intervals, confusion and calibration."""
    from submillion.cli.labelled import read_labelled
    from submillion.cli.progress_bars import open_progress
    from submillion.cli.tables import tabulate_evaluation
    from submillion.data.legibility import describe_legibility
    from submillion.scoring.evaluate_run import evaluate_run
    from submillion.scoring.run_model import load_run

    progress = open_progress()
    progress.start("load")
    model = load_run(run, precision=precision)
    columns = options.choose_columns(text, label, row_id)
    records, known = read_labelled(model, data, columns, labels_file=labels, numbers=numbers, progress=progress)
    figures = {**evaluate_run(model, records, progress=progress).to_json(), "num_trained_on": known}
    if as_json:
        print_json(figures)
        return
    for block in tabulate_evaluation(figures):
        print_result(block)
    for line in describe_legibility(figures["legibility"], what="texts"):
        print_result("")
        print_result(line)


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another run folder.", show_default=False)],
    data: Data,
    *,
    labels: LabelsFile = None,
    text: options.Text = None,
    label: options.Label = None,
    row_id: options.Id = None,
    numbers: options.Numbers = None,
    as_json: options.Json = False,
) -> None:
    """Compare two runs on the same rows, with a paired McNemar test and a bootstrap."""
    from submillion.cli.labelled import read_labelled
    from submillion.cli.progress_bars import open_progress
    from submillion.errors import ConfigError
    from submillion.metrics.evaluate import compare_correct
    from submillion.scoring.run_model import load_run

    progress = open_progress()
    columns = options.choose_columns(text, label, row_id)
    right: list[NDArray[np.bool_]] = []
    names: list[LabelSet] = []
    trained_on: list[int | None] = []
    for folder in (first, second):
        progress.start("load")
        model = load_run(folder)
        names.append(model.labels)
        if set(names[0]) != set(names[-1]):
            raise ConfigError(
                f"the runs have different classes: {', '.join(names[0])}; and {', '.join(names[1])}",
                where=str(second),
                hint="Only runs with the same classes can be compared.",
            )
        records, known = read_labelled(model, data, columns, labels_file=labels, numbers=numbers, progress=progress)
        trained_on.append(known)
        scored = model.score_records(records, progress=progress)
        _warn_unread(scored.legibility, f"texts, as {folder} reads them,")
        if note := scored.describe_blank():
            print_note(f"{folder}: {note}")
        predicted = scored.logits.argmax(axis=1)
        right.append(predicted == [record.label for record in records])
    comparison = {**compare_correct(right[0], right[1]).to_json(), "num_trained_on": trained_on}
    if as_json:
        print_json(comparison)
        return
    _print_comparison((first, second), right, comparison)


def _print_comparison(runs: Sequence[Path], right: Sequence[NDArray[np.bool_]], comparison: Mapping[str, Any]) -> None:
    from submillion.cli.tables import make_table
    from submillion.report.formatting import show_p, show_percent, show_points

    table = make_table("figure", "value")
    for folder, hits in zip(runs, right, strict=True):
        table.add_row(make_text(f"accuracy of {folder}"), show_percent(float(hits.mean())))
    table.add_row(
        "first minus second, in points (95 % interval)", show_points(comparison["difference"], comparison["interval"])
    )
    table.add_row("McNemar's exact p", show_p(comparison["mcnemar_p"]))
    for name in ("only_first_right", "only_second_right", "num_records"):
        table.add_row(name.removeprefix("num_").replace("_", " "), f"{comparison[name]:,}")
    print_result(table)


def predict(
    run: options.Run,
    source: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="csv, tsv, jsonl, parquet, arrow folder, txt or pkl.", show_default=False),
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="A .csv, .jsonl or .parquet file.", show_default=False)
    ],
    labels: Annotated[
        Literal["ids", "names"] | None,
        typer.Option("--labels", help="Positions from 0, or class names.  [default: as in the training rows]"),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add a column probability_<class> for every class.")
    ] = False,
    defuse_formulas: Annotated[
        bool, typer.Option("--defuse-formulas", help="Quote csv cells that a spreadsheet would compute.")
    ] = False,
    text: options.Text = None,
    row_id: options.Id = None,
    precision: options.ScorePrecision = None,
) -> None:
    """Predict the labels of a file's rows, in order, and write them as columns ID,Label."""
    from submillion.cli.progress_bars import open_progress
    from submillion.scoring.predictions import predict_file
    from submillion.scoring.run_model import load_run

    predicted = predict_file(
        lambda: load_run(run, precision=precision),
        source,
        out,
        asked=options.choose_columns(text, None, row_id),
        labels=labels,
        probabilities=probabilities,
        defuse_formulas=defuse_formulas,
        progress=open_progress(),
    )
    print_result(str(predicted.out))


def classify(
    run: options.Run,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Texts to classify; - reads lines from stdin.")],
    precision: options.ScorePrecision = None,
    as_json: options.Json = False,
) -> None:
    """Classify texts, and print labels and probabilities. Put texts that begin with a dash after --."""
    from submillion.data.texts import list_texts
    from submillion.errors import DataError
    from submillion.scoring.run_model import load_run

    lines = _read_stdin() if texts == ["-"] else texts
    if not lines:
        raise DataError("no text is given", where="stdin", hint="Write one text per line.")
    lines = list_texts(lines)
    model = load_run(run, precision=precision)
    for note in model.notes:
        print_note(note)
    predictions = model.classify(lines, on_read=lambda read: _warn_unread(read, "these texts"))
    if as_json:
        print_json([_describe_prediction(prediction, model.labels) for prediction in predictions])
        return
    for line, prediction in zip(lines, predictions, strict=True):
        _print_prediction(line, prediction, model.labels)


def _warn_unread(read: Legibility, what: str) -> None:
    from submillion.data.legibility import describe_legibility

    for line in describe_legibility(read.to_json(), what=what, loud_only=True):
        print_note(line)


def _read_stdin() -> list[str]:
    from submillion.errors import DataError

    try:
        return [line.removesuffix("\n").removesuffix("\r") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error.reason}", where="stdin", hint="Convert it, as with iconv.") from None


def _describe_prediction(prediction: Prediction, labels: LabelSet) -> JsonObject:
    shares = dict(zip(labels, prediction.probabilities, strict=True))
    described = {"label": prediction.label, "label_id": prediction.label_id, "probabilities": shares}
    return described if prediction.has_text else {**described, "has_text": False}


def _print_prediction(text: str, prediction: Prediction, labels: LabelSet) -> None:
    print_result(text if len(text) <= 200 else f"{text[:199]}\N{HORIZONTAL ELLIPSIS}")
    if not prediction.has_text:
        print_note("this text is empty after cleaning, so its label is meaningless")
    width = max(len(name) for name in labels)
    for name, share in zip(labels, prediction.probabilities, strict=True):
        bar = "\N{FULL BLOCK}" * round(BAR_WIDTH * share)
        style = "bold" if name == prediction.label else ""
        print_result(make_text(f"  {name:<{width}}  {share:6.1%}  {bar}", style))
