"""Write the tables of docs/performance.md from the results in benchmarks/results, so that no figure is typed by hand.
`make performance` runs this script, and a test compares the page with its output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

Result = Mapping[str, Any]
MIB = 1 << 20


@dataclass(frozen=True)
class Goal:
    """One row of the table of goals.

    Attributes:
        text: Description of the goal.
        kind: Kind of the result that has the figure.
        base: Base model of that result.
        find: Function that reads the figure, or returns None if the result does not have it.
        limit: Limit for the figure.
        at_least: Whether the figure must be at least the limit, and not at most.
        unit: Unit that is shown after both numbers.
    """

    text: str
    kind: str
    base: str
    find: Callable[[Result], float | None]
    limit: float
    at_least: bool = True
    unit: str = "x"


def find_ratio(name: str, key: str = "median") -> Callable[[Result], float | None]:
    return lambda result: result["ratios"].get(name, {}).get(key)


def find_case(name: str, key: str, *, num_rows: int | None = None) -> Callable[[Result], float | None]:
    """Return a function that finds a figure of a case; with `num_rows`, only if each round had this number of rows."""

    def find(result: Result) -> float | None:
        values = [
            case[key]
            for case in result["cases"]
            if case["name"] == name and key in case and num_rows in {None, case.get("round_rows")}
        ]
        return values[0] if values else None

    return find


def find_difference(start: str, key: str, divisor: float = 1.0) -> Callable[[Result], float | None]:
    def find(result: Result) -> float | None:
        values = [entry[key] for name, entry in result["differences"].items() if name.startswith(start)]
        return values[0] / divisor if values else None

    return find


def find_check_growth(result: Result) -> float | None:
    if find_case("submillion check, 120,000 rows", "seconds")(result) is None:
        return None
    return find_ratio("check: time of twice the rows")(result)


def find_bulk_rate(result: Result) -> float | None:
    values = [
        ratio["median"] for name, ratio in result["ratios"].items() if name.startswith("predict: rate of 1,000,000")
    ]
    return values[0] if values else None


MINILM, ROBERTA = "minilm-l6", "roberta-base-random"
_BEST, _PUBLISHED = "train: submillion / trainer at its best", "train: submillion / trainer as published"
GOALS = (
    Goal("train, MiniLM, against Trainer+PEFT as published (pad 192)", "train", MINILM, find_ratio(_PUBLISHED), 20),
    Goal("train, MiniLM, against Trainer+PEFT at its best", "train", MINILM, find_ratio(_BEST), 3.5),
    Goal("train, roberta-base shape, against Trainer+PEFT at its best", "train", ROBERTA, find_ratio(_BEST), 2.5),
    Goal("train MFU, MiniLM", "train", MINILM, find_case("submillion", "mfu"), 0.75, unit=""),
    Goal("train MFU, roberta-base shape", "train", ROBERTA, find_case("submillion", "mfu"), 0.75, unit=""),
    Goal(
        "score, MiniLM, bf16, against the pipeline", "score", MINILM, find_ratio("score: submillion bf16 / pipeline"), 5
    ),
    Goal(
        "score, MiniLM, int8, against the pipeline", "score", MINILM, find_ratio("score: submillion int8 / pipeline"), 7
    ),
    Goal(
        "score, MiniLM, bf16, against ONNX Runtime fp32",
        *("score", MINILM),
        find_ratio("score: submillion bf16 / ONNX Runtime fp32"),
        2.5,
    ),
    Goal(
        "score, MiniLM, int8, against ONNX Runtime int8",
        *("score", MINILM),
        find_ratio("score: submillion int8 / ONNX Runtime int8"),
        1.25,
    ),
    Goal("score MFU, MiniLM, bf16", "score", MINILM, find_case("submillion bf16", "mfu"), 0.75, unit=""),
    Goal(
        "peak memory, training, MiniLM, against Trainer+PEFT at its best",
        *("train", MINILM),
        find_ratio(_BEST, "memory"),
        1.0,
        at_least=False,
    ),
    Goal(
        "`check`, 120,000 distinct rows",
        *("data", MINILM),
        find_case("submillion check, 120,000 rows", "seconds"),
        25,
        at_least=False,
        unit="s",
    ),
    Goal(
        "`check`, time of twice 120,000 rows",
        *("data", MINILM),
        find_check_growth,
        2.2,
        at_least=False,
    ),
    Goal(
        "tokenising, processors kept busy of 2",
        "data",
        MINILM,
        find_case("tokenise", "cores", num_rows=120_000),
        1.5,
        unit="",
    ),
    Goal(
        "120,000 rows seen before, from the imports to the first step",
        *("data", MINILM),
        find_case("begin to train, again", "seconds", num_rows=120_000),
        3,
        at_least=False,
        unit="s",
    ),
    Goal(
        "`classify`, cold, above the import of `AutoModelForSequenceClassification`",
        *("data", MINILM),
        find_difference("submillion classify RUN TEXT - import", "seconds"),
        1.5,
        at_least=False,
        unit="s",
    ),
    Goal("`--help`", "data", MINILM, find_case("submillion --help", "seconds"), 0.3, at_least=False, unit="s"),
    Goal(
        "`import submillion`",
        *("data", MINILM),
        find_difference("import submillion, without", "seconds"),
        0.1,
        at_least=False,
        unit="s",
    ),
    Goal(
        "`predict`, 1,000,000 rows, memory above the model",
        *("data", MINILM),
        find_difference("submillion predict, 1,000,000 rows -", "bytes", 1e9),
        1.2,
        at_least=False,
        unit="GB",
    ),
    Goal("`predict`, rate of 1,000,000 rows to that of 10,000", "data", MINILM, find_bulk_rate, 1.0),
)


def load_results() -> dict[str, Result]:
    """Return the results of `python -m benchmarks` by file name, in order, without those of other scripts."""
    paths = sorted((FOLDER / "results").glob("*.json"))
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    return {name: result for name, result in results.items() if "cases" in result}


def build_figures(results: Mapping[str, Result]) -> str:
    """Return the generated part of the page."""
    parts = ["## Goals\n", *_show_goals(results), "\n## Measured\n"]
    for name, result in results.items():
        parts += _show_result(name, result)
    return "\n".join(parts).rstrip() + "\n"


def build_page(text: str) -> str:
    """Return the page with its generated part made again."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{build_figures(load_results())}\n{END}{after}"


