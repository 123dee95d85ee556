"""A run from its configuration to its report, in straight lines."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion.baseline import train_baseline
from submillion.budget.plan import Plan, make_plan
from submillion.config import RunConfig, dump_config
from submillion.errors import BudgetError, ConfigError, DataError, ModelError, RunError
from submillion.evaluate import fit_temperature
from submillion.fit import FitResult, Fitting
from submillion.manifest import (
    check_unchanged,
    count_test_evaluation,
    read_manifest,
    update_manifest,
    write_first_manifest,
)
from submillion.model.encoder import Classifier, build_classifier, check_length
from submillion.model.sources import BaseModel, find_base, load_base_config
from submillion.prepare import Prepared, prepare_data
from submillion.progress import Progress, Silent
from submillion.records import Record
from submillion.report import write_card, write_report
from submillion.results import labels_of, write_baseline_results, write_results
from submillion.run_model import read_config
from submillion.rundir import RunDir, read_json, remove_leftovers, write_json, write_text
from submillion.score import SCORE_TOKENS_FACTOR, score
from submillion.text_encoder import Features, TextEncoder
from submillion.train.device import Device, open_device
from submillion.train.processes import Processes, open_processes
from submillion.verify import NUM_PROBES, verify_run


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
    """

    run: Path
    plan: Plan
    evaluations: dict[str, dict[str, Any]]
    baselines: dict[str, dict[str, Any]]
    wall_s: float
    rows_per_s: float | None


def start_run(config: RunConfig, out: Path | None = None, *, progress: Progress | None = None) -> RunSummary:
    """Carry out a run in a new folder.

    Args:
        config: The complete configuration.
        out: The run folder, empty or absent; ``runs/<name>-<time>`` if None.
        progress: Told of stages, steps and notes.

    Raises:
        SubmillionError: Of the fitting kind; what was written so far stays resumable.
    """
    processes = open_processes()
    run = RunDir(out if out is not None else choose_folder(config))
    is_new = not run.path.exists()
    with processes.acting_together():
        if processes.is_first:
            _begin(run, config)
    with processes.acting_together():
        _require_sight(run, processes)
    try:
        return _carry_out(run, config, processes, progress or Silent())
    except (ConfigError, DataError, BudgetError, ModelError):
        # Nothing to resume: with these settings and this data the run can never begin.
        if processes.is_first and not run.checkpoints.exists():
            _remove_files(run, and_folder=is_new)
        raise


def choose_folder(config: RunConfig) -> Path:
    """Return ``runs/<name>-<time>``, the same in all processes of a run."""
    name = f"{config.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    return Path("runs") / str(open_processes().share(name))


def _begin(run: RunDir, config: RunConfig) -> None:
    if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise ConfigError(
            "exists and is not an empty folder",
            where=str(run.path),
            hint=f"Choose another folder, or continue that run: submillion train --resume {run.path}",
        )
    write_text(run.config, dump_config(config))


def _require_sight(run: RunDir, processes: Processes) -> None:
    if not run.config.exists():
        raise RunError(
            f"process {processes.rank} of {processes.count} does not see what the first one has written here",
            where=str(run.path.absolute()),
            hint="With several machines, give a folder that all of them share: --out DIR",
        )


def _remove_files(run: RunDir, *, and_folder: bool) -> None:
    for path in (run.config, run.manifest, run.data, run.plan, run.log, run.lock):
        path.unlink(missing_ok=True)
    if and_folder:
        run.path.rmdir()


def resume_run(folder: Path, *, progress: Progress | None = None) -> RunSummary:
    """Continue a run from its last checkpoint, or from the start where it has none, to the same end.

    Raises:
        RunError: No run folder, or weights, threads, precision or data other than it began with.
    """
    processes = open_processes()
    run = RunDir(folder)
    with processes.acting_together():
        if not run.config.exists():
            raise RunError(
                "is no run folder: config.yaml is missing",
                where=str(folder),
                hint="Give the folder of a run that was started before.",
            )
        config = read_config(run)
    return _carry_out(run, config, processes, progress or Silent())


