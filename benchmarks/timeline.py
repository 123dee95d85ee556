"""Measurement of the work around the model: checking, tokenising, starting, and predicting in bulk."""

from __future__ import annotations

import csv
import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.child import MeasuredProcess, find_cache, make_environment
from benchmarks.commands import Command, describe_seconds, time_in_turn
from benchmarks.machine import Site
from benchmarks.row_source import take_rows, write_rows
from submillion.errors import RunError
from submillion.progress import Progress, Silent

NUM_ROWS = 120_000
"""Default number of rows that are checked and tokenised."""

SHORT_ROWS = 10_000
"""Number of rows of the prediction that the long one is compared with."""

# A start takes a second while the others take a minute, so there can be more starts.
_STARTS_PER_ROUND = 3
_WARMUP_ROWS = 2048

_TEXT = "The central bank raised its rate by a quarter of a point and said that it would wait for the summer."
_BARE = "python -c ''"
_HELP = "submillion --help"
_IMPORT = "import submillion"
_CLASSIFY = "submillion classify RUN TEXT"
_PEER_IMPORT = "import AutoModelForSequenceClassification"
_ENCODE = "tokenise"


def measure_around(site: Site, progress: Progress) -> dict[str, Any]:
    """Measure everything except training and scoring.

    Returns:
        ``cases``, ``ratios``, ``differences`` and ``rows`` (a sentence), as JSON types.

    Raises:
        RunError: A command has failed, or predictions are out of order.
    """
    settings = site.settings
    progress.start("data: prepare")
    site.prepare(run=True)
    num_rows, bulk_rows = settings.num_rows or NUM_ROWS, settings.bulk_rows
    sizes = sorted({num_rows, 2 * num_rows, SHORT_ROWS, bulk_rows})
    rows, about = take_rows(site.source, sizes[-1])
    files = {count: site.scratch / f"rows-{count}.jsonl" for count in sizes}
    for count, path in files.items():
        write_rows(rows[:count], path)
    del rows
    progress.finish()

    shared = make_environment(site.threads, find_cache(site.scratch))
    starts = _list_starts(site)
    time_in_turn(starts, shared, 1, Silent())  # reads files from the disk and builds kernels
    cases = time_in_turn(starts, shared, settings.num_rounds * _STARTS_PER_ROUND, progress)
    checks = _list_checks(files, num_rows)
    cases |= time_in_turn(checks, {**shared, "SUBMILLION_CACHE": "off"}, settings.num_rounds, progress)
    cases |= _measure_encoding(site, files[num_rows], num_rows, progress)
    cases |= _measure_beginnings(site, files[num_rows], num_rows, progress)
    predictions = _list_predictions(site, files)
    cases |= time_in_turn(predictions, shared, settings.num_rounds, progress)
    for count in {SHORT_ROWS, bulk_rows}:
        check_order(_find_out(site, count), count)
    return {**_relate(cases, num_rows, bulk_rows), "rows": about}


def _list_starts(site: Site) -> list[Command]:
    code = "from transformers import AutoModelForSequenceClassification"
    return [
        Command(_BARE, ("-c", ""), "the interpreter alone"),
        Command(_HELP, ("-m", "submillion", "--help"), "a cold process"),
        Command(_IMPORT, ("-c", "import submillion"), "a cold process"),
        Command(_CLASSIFY, ("-m", "submillion", "classify", str(site.run), _TEXT), "a cold process, one text"),
        Command(_PEER_IMPORT, ("-c", code), "a cold process that loads nothing", is_peer=True),
    ]


def _name_check(count: int) -> str:
    return f"submillion check, {count:,} rows"


def _list_checks(files: Mapping[int, Path], num_rows: int) -> list[Command]:
    about = "near duplicates included, nothing kept from before"
    return [
        Command(_name_check(count), ("-m", "submillion", "check", str(files[count]), "--json"), about, count)
        for count in (num_rows, 2 * num_rows)
    ]


def _name_predict(count: int) -> str:
    return f"submillion predict, {count:,} rows"


def _find_out(site: Site, count: int) -> Path:
    return site.scratch / f"predictions-{count}.csv"


def _list_predictions(site: Site, files: Mapping[int, Path]) -> list[Command]:
    def make_arguments(count: int) -> tuple[str, ...]:
        out = str(_find_out(site, count))
        return "-m", "submillion", "predict", str(site.run), str(files[count]), "--out", out

    counts = sorted({SHORT_ROWS, site.settings.bulk_rows})
    about = "from a file of rows to a file of predictions"
    return [Command(_name_predict(count), make_arguments(count), about, count) for count in counts]