def _show_goals(results: Mapping[str, Result]) -> Iterator[str]:
    yield "| case | goal | measured | |"
    yield "|---|---|---|---|"
    for goal in GOALS:
        figure = _find_figure(goal, list(results.values()))
        sign = "at least" if goal.at_least else "at most"
        wanted = f"{sign} {goal.limit:g} {goal.unit}".rstrip()
        if figure is None:
            yield f"| {goal.text} | {wanted} | not measured | |"
            continue
        is_reached = figure >= goal.limit if goal.at_least else figure <= goal.limit
        yield (
            f"| {goal.text} | {wanted} | {figure:.3g} {goal.unit}".rstrip()
            + f" | {'reached' if is_reached else 'missed'} |"
        )


def _find_figure(goal: Goal, results: Sequence[Result]) -> float | None:
    """Return the figure of the newest result on a CPU, with the base model's dropout, that has it."""
    fitting = [
        result
        for result in results
        if result["base"] == goal.base and goal.kind in result["rows"] and result["settings"]["dropout"] is None
    ]
    on_cpu = [result for result in fitting if result["machine"]["device"] == "cpu"]
    figures = (goal.find(result) for result in sorted(on_cpu, key=lambda result: result["created"], reverse=True))
    return next((figure for figure in figures if figure is not None), None)


def _show_result(name: str, result: Result) -> Iterator[str]:
    machine, settings = result["machine"], result["settings"]
    dropout = "the base model's own dropout" if settings["dropout"] is None else f"dropout {settings['dropout']:g}"
    place = machine.get("gpu") or f"{machine['processor']} ({', '.join(machine['instructions'])})"
    yield f"### {name}\n"
    yield f"{result['base']}, {dropout}, steps of {settings['batch_size']}, {settings['num_rounds']} rounds,"
    yield f"on {place}, {machine['threads']} threads, {result['created'][:10]}."
    yield ", ".join(f"{package} {version}" for package, version in result["versions"].items()) + ".\n"
    for kind, about in result["rows"].items():
        yield f"{kind.capitalize()}: {about}.\n"
        cases = [case for case in result["cases"] if case["kind"] == kind]
        yield from _show_seconds(cases) if kind == "data" else _show_rates(cases)
        peaks = [
            f"{peak['gflops']:,.0f} GFLOP/s in {precision} ({peak['method']})"
            for precision, peak in result["peak_gflops"].get(kind, {}).items()
        ]
        yield f"\nPeak: {', '.join(peaks)}.\n" if peaks else ""
    yield from _show_ratios(result)
    for text, entry in result["differences"].items():
        yield f"- {text}: " + (
            f"{entry['seconds']:+.2f} s" if "seconds" in entry else f"{entry['bytes'] / MIB:+,.0f} MiB"
        )
    yield ""


def _show_rates(cases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| case | set up as | precision | rows/s | spread | MFU | memory | same labels |"
    yield "|---|---|---|---|---|---|---|---|"
    for case in cases:
        start = f"| {case['name']} | {case['about']} | {case['precision']} |"
        if "error" in case:
            yield f"{start} failed: {case['error']} | | | | |"
            continue
        low, high = case["spread"]
        memory = case.get("peak_device_bytes", case["peak_rss_bytes"]) / MIB
        mfu = f"{case['mfu']:.1%}" if "mfu" in case else ""
        same = f"{case['agreement']:.2%}" if "agreement" in case else ""
        yield f"{start} {case['rows_per_s']:,.1f} | {low:,.1f} .. {high:,.1f} | {mfu} | {memory:,.0f} MiB | {same} |"


def _show_seconds(cases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| case | | seconds | spread | rows/s | memory | cores |"
    yield "|---|---|---|---|---|---|---|"
    for case in cases:
        low, high = case["spread_s"]
        rate = f"{case['rows_per_s']:,.0f}" if "rows_per_s" in case else ""
        memory = f"{case['peak_rss_bytes'] / MIB:,.0f} MiB" if "peak_rss_bytes" in case else ""
        cores = f"{case['cores']:.1f}" if "cores" in case else ""
        start = f"| {case['name']} | {case['about']} | {case['seconds']:.2f} | {low:.2f} .. {high:.2f}"
        yield f"{start} | {rate} | {memory} | {cores} |"


def _show_ratios(result: Result) -> Iterator[str]:
    if not result["ratios"]:
        return
    yield "| ratio, at the peer's fastest set-up | times | spread | memory |"
    yield "|---|---|---|---|"
    for name, ratio in result["ratios"].items():
        low, high = ratio["spread"]
        memory = f"{ratio['memory']:.2f}" if "memory" in ratio else ""
        yield f"| {name} | {ratio['median']:.2f} | {low:.2f} .. {high:.2f} | {memory} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(build_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