@dataclass(frozen=True)
class _Ready:
    """All that is needed before the first step."""

    tokens: TextEncoder
    prepared: Prepared
    plan: Plan
    sets: dict[str, Sequence[Record]]
    train: list[Features]
    features: dict[str, list[Features]]
    classifier: Classifier


def _carry_out(run: RunDir, config: RunConfig, processes: Processes, progress: Progress) -> RunSummary:
    started = time.perf_counter()
    if not processes.is_first:
        progress = Silent()
    with processes.acting_together():
        device, base, base_config = _open_base(run, config, processes, progress)
    with _only_writer(run, processes):
        with processes.acting_together():
            ready = _make_ready(run, config, device, base, base_config, processes=processes, progress=progress)
        processes.require_same(
            {
                "base model": base.weights_sha256,
                "precision": device.precision,
                "training data": ready.prepared.report["train_sha256"],
            },
            "Give all machines the same files, and a precision that each of them has.",
        )
        watched = {name: ready.features[name] for name in ready.prepared.watched}
        fitting = Fitting(ready.classifier, config, run, progress, processes=processes)
        fitted = fitting.fit(ready.train, ready.features["validation"], watched)
        summary = _conclude(run, config, ready, fitted, processes=processes, progress=progress, started=started)
    return summary


def _open_base(
    run: RunDir, config: RunConfig, processes: Processes, progress: Progress
) -> tuple[Device, BaseModel, dict[str, Any]]:
    """Return the device, the base model and its configuration; write the manifest, or hold them against it."""
    device = open_device(config.model.precision, config.threads, num_sharing=processes.local_count)
    base = find_base(config.model.base, config.model.revision)
    base_config = load_base_config(config.model.base, config.model.revision)
    check_length(base_config, config.model.max_length)
    if processes.is_first:
        if run.manifest.exists():
            check_unchanged(run, base, device, processes)
        else:
            write_first_manifest(run, config, base, device, processes)
    for note in device.notes:
        progress.note(note)
    return device, base, base_config


def _make_ready(
    run: RunDir,
    config: RunConfig,
    device: Device,
    base: BaseModel,
    base_config: dict[str, Any],
    *,
    processes: Processes,
    progress: Progress,
) -> _Ready:
    if processes.is_first:
        remove_leftovers(run.path)
    tokens = TextEncoder(base.folder, config.model.max_length)
    prepared = prepare_data(config, encoder=tokens, progress=progress)
    if processes.is_first:
        _write_data_report(run, prepared)
    splits = prepared.splits
    plan = make_plan(
        base_config,
        base=base.name,
        num_labels=len(splits.labels),
        model=config.model,
        adapter=config.adapter,
        budget=config.budget,
    )
    if processes.is_first:
        write_json(run.plan, plan.to_json())

    sets = {"validation": splits.validation, "test": splits.test, **prepared.watched}
    sets = {name: rows for name, rows in sets.items() if rows}

    classifier = build_classifier(
        base, plan, config.model, adapter_dropout=config.adapter.dropout, dtype=device.dtype, seed=config.seed
    )
    classifier.to(device.device)
    return _Ready(tokens, prepared, plan, sets, prepared.features["train"], prepared.features, classifier)