def check_order(path: Path, num_rows: int) -> None:
    """Check that predictions have the number and the order of their rows.

    Raises:
        RunError: They do not.
    """
    with path.open(encoding="utf-8", newline="") as file:
        ids = [row[0] for row in csv.reader(file)][1:]
    if ids != [str(number) for number in range(num_rows)]:
        raise RunError(f"the predictions of {num_rows:,} rows are not in their order", where="bench")


def _measure_encoding(site: Site, rows: Path, num_rows: int, progress: Progress) -> dict[str, dict[str, Any]]:
    num_rounds = site.settings.num_rounds
    sizes = {"rows": str(rows), "num_warmup": _WARMUP_ROWS, "num_rounds": num_rounds, "round_rows": num_rows}
    progress.start("data: tokenise", num_rounds)
    with MeasuredProcess("tokenise", site.make_job("encode", {}, **sizes)) as process:
        process.await_ready()
        rounds = []
        for number in range(num_rounds):
            rounds.append(process.make_round())
            progress.advance(number + 1)
        facts = process.finish()
    progress.finish()
    cores = statistics.median(part.figures["cores"] for part in rounds)
    entry = describe_seconds(
        _ENCODE,
        "nothing kept from before; cores is the number of processors kept busy",
        [part.seconds for part in rounds],
        num_rows=num_rows,
        cores=cores,
        peak_rss_bytes=facts["peak_rss_bytes"],
    )
    return {_ENCODE: entry}


def _measure_beginnings(site: Site, rows: Path, num_rows: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """Time a run until its first step, on new data and on the same data again."""
    num_rounds = site.settings.num_rounds
    seconds: dict[str, list[float]] = {"first": [], "again": []}
    progress.start("data: begin to train", 2 * num_rounds)
    for number in range(num_rounds):
        cache = site.scratch / f"cache-{number}"
        kernels = find_cache(site.scratch) / "kernels"
        if kernels.exists():  # built once per machine, not once per data set
            shutil.copytree(kernels, cache / "kernels")
        for place, (name, listed) in enumerate(seconds.items(), start=1):
            with MeasuredProcess(f"begin ({name})", site.make_job("begin", {}, rows=str(rows)), cache) as process:
                listed.append(process.finish()["seconds"])
            progress.advance(2 * number + place)
        shutil.rmtree(cache)
    progress.finish()
    about = "from the end of the imports to the first step: reading, checking, tokenising, loading"
    return {
        f"begin to train, {name}": describe_seconds(f"begin to train, {name}", about, listed, num_rows=num_rows)
        for name, listed in seconds.items()
    }


def _relate(cases: Mapping[str, Mapping[str, Any]], num_rows: int, bulk_rows: int) -> dict[str, Any]:
    """Return the cases with the relevant ratios and differences."""
    ratios = {
        "check: time of twice the rows": _divide(cases, _name_check(2 * num_rows), _name_check(num_rows), "rounds_s"),
    }
    if bulk_rows != SHORT_ROWS:
        ratio = _divide(cases, _name_predict(SHORT_ROWS), _name_predict(bulk_rows), "rounds_s", bulk_rows / SHORT_ROWS)
        ratios[f"predict: rate of {bulk_rows:,} rows to that of {SHORT_ROWS:,}"] = ratio
    memory = cases[_name_predict(bulk_rows)]["peak_rss_bytes"] - cases[_CLASSIFY]["peak_rss_bytes"]
    differences = {
        f"{_IMPORT}, without the interpreter": {"seconds": cases[_IMPORT]["seconds"] - cases[_BARE]["seconds"]},
        f"{_CLASSIFY} - {_PEER_IMPORT}": {"seconds": cases[_CLASSIFY]["seconds"] - cases[_PEER_IMPORT]["seconds"]},
        f"{_name_predict(bulk_rows)} - {_CLASSIFY}": {"bytes": memory},
    }
    return {"cases": list(cases.values()), "ratios": ratios, "differences": differences}


def _divide(
    cases: Mapping[str, Mapping[str, Any]], left: str, right: str, key: str, factor: float = 1.0
) -> dict[str, Any]:
    factors = [factor * a / b for a, b in zip(cases[left][key], cases[right][key], strict=True)]
    spread = [min(factors), max(factors)]
    return {"kind": "data", "case": left, "peer": right, "median": statistics.median(factors), "spread": spread}
