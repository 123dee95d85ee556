"""This package's cases, through its public calls."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.clock import Clock
from benchmarks.flops import Lengths
from benchmarks.measured_child import Gate, Job, Round
from benchmarks.memory import read_peak_memory
from benchmarks.prepare_peers import ADAPTER
from benchmarks.profile import profile_products
from benchmarks.row_source import Row, load_rows
from submillion.budget.plan import Plan
from submillion.config.run import RunConfig, parse_config
from submillion.encoding.text_encoder import Features
from submillion.progress import Silent
from submillion.records import Record

_PROFILED_STEPS = 6
_PROFILED_ROWS = 512


def make_config(job: Job) -> RunConfig:
    """Return the configuration of the training case."""
    return parse_config(
        {
            "model": {
                "base": job.base,
                "head": "native",
                "max_length": job.max_length,
                "precision": job.options["precision"],
                "dropout": job.dropout,
            },
            "adapter": {**ADAPTER, "dropout": job.dropout or 0.0},
            "train": {"batch_size": job.batch_size, "epochs": 1},
        },
        where="bench",
    )


def train(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Train in whole steps on shuffled rows that are tokenised beforehand."""
    from submillion.budget.plan import make_plan
    from submillion.encoding.text_encoder import TextEncoder
    from submillion.model.encoder import build_classifier
    from submillion.model.sources import find_base, load_base_config
    from submillion.training.device import open_device
    from submillion.training.loop import train_steps
    from submillion.training.optim import build_optimizer
    from submillion.training.step import StepResult

    config = make_config(job)
    device = open_device(config.model.precision, job.threads)
    base = find_base(job.base)
    plan = make_plan(
        load_base_config(job.base),
        base=base.name,
        num_labels=job.num_labels,
        model=config.model,
        adapter=config.adapter,
        budget=config.budget,
    )
    classifier = build_classifier(
        base, plan, config.model, adapter_dropout=config.adapter.dropout, dtype=device.dtype, seed=0
    )
    classifier.to(device.device)
    features = TextEncoder(base.folder, job.max_length).encode(_as_records(load_rows(Path(job.rows))))
    warmup, measured = features[: job.num_warmup], features[job.num_warmup :]

    def start(items: Sequence[Features]) -> Iterator[StepResult]:
        optimizer = build_optimizer(classifier.trainable_parameters(), config.train)
        return train_steps(classifier, items, optimizer, config.train, seed=0)

    for _ in start(warmup):
        pass
    gate.say_ready()
    clock, steps = Clock(job.device), start(measured)
    per_round = job.round_rows // job.batch_size
    for number in range(job.num_rounds):
        gate.wait()
        clock.start()
        done = list(islice(steps, per_round))
        seconds = clock.stop()
        rows = _rows_of_steps(measured, job.batch_size, number * per_round, per_round)
        assert sum(step.num_tokens for step in done) == rows.num_tokens
        gate.report(Round(seconds, sum(step.num_records for step in done), rows))
    memory = read_peak_memory(job.device)
    profiled = warmup[: _PROFILED_STEPS * job.batch_size]
    rates = profile_products(lambda: list(start(profiled)), job.device)
    return {**memory, "precision": device.precision, "product_gflops": rates}


def _rows_of_steps(features: Sequence[Features], batch_size: int, first: int, count: int) -> Lengths:
    from submillion.training.feed import order_epoch

    order = order_epoch(len(features), seed=0, epoch=0)
    return Lengths.of(len(features[row]) for row in order[first * batch_size : (first + count) * batch_size])


def score(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Score raw texts with a trained run: cleaning, tokenising and the model."""
    from submillion.scoring.run_model import load_run

    model = load_run(Path(job.folder) / "run", threads=job.threads, precision=job.options["precision"])
    records = _as_records(load_rows(Path(job.rows)))
    warmup, measured = records[: job.num_warmup], records[job.num_warmup :]
    model.score_records(warmup)
    gate.say_ready()
    clock = Clock(job.device)
    for number in range(job.num_rounds):
        part = measured[number * job.round_rows : (number + 1) * job.round_rows]
        gate.wait()
        clock.start()
        logits = model.score_records(part).logits
        seconds = clock.stop()
        lengths = Lengths.of(len(item) for item in model.encoder.encode(part))
        gate.report(Round(seconds, len(part), lengths, logits.argmax(axis=1).tolist()))
    memory = read_peak_memory(job.device)
    rates = profile_products(lambda: model.score_records(warmup[:_PROFILED_ROWS]), job.device)
    return {**memory, "product_gflops": rates}


def encode(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Tokenise all rows again in every round; one figure of a round is ``cores``, the number of busy processors."""
    from submillion.encoding.text_encoder import TextEncoder
    from submillion.model.sources import find_base

    encoder = TextEncoder(find_base(job.base).folder, job.max_length)
    texts = [row.text for row in load_rows(Path(job.rows))][: job.round_rows]
    encoder.tokenise(texts[: job.num_warmup])
    gate.say_ready()
    clock = Clock("cpu")
    for _ in range(job.num_rounds):
        gate.wait()
        clock.start()
        worked = time.process_time()
        encoder.tokenise(texts)
        worked = time.process_time() - worked
        seconds = clock.stop()
        gate.report(Round(seconds, len(texts), figures={"cores": worked / seconds}))
    return {}


class _Begun(Exception):
    """Training is about to begin."""


class _UntilTraining(Silent):
    """Progress that ends a run before its first step."""

    def on_plan(self, plan: Plan) -> None:
        """Raise, since the plan is reported when everything is ready."""
        raise _Begun


def begin(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Return the ``seconds`` from the end of the imports to the first step of a run on a file of rows."""
    from submillion.api import train as train_run

    for module in ("submillion.pipeline.run", "submillion.model.encoder"):  # imports that the run would make later
        import_module(module)
    started = time.perf_counter()
    with suppress(_Begun):
        train_run(
            {
                "name": "bench",
                "data": {"source": job.rows},
                "model": {"base": job.base, "head": "native", "max_length": job.max_length},
                "adapter": dict(ADAPTER),
                "train": {"batch_size": job.batch_size},
                "threads": job.threads,
            },
            out=Path(tempfile.mkdtemp(dir=job.folder)),
            progress=_UntilTraining(),
        )
        raise AssertionError("the run ended without a step")
    return {"seconds": time.perf_counter() - started}


def _as_records(rows: Sequence[Row]) -> list[Record]:
    return [Record(str(number), (row.text,), row.label) for number, row in enumerate(rows)]