def _conclude(
    run: RunDir,
    config: RunConfig,
    ready: _Ready,
    fitted: FitResult,
    *,
    processes: Processes,
    progress: Progress,
    started: float,
) -> RunSummary:
    """Score together; save, prove and report as the first process."""
    validation = ready.prepared.splits.validation
    max_tokens = SCORE_TOKENS_FACTOR * config.train.micro_batch_tokens
    with processes.acting_together():
        if processes.is_first:
            ready.classifier.save(run)
            _save_tokenizer(ready.tokens, run)
    probed = score(ready.classifier, ready.features["validation"], max_tokens=max_tokens, processes=processes)
    temperature = fit_temperature(probed, labels_of(validation))
    proof: dict[str, Any] = {}
    with processes.acting_together():
        if processes.is_first:
            update_manifest(run, {"temperature": temperature, "best_step": fitted.best_step})
            progress.start("verify")
            proof = verify_run(run, validation[:NUM_PROBES], probed[:NUM_PROBES])
            progress.finish()

    logits = {}
    for name, rows in ready.sets.items():
        with processes.acting_together():
            if name == "test" and processes.is_first:
                count_test_evaluation(run)
        progress.start(f"evaluate {name}", len(rows))
        logits[name] = score(
            ready.classifier,
            ready.features[name],
            max_tokens=max_tokens,
            on_progress=progress.advance,
            processes=processes,
        )
        progress.finish()

    found: dict[str, Any] = {}
    with processes.acting_together():
        if processes.is_first:
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
                )
            predicted = {name: values.argmax(axis=1) for name, values in logits.items()}
            baselines = _judge_baseline(run, config, ready.prepared, ready.sets, predicted=predicted, progress=progress)
            found = {"evaluations": evaluations, "baselines": baselines}
            entries = {
                "state": "complete",
                "proof": proof,
                "num_steps": fitted.num_steps,
                "train_s": fitted.train_s,
                "rows_per_s": fitted.rows_per_s or read_manifest(run).get("rows_per_s"),
                "wall_s": time.perf_counter() - started,
            }
            update_manifest(run, entries)
            progress.start("report")
            write_card(run.path)
            write_report([run.path])
            progress.finish()
    found = processes.share(found)
    return RunSummary(
        run=run.path,
        plan=ready.plan,
        evaluations=found["evaluations"],
        baselines=found["baselines"],
        wall_s=time.perf_counter() - started,
        rows_per_s=fitted.rows_per_s,
    )


def _write_data_report(run: RunDir, prepared: Prepared) -> None:
    # A run that is resumed must see the rows that it began with.
    if run.data.exists():
        before, now = read_json(run.data), prepared.report
        changed = [key for key in ("files", "num_train", "test_sha256", "train_sha256") if before[key] != now[key]]
        if changed:
            raise RunError(
                f"the data is not what the run began with: {', '.join(changed)} differ",
                where=str(now["source"]),
                hint="Restore the data, or start the run again in a new folder.",
            )
        return
    write_json(run.data, prepared.report)


def _save_tokenizer(tokens: TextEncoder, run: RunDir) -> None:
    names = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt")
    run.tokenizer.mkdir(exist_ok=True)
    write_text(run.tokenizer / "tokenizer.json", tokens.to_json())
    for name in names:
        if (tokens.folder / name).exists():
            shutil.copyfile(tokens.folder / name, run.tokenizer / name)


def _judge_baseline(
    run: RunDir,
    config: RunConfig,
    prepared: Prepared,
    sets: dict[str, Sequence[Record]],
    *,
    predicted: dict[str, NDArray[np.int64]],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    if not config.baseline:
        return {}
    progress.start("baseline")
    train, labels = prepared.splits.train, prepared.splits.labels
    baseline = train_baseline(
        [record.text for record in train], labels_of(train), seed=config.seed, num_labels=len(labels)
    )
    results = {}
    for name, rows in sets.items():
        theirs = baseline.predict([record.text for record in rows])
        results[name] = write_baseline_results(run, name, rows, labels, model=predicted[name], baseline=theirs)
    progress.finish()
    return results


@contextmanager
def _only_writer(run: RunDir, processes: Processes) -> Iterator[None]:
    """Hold the run folder for the first process of this run; another run in the same folder would damage both."""
    with ExitStack() as stack:
        with processes.acting_together():
            if processes.is_first:
                file = stack.enter_context(run.lock.open("w"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise RunError(
                        "another process is training in this folder",
                        where=str(run.path),
                        hint="Wait for it, or stop it.",
                    ) from None
        yield
