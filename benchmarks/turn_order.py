"""Measurement of training and scoring: all processes warm up, then each makes a round in turn, A B A B."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.cases import Case, Kind, list_cases
from benchmarks.child import MeasuredProcess
from benchmarks.flops import EncoderFlops, open_flops
from benchmarks.machine import NUM_RUN_LABELS, Site
from benchmarks.measured_child import Round
from benchmarks.prepare_peers import ADAPTER
from benchmarks.row_source import take_rows, write_rows
from benchmarks.table import Measured, find_peaks, sum_up
from submillion.budget.count import list_linears
from submillion.errors import ConfigError, SubmillionError
from submillion.progress import Progress

NUM_ROWS: dict[str, int] = {"train": 3200, "score": 4096}
"""Default number of rows in all rounds together."""


_MIN_STEPS = 2
"""Number of steps in a round of a case that does only a share of it."""


@dataclass
class _Entrant:
    """A case with its process."""

    case: Case
    process: MeasuredProcess
    rounds: list[Round] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def open_counter(site: Site) -> EncoderFlops:
    """Return the counter of operations of the base model with the adapter of every case.

    Raises:
        ModelError: The operations of the family are not counted.
    """
    linears = list_linears(site.config)
    targets, rank = ADAPTER["targets"], int(ADAPTER["rank"])
    ranks = {(linear.layer, linear.kind): rank for linear in linears if linear.kind in targets}
    return open_flops(str(site.config.get("model_type")), linears, ranks)


def list_site_cases(site: Site, kind: Kind) -> list[Case]:
    """Return the cases of a kind that the settings ask for."""
    settings = site.settings
    return list_cases(
        kind, device=site.device, base=settings.base, peers=settings.peers, batch_size=settings.batch_size
    )


def measure_turns(site: Site, kind: Kind, progress: Progress) -> dict[str, Any]:
    """Measure training or scoring.

    Returns:
        ``cases``, ``ratios``, ``peak_gflops`` by precision and ``rows`` (a sentence), as JSON types.

    Raises:
        ConfigError: There are too few rows.
        SubmillionError: A case of this package has failed.
    """
    settings = site.settings
    cases = list_site_cases(site, kind)
    counter = open_counter(site)
    progress.start(f"{kind}: prepare")
    site.prepare(run=kind == "score", peers=kind == "score" and settings.peers)
    round_rows = _count_round_rows(site, kind)
    rows, about = take_rows(site.source, round_rows * (settings.num_rounds + 1))
    path = site.scratch / f"{kind}.jsonl"
    write_rows(rows, path)
    progress.finish()

    def open_process(name: str, runner: str, options: Any, share: float = 1.0) -> MeasuredProcess:
        num_steps = max(_MIN_STEPS, int(round_rows * share) // settings.batch_size)
        own_rows = min(round_rows, num_steps * settings.batch_size) if share < 1 else round_rows
        job = site.make_job(
            runner,
            options,
            rows=str(path),
            num_rounds=settings.num_rounds,
            num_labels=NUM_RUN_LABELS if kind == "score" else max(site.source.num_labels, 2),
            num_warmup=own_rows,
            round_rows=own_rows,
        )
        return MeasuredProcess(name, job)

    with ExitStack() as stack:
        precisions = sorted({case.precision for case in cases})
        peak = stack.enter_context(open_process("peak", "peak", {"precisions": precisions}))
        peak.await_ready()
        entrants = []
        progress.start(f"{kind}: warm up", len(cases))
        for number, case in enumerate(cases, start=1):
            process = stack.enter_context(open_process(case.name, case.runner, case.options, case.share))
            entrants.append(_Entrant(case, process))
            _try(entrants[-1], "warm up")
            progress.advance(number)
        progress.finish()
        for number in range(settings.num_rounds):
            progress.start(f"{kind}: round {number + 1} of {settings.num_rounds}", len(cases))
            peak.make_round()
            for done, entrant in enumerate(entrants, start=1):
                _try(entrant, "round")
                progress.advance(done)
            progress.finish()
        facts = peak.finish()
        for entrant in entrants:
            _try(entrant, "finish")
    measured = [Measured(e.case, e.rounds, e.facts, e.error) for e in entrants]
    peaks = find_peaks(facts, measured)
    count = counter.count_training if kind == "train" else counter.count_forward
    return {**sum_up(measured, peaks, count), "peak_gflops": peaks, "rows": about}


def _count_round_rows(site: Site, kind: Kind) -> int:
    settings = site.settings
    rows = (settings.num_rows or NUM_ROWS[kind]) // settings.num_rounds
    if kind == "train":
        rows = rows // settings.batch_size * settings.batch_size
    if rows < 1:
        raise ConfigError(
            f"{settings.num_rows} rows are too few for {settings.num_rounds} rounds",
            where="--rows",
            hint=f"Give {settings.num_rounds * settings.batch_size} or more.",
        )
    return rows


def _try(entrant: _Entrant, what: str) -> None:
    """Do one thing. A peer that fails is left out from then on; a failing case of this package ends the bench."""
    if entrant.error:
        return
    try:
        if what == "warm up":
            entrant.process.await_ready()
        elif what == "round":
            entrant.rounds.append(entrant.process.make_round())
        else:
            entrant.facts = entrant.process.finish()
    except SubmillionError as error:
        if not entrant.case.is_peer:
            raise
        entrant.error = f"{error.message}"
