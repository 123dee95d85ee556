"""The command `python -m benchmarks`: this package and its peers, measured side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from submillion.cli import options
from submillion.cli.console import make_text, print_json, print_note, print_result

if TYPE_CHECKING:
    from rich.table import Table

_MIB = 1 << 20


def bench(
    kind: Annotated[
        Literal["train", "score", "data"] | None,
        typer.Argument(metavar="[train|score|data]", help="Kind to measure; by default all three.", show_default=False),
    ] = None,
    *,
    base: Annotated[
        str, typer.Option("--base", metavar="MODEL", help="minilm-l6, roberta-base-random, or any base model.")
    ] = "minilm-l6",
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATA", help="Rows to measure on; by default the shipped items.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", metavar="N", min=1, help="Rows of all rounds together.", show_default=False)
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", help="Rounds of each case, in turn.")] = 4,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure other libraries too (benchmarks/requirements.txt).")
    ] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=4, help="Records of a training step.")
    ] = 32,
    dropout: Annotated[
        float | None,
        typer.Option(
            "--dropout", metavar="P", min=0.0, max=0.9, help="Dropout of encoder and adapters; by default the base's."
        ),
    ] = None,
    bulk_rows: Annotated[
        int, typer.Option("--bulk-rows", metavar="N", min=1, help="Rows of the long prediction (data).")
    ] = 50_000,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="CPU threads; by default all allowed ones.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write the JSON result to a file.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure speed, memory and the share of the machine's peak, with each case in its own process, in turn."""
    from benchmarks.machine import BenchSettings
    from benchmarks.run import run_bench
    from submillion.cli.progress_bars import open_progress
    from submillion.errors import ConfigError
    from submillion.storage.files import write_json

    if out is not None and not out.parent.is_dir():
        raise ConfigError("there is no such folder", where=f"--out {out}", hint=f"Make it first: mkdir -p {out.parent}")
    result = run_bench(
        BenchSettings(
            kinds=("train", "score", "data") if kind is None else (kind,),
            base=base,
            data=data,
            num_rows=rows,
            num_rounds=rounds,
            peers=peers,
            threads=threads,
            batch_size=batch_size,
            dropout=dropout,
            bulk_rows=bulk_rows,
        ),
        open_progress(),
    )
    if out is not None:
        write_json(out, result)
    if as_json:
        print_json(result)
        return
    for block in tabulate_bench(result):
        print_result(block)
    if not peers:
        print_note("--peers measures other libraries on the same rows, for ratios.")


def tabulate_bench(result: Mapping[str, Any]) -> Iterator[Table | str]:
    """Yield a result as text and tables: the machine, one table per kind of case, ratios and differences."""
    yield _describe_machine(result)
    for kind, about in result["rows"].items():
        cases = [case for case in result["cases"] if case["kind"] == kind]
        yield ""
        yield f"{kind}, {result['base']}: {about}"
        yield _tabulate_seconds(cases) if kind == "data" else _tabulate_rates(cases)
        for precision, peak in result["peak_gflops"].get(kind, {}).items():
            yield f"  peak {precision}: {peak['gflops']:,.0f} GFLOP/s ({peak['method']})"
    if result["ratios"]:
        yield ""
        yield _tabulate_ratios(result["ratios"])
    for name, difference in result["differences"].items():
        value = f"{difference['seconds']:+.2f} s" if "seconds" in difference else _show_bytes(difference["bytes"])
        yield f"{name}: {value}"


def _describe_machine(result: Mapping[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    parts = [
        machine.get("gpu") or machine["processor"],
        f"{machine['threads']} threads",
        *([" ".join(machine["instructions"])] if machine["instructions"] else []),
        *([f"kernels {machine['kernels']}"] if "kernels" in machine else []),
        *(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft", "onnxruntime") if name in versions),
    ]
    return ", ".join(parts)


def _tabulate_rates(cases: Sequence[Mapping[str, Any]]) -> Table:
    from submillion.cli.tables import make_table

    table = make_table("case", "precision", "rows/s", "spread", "GFLOP/s", "MFU", "memory", "same labels")
    for case in cases:
        if "error" in case:
            table.add_row(make_text(f"{case['name']}: failed, {case['error']}"), case["precision"])
            continue
        low, high = case["spread"]
        table.add_row(
            make_text(case["name"], "" if case["is_peer"] else "bold"),
            case["precision"],
            f"{case['rows_per_s']:,.1f}",
            f"{low:,.1f} .. {high:,.1f}",
            f"{case['gflops']:,.0f}",
            f"{case['mfu']:.1%}" if "mfu" in case else "-",
            _show_bytes(case.get("peak_device_bytes", case["peak_rss_bytes"])),
            f"{case['agreement']:.2%}" if "agreement" in case else "-",
        )
    return table


def _tabulate_seconds(cases: Sequence[Mapping[str, Any]]) -> Table:
    from submillion.cli.tables import make_table

    table = make_table("case", "seconds", "spread", "rows/s", "memory", "cores")
    for case in cases:
        low, high = case["spread_s"]
        table.add_row(
            make_text(case["name"], "" if case["is_peer"] else "bold"),
            f"{case['seconds']:.2f}",
            f"{low:.2f} .. {high:.2f}",
            f"{case['rows_per_s']:,.0f}" if "rows_per_s" in case else "-",
            _show_bytes(case["peak_rss_bytes"]) if "peak_rss_bytes" in case else "-",
            f"{case['cores']:.1f}" if "cores" in case else "-",
        )
    return table


def _tabulate_ratios(ratios: Mapping[str, Mapping[str, Any]]) -> Table:
    from submillion.cli.tables import make_table

    table = make_table("ratio, at the peer's fastest set-up", "times", "spread", "memory")
    for name, ratio in ratios.items():
        low, high = ratio["spread"]
        memory = f"{ratio['memory']:.2f}" if "memory" in ratio else "-"
        table.add_row(make_text(name), f"{ratio['median']:.2f}", f"{low:.2f} .. {high:.2f}", memory)
    return table


def _show_bytes(count: float) -> str:
    return f"{count / _MIB:,.0f} MiB"
