"""The end of a run: what was fitted is saved, proven, scored, compared with the baseline and reported."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from submillion.budget.plan import Plan
from submillion.config.run import RunConfig
from submillion.encoding.text_encoder import Features
from submillion.encoding.tokenizer_files import read_settings, write_tokenizer
from submillion.metrics.baseline import train_baseline
from submillion.metrics.evaluate import fit_temperature
from submillion.model.encoder import Classifier
from submillion.model.merged import MergedClassifier
from submillion.pipeline.begin import Ready
from submillion.pipeline.fit import FitResult
from submillion.pipeline.proof import NUM_PROBES, verify_run
from submillion.pipeline.write_evaluations import (
    choose_train_sample,
    write_baseline_results,
    write_results,
    write_train_sample,
)
from submillion.progress import Progress
from submillion.records import labels_of
from submillion.report import write_card, write_report
from submillion.report.learning import judge_run
from submillion.run.folder import RunDir
from submillion.run.history import read_history
from submillion.run.reader import count_test_evaluation, read_manifest
from submillion.scoring.exports import export_run
from submillion.scoring.load_classifier import explain_stock_scoring, load_merged_scorer
from submillion.scoring.score import SCORE_TOKENS_FACTOR, score
from submillion.storage.json_shapes import JsonObject
from submillion.training.collective import Processes


@dataclass(frozen=True)
class RunSummary:
    """Summary of a finished run.

    Attributes:
        run: Folder of the run.
        plan: Plan of the trained parameters.
        evaluations: Figures by split or watched name.
        baselines: The baseline's figures and the paired comparison, likewise; empty if it was not trained.
        wall_s: Seconds of this process from data to report.
        rows_per_s: Training rows per second; None if this process made no step.
        verdict: Whether it learnt anything and whether the baseline did better, as `report.learning.judge_run` says.
    """

    run: Path
    plan: Plan
    evaluations: dict[str, JsonObject]
    baselines: dict[str, JsonObject]
    wall_s: float
    rows_per_s: float | None
    verdict: JsonObject = field(default_factory=dict)


def conclude_run(
    run: RunDir, ready: Ready, fitted: FitResult, *, processes: Processes, progress: Progress, started: float
) -> RunSummary:
    """Save, prove, score and report what was fitted.

    All processes score, each its share; the first one writes.

    Args:
        run: The run folder.
        ready: The parts that the run began with; the classifier holds the best parameters.
        fitted: How fitting went.
        processes: The processes of the run.
        progress: Receiver of stages.
        started: When the run began, on `time.perf_counter`.

    Raises:
        RunError: The saved files do not give the trained model, or the disk is full.
    """
    save_model(run, ready, processes)
    scoring = _Scoring(_choose_scorer(run, ready), ready, processes, progress)
    proven = prove_model(run, scoring, fitted)
    scored = score_sets(run, scoring, proven)
    found: JsonObject = {}
    with processes.acting_together():
        if processes.is_first:
            found = write_figures(run, scoring, proven, scored)
            manifest = read_manifest(run)
            replace(
                manifest,
                state="complete",
                proof=proven.proof,
                num_steps=fitted.num_steps,
                train_s=fitted.train_s,
                rows_per_s=fitted.rows_per_s or manifest.rows_per_s,
                wall_s=time.perf_counter() - started,
            ).write(run.manifest)
            _hand_out(run, ready.config, progress)
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


@dataclass(frozen=True)
class _Scoring:
    """What scores the records of a run at its end: the same as in every later evaluation.

    Attributes:
        scorer: The model, merged where later evaluations merge it.
        ready: The parts that the run began with.
        processes: The processes of the run; each scores its share.
        progress: Receiver of the stages.
    """

    scorer: Classifier | MergedClassifier
    ready: Ready
    processes: Processes
    progress: Progress

    @property
    def max_tokens(self) -> int:
        """Tokens of one pass."""
        return SCORE_TOKENS_FACTOR * self.ready.config.train.micro_batch_tokens

    def score(self, stage: str, features: Sequence[Features]) -> NDArray[np.float32]:
        """Return the logits of records, shape (n, C)."""
        self.progress.start(stage, len(features))
        logits = score(
            self.scorer,
            features,
            max_tokens=self.max_tokens,
            on_progress=self.progress.advance,
            processes=self.processes,
        )
        self.progress.finish()
        return logits


@dataclass(frozen=True)
class _Proven:
    """A saved model, and what the validation rows say of it.

    Attributes:
        logits: Logits of the validation rows, shape (n, C).
        temperature: Fitted on them.
        proof: Findings of a fresh process in the saved files; empty where it was not asked, and in other processes.
    """

    logits: NDArray[np.float32]
    temperature: float
    proof: JsonObject


@dataclass(frozen=True)
class _Scored:
    """Logits of all that is scored at the end of a run.

    Attributes:
        sets: Logits of the validation, test and watched rows, by name, each of shape (n, C).
        sample: Training rows for the report.
        sample_logits: Logits of these rows, shape (n, C).
    """

    sets: dict[str, NDArray[np.float32]]
    sample: Sequence[Features]
    sample_logits: NDArray[np.float32] | None


def save_model(run: RunDir, ready: Ready, processes: Processes) -> None:
    """Write the adapter, the head and the tokenizer."""
    with processes.acting_together():
        if processes.is_first:
            ready.classifier.save(run.adapter, run.head)
            tokens = ready.prepared.encoder
            write_tokenizer(run.tokenizer, tokens.to_json(), read_settings(tokens.folder))


def prove_model(run: RunDir, scoring: _Scoring, fitted: FitResult) -> _Proven:
    """Score the validation rows, fit the temperature, and compare the saved files with the model in memory.

    Raises:
        RunError: The files do not give the same model.
    """
    ready, processes = scoring.ready, scoring.processes
    validation = ready.prepared.splits.validation
    judged = scoring.score("evaluate validation", ready.features["validation"])
    temperature = fit_temperature(judged, labels_of(validation))
    # What the model in memory says, which the saved one must say too.
    probed = score(ready.classifier, ready.features["validation"][:NUM_PROBES], max_tokens=scoring.max_tokens)
    proof: JsonObject = {}
    with processes.acting_together():
        if processes.is_first:
            replace(read_manifest(run), temperature=temperature, best_step=fitted.best_step).write(run.manifest)
            if ready.config.final.proof:
                scoring.progress.start("verify")
                proof = verify_run(run, validation[:NUM_PROBES], probed)
                scoring.progress.finish()
    return _Proven(judged, temperature, proof)


def score_sets(run: RunDir, scoring: _Scoring, proven: _Proven) -> _Scored:
    """Score the test and watched rows, and for the report a sample of the training rows."""
    ready, processes = scoring.ready, scoring.processes
    logits = {"validation": proven.logits}
    for name in ready.sets:
        if name in logits:
            continue
        with processes.acting_together():
            if name == "test" and processes.is_first:
                count_test_evaluation(run)
        logits[name] = scoring.score(f"evaluate {name}", ready.features[name])
    sample = choose_train_sample(ready.own_rows, seed=ready.config.seed) if ready.config.final.report else []
    known = scoring.score("score training sample", sample) if sample else None
    return _Scored(logits, sample, known)


def write_figures(run: RunDir, scoring: _Scoring, proven: _Proven, scored: _Scored) -> JsonObject:
    """Write the figures and predictions of each set, those of the baseline beside them, and return what was found.

    Returns:
        ``evaluations`` and ``baselines`` by set, and the ``verdict``.
    """
    ready = scoring.ready
    if scored.sample_logits is not None:
        num_train, seed = len(ready.own_rows), ready.config.seed
        write_train_sample(run, scored.sample, scored.sample_logits, num_train=num_train, seed=seed)
    evaluations = {
        name: write_results(
            run,
            name,
            rows,
            scored.sets[name],
            ready.prepared.splits.labels,
            temperature=proven.temperature,
            num_truncated=sum(item.truncated for item in ready.features[name]),
            legibility=ready.prepared.legibility[name],
        )
        for name, rows in ready.sets.items()
    }
    predicted = {name: values.argmax(axis=1) for name, values in scored.sets.items()}
    baselines = _judge_baseline(run, ready, predicted=predicted, progress=scoring.progress)
    return {"evaluations": evaluations, "baselines": baselines, "verdict": judge_run(read_history(run.path))}


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


def _choose_scorer(run: RunDir, ready: Ready) -> Classifier | MergedClassifier:
    """Return what scores this run from now on, so that its figures are those of every later evaluation."""
    if explain_stock_scoring(ready.base, ready.plan, ready.device) != "":
        return ready.classifier
    head = run.head if ready.plan.head == "linear" else None
    return load_merged_scorer(ready.base, ready.plan, ready.config.model, run.adapter, head, precision="bf16")


def _judge_baseline(
    run: RunDir, ready: Ready, *, predicted: dict[str, NDArray[np.int64]], progress: Progress
) -> dict[str, JsonObject]:
    if not ready.config.baseline:
        return {}
    progress.start("baseline")
    train, labels = ready.prepared.splits.train, ready.prepared.splits.labels
    baseline = train_baseline(
        [record.text for record in train],
        labels_of(train),
        seed=ready.config.seed,
        num_labels=len(labels),
        weights=[item.weight for item in ready.train],
    )
    results = {}
    for name, rows in ready.sets.items():
        theirs = baseline.predict([record.text for record in rows])
        results[name] = write_baseline_results(run, name, rows, labels, model=predicted[name], baseline=theirs)
    progress.finish()
    return results
