"""The end of a run: what was fitted is saved, proven, scored, compared with the baseline and reported."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion.budget.plan import Plan
from submillion.config.run import RunConfig
from submillion.encoding.text_encoder import Features, TextEncoder
from submillion.encoding.tokenizer_files import read_settings, write_tokenizer
from submillion.metrics.baseline import train_baseline
from submillion.metrics.evaluate import fit_temperature
from submillion.model.encoder import Classifier
from submillion.model.merged import MergedClassifier
from submillion.model.sources import BaseModel
from submillion.pipeline.fit import FitResult
from submillion.pipeline.prepare import Prepared
from submillion.pipeline.proof import NUM_PROBES, verify_run
from submillion.pipeline.write_evaluations import (
    choose_train_sample,
    write_baseline_results,
    write_results,
    write_train_sample,
)
from submillion.progress import Progress
from submillion.records import Record, labels_of
from submillion.report import write_card, write_report
from submillion.report.learning import judge_run
from submillion.run.checked_files import read_manifest
from submillion.run.folder import RunDir
from submillion.run.history import load_run
from submillion.run.manifest import count_test_evaluation, update_manifest
from submillion.scoring.exports import export_run
from submillion.scoring.load_classifier import explain_stock_scoring, load_merged_scorer
from submillion.scoring.score import SCORE_TOKENS_FACTOR, score
from submillion.training.collective import Processes
from submillion.training.device import Device


@dataclass(frozen=True)
class RunSummary:
    """What a finished run came to.

    Attributes:
        run: Its folder.
        plan: Its plan.
        evaluations: Figures by split or watched name.
        baselines: The baseline's figures and the paired comparison, likewise; empty if it was not trained.
        wall_s: Seconds of this process from data to report.
        rows_per_s: Training rows per second; None if this process made no step.
        verdict: Whether it learnt anything and whether the baseline did better, as `report.learning.judge_run` says.
    """

    run: Path
    plan: Plan
    evaluations: dict[str, dict[str, Any]]
    baselines: dict[str, dict[str, Any]]
    wall_s: float
    rows_per_s: float | None
    verdict: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """All that a run has made before its first step, and needs at its end."""

    config: RunConfig
    device: Device
    base: BaseModel
    prepared: Prepared
    plan: Plan
    sets: dict[str, Sequence[Record]]
    train: list[Features]
    features: dict[str, list[Features]]
    classifier: Classifier


def conclude_run(
    run: RunDir,
    config: RunConfig,
    ready: Ready,
    fitted: FitResult,
    *,
    processes: Processes,
    progress: Progress,
    started: float,
) -> RunSummary:
    """Save, prove, score and report what was fitted.

    All processes score, each its share; the first one writes.

    Args:
        run: The run folder.
        config: The run's configuration.
        ready: What the run began with; the classifier holds the best parameters.
        fitted: How fitting went.
        processes: The processes of the run.
        progress: Told of stages.
        started: When the run began, on `time.perf_counter`.

    Raises:
        RunError: The saved files do not give the trained model, or the disk is full.
    """
    validation = ready.prepared.splits.validation
    max_tokens = SCORE_TOKENS_FACTOR * config.train.micro_batch_tokens
    with processes.acting_together():
        if processes.is_first:
            ready.classifier.save(run.adapter, run.head)
            _save_tokenizer(ready.prepared.encoder, run)
    scorer = _choose_scorer(run, config, ready)
    progress.start("evaluate validation", len(validation))
    judged = score(
        scorer,
        ready.features["validation"],
        max_tokens=max_tokens,
        on_progress=progress.advance,
        processes=processes,
    )
    progress.finish()
    temperature = fit_temperature(judged, labels_of(validation))
    # What the model in memory says, which the saved one must say too.
    probed = score(ready.classifier, ready.features["validation"][:NUM_PROBES], max_tokens=max_tokens)
    proof: dict[str, Any] = {}
    with processes.acting_together():
        if processes.is_first:
            update_manifest(run, {"temperature": temperature, "best_step": fitted.best_step})
            if config.final.proof:
                progress.start("verify")
                proof = verify_run(run, validation[:NUM_PROBES], probed)
                progress.finish()

    logits = {"validation": judged}
    for name, rows in ready.sets.items():
        if name in logits:
            continue
        with processes.acting_together():
            if name == "test" and processes.is_first:
                count_test_evaluation(run)
        progress.start(f"evaluate {name}", len(rows))
        logits[name] = score(
            scorer,
            ready.features[name],
            max_tokens=max_tokens,
            on_progress=progress.advance,
            processes=processes,
        )
        progress.finish()

    own_rows = ready.train[: ready.prepared.report["num_train"]]  # synthetic rows stand behind them
    # It is for the report alone.
    sample = choose_train_sample(own_rows, seed=config.seed) if config.final.report else []
    if sample:
        progress.start("score training sample", len(sample))
        known = score(scorer, sample, max_tokens=max_tokens, on_progress=progress.advance, processes=processes)
        progress.finish()

    found: dict[str, Any] = {}
    with processes.acting_together():
        if processes.is_first:
            if sample:
                write_train_sample(run, sample, known, num_train=len(own_rows), seed=config.seed)
            evaluations = {}
            for name, rows in ready.sets.items():
                evaluations[name] = write_results(
                    run,
                    name,
                    rows,
                    logits[name],
                    ready.prepared.splits.labels,
                    temperature=temperature,
                    num_truncated=sum(item.truncated for item in ready.features[name]),
                    legibility=ready.prepared.legibility[name],
                )
            predicted = {name: values.argmax(axis=1) for name, values in logits.items()}
            baselines = _judge_baseline(run, config, ready, predicted=predicted, progress=progress)
            found = {"evaluations": evaluations, "baselines": baselines, "verdict": judge_run(load_run(run.path))}
            entries = {
                "state": "complete",
                "proof": proof,
                "num_steps": fitted.num_steps,
                "train_s": fitted.train_s,
                "rows_per_s": fitted.rows_per_s or read_manifest(run).get("rows_per_s"),
                "wall_s": time.perf_counter() - started,
            }
            update_manifest(run, entries)
            _hand_out(run, config, progress)
    found = processes.share(found)
    return RunSummary(
        run=run.path,
        plan=ready.plan,
        evaluations=found["evaluations"],
        baselines=found["baselines"],
        wall_s=time.perf_counter() - started,
        rows_per_s=fitted.rows_per_s,
        verdict=found["verdict"],
    )


def _hand_out(run: RunDir, config: RunConfig, progress: Progress) -> None:
    if config.final.report:
        progress.start("report")
        write_card(run.path)
        write_report([run.path])
        progress.finish()
    # Last: what cannot be exported is a complete run all the same.
    for format in config.export:
        exported = export_run(run.path, format=format, replaces=True, progress=progress)
        progress.note(f"exported as {format}: {exported.folder}")


def _choose_scorer(run: RunDir, config: RunConfig, ready: Ready) -> Classifier | MergedClassifier:
    """Return what scores this run from now on, so that its figures are those of every later evaluation."""
    if explain_stock_scoring(ready.base, ready.plan, ready.device) != "":
        return ready.classifier
    head = run.head if ready.plan.head == "linear" else None
    return load_merged_scorer(ready.base, ready.plan, config.model, run.adapter, head, precision="bf16")


def _save_tokenizer(tokens: TextEncoder, run: RunDir) -> None:
    write_tokenizer(run.tokenizer, tokens.to_json(), read_settings(tokens.folder))


def _judge_baseline(
    run: RunDir,
    config: RunConfig,
    ready: Ready,
    *,
    predicted: dict[str, NDArray[np.int64]],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    if not config.baseline:
        return {}
    progress.start("baseline")
    train, labels = ready.prepared.splits.train, ready.prepared.splits.labels
    baseline = train_baseline(
        [record.text for record in train],
        labels_of(train),
        seed=config.seed,
        num_labels=len(labels),
        weights=[item.weight for item in ready.train],
    )
    results = {}
    for name, rows in ready.sets.items():
        theirs = baseline.predict([record.text for record in rows])
        results[name] = write_baseline_results(run, name, rows, labels, model=predicted[name], baseline=theirs)
    progress.finish()
    return results
