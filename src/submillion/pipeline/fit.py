"""Fitting: it consumes the training loop, validates, keeps the best parameters, and writes checkpoints and the log."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from submillion.config.nested import flatten
from submillion.config.run import RunConfig
from submillion.encoding.text_encoder import Features
from submillion.errors import RunError
from submillion.metrics.direction import is_better
from submillion.model.encoder import Classifier
from submillion.model.prefix import reuse_prefix
from submillion.progress import Progress
from submillion.records import LabelSet
from submillion.run.folder import RunDir
from submillion.scoring.validation_figures import find_metric_class, measure
from submillion.storage.files import ODD_HINT, full_disk_is_run_error, open_plain, read_log
from submillion.storage.json_shapes import JsonObject, JsonView
from submillion.training import checkpoint
from submillion.training.checkpoint import Position
from submillion.training.collective import ALONE, Processes
from submillion.training.feed import count_steps
from submillion.training.interrupt import StopRequest, deferred_stop
from submillion.training.loop import train_steps
from submillion.training.optim import MovingAverage, build_optimizer
from submillion.training.scaling import LossScaler, ScalerState
from submillion.training.step import StepResult
from submillion.training.track import Trackers


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved; `folder` is the run to resume."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder


@dataclass(frozen=True)
class FitResult:
    """The result of fitting.

    Attributes:
        best_step: Step whose parameters the classifier now holds.
        best_value: Validation figure of that step.
        num_steps: Number of steps made.
        train_s: Seconds over all attempts, including validations and checkpoints.
        rows_per_s: Training rows per second over the steps of this process; None if it made none.
    """

    best_step: int
    best_value: float
    num_steps: int
    train_s: float
    rows_per_s: float | None


class RunLog:
    """Writer of JSON lines to log.jsonl.

    Args:
        run: The run folder.
        at: Position of the run; an existing log is truncated to its length at that position.

    Raises:
        RunError: The log does not belong to a run at this position.
    """

    def __init__(self, run: RunDir, at: Position) -> None:
        self._path = run.log
        if at.step:
            check_log(run.log, at)
        self._file = os.fdopen(open_plain(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
        if os.fstat(self._file.fileno()).st_nlink > 1:
            self._file.close()
            raise RunError("has another name elsewhere, so it is not truncated", where=str(run.log), hint=ODD_HINT)
        self._file.truncate(at.log_bytes)

    def write(self, entry: JsonView) -> None:
        """Append one object as a line.

        Raises:
            RunError: The disk is full.
        """
        with full_disk_is_run_error(self._path):
            self._file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Flush to the disk and return the length in bytes."""
        with full_disk_is_run_error(self._path):
            os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def check_log(path: Path, at: Position) -> None:
    """Refuse a log whose beginning does not have exactly the steps up to a checkpoint.

    Truncating a shorter file would fill it with zeros, and plots and reports of a run are made from the log.

    Args:
        path: The log file.
        at: Position of the checkpoint.

    Raises:
        RunError: The log is missing, too short, damaged or from another run.
    """
    hint = "The run cannot be continued without its log; restore the file, or start again in a new folder."
    try:
        size = path.stat().st_size
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror}", where=str(path), hint=hint) from None
    if size < at.log_bytes:
        told = f"has {size:,} bytes; at the last checkpoint, after step {at.step:,}, it had {at.log_bytes:,}"
        raise RunError(told, where=str(path), hint=hint)
    entries = read_log(path, num_bytes=at.log_bytes)
    steps = [entry.get("step") for entry in entries if entry.get("kind") == "step"]
    if steps != list(range(1, at.step + 1)):
        raise RunError(f"does not have the steps from 1 to {at.step:,}, each once", where=str(path), hint=hint)


def list_events(interval: float, unit: str, steps_per_epoch: int, num_steps: int) -> set[int]:
    """Return the steps at the end of every `interval` steps or epochs, always with the last step."""
    every = max(1.0, interval * steps_per_epoch if unit == "epochs" else interval)
    events = {round(every * count) for count in range(1, int(num_steps / every) + 1)}
    return {step for step in events if 1 <= step <= num_steps} | {num_steps}


class Fitting:
    """The fitting of one run.

    Args:
        classifier: Classifier from `build_classifier`, which has the best parameters at the end.
        config: Configuration of the run.
        run: Run folder.
        progress: Receiver of steps and validations.
        labels: Classes of the run, for a metric that names one.
        processes: Processes that fit together. All read the run folder, and the first one writes.
    """

    def __init__(
        self,
        classifier: Classifier,
        config: RunConfig,
        run: RunDir,
        progress: Progress,
        *,
        labels: LabelSet | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self._label_id = None if labels is None else find_metric_class(config.train.metric, labels)
        self.classifier = classifier
        self.config = config
        self.run = run
        self.progress = progress
        self.processes = processes
        self.parameters = classifier.trainable_parameters()
        self.optimizer = build_optimizer(self.parameters, config.train)
        decay = config.train.ema_decay
        self.average = None if decay is None else MovingAverage(self.parameters, decay)
        with processes.acting_together():
            self.position = self._restore()
        self._require_same_position()
        self.log = RunLog(run, self.position) if processes.is_first else None
        with processes.acting_together():
            self.trackers = Trackers(
                config.track if processes.is_first else (), run.path, flatten(config.model_dump(mode="json"), depth=1)
            )
        self.scaler = self._open_scaler()
        self._resumed_at = time.perf_counter() - self.position.elapsed_s

    def _open_scaler(self) -> LossScaler | None:
        if all(parameter.dtype != torch.float16 for parameter in self.classifier.parameters()):
            return None
        at = self.position
        state = None if at.loss_scale is None else ScalerState(at.loss_scale, at.num_good_steps)
        return LossScaler(self.classifier.device, state)

    def _restore(self) -> Position:
        folder = checkpoint.find_checkpoint(self.run.checkpoints, "last")
        if folder is None:
            return Position()
        position = checkpoint.read_position(folder)
        checkpoint.load_parameters(folder, self.parameters)
        checkpoint.load_optimizer(folder, self.parameters, self.optimizer)
        if self.average is not None:
            checkpoint.load_average(folder, self.average, position.average_updates)
        return position

    def _require_same_position(self) -> None:
        # A shared folder may show files to one machine before another.
        content = b"".join(value.detach().cpu().numpy().tobytes() for value in self.parameters.values())
        values = {"step": self.position.step, "parameters": hashlib.sha256(content).hexdigest()}
        hint = "Every machine must see the same files, including those of the run folder."
        self.processes.require_same(values, hint)

    def fit(
        self, train: Sequence[Features], validation: Sequence[Features], watched: Mapping[str, Sequence[Features]]
    ) -> FitResult:
        """Train to the end, from the last checkpoint if there is one, and load the best parameters.

        Args:
            train: Features of the training rows.
            validation: Features of the rows that choose the best parameters.
            watched: Extra sets, which are scored at every validation but have no influence.

        Raises:
            Interrupted: A signal asked this process or another one to stop. Everything is saved.
            RunError: The loss is not finite, the disk is full or a checkpoint is damaged.
        """
        settings = self.config.train
        per_epoch, num_steps = count_steps(len(train), settings)
        evaluations = list_events(settings.evaluate_every, settings.interval_unit, per_epoch, num_steps)
        save_every = settings.save_every or settings.evaluate_every
        saves = list_events(save_every, settings.interval_unit, per_epoch, num_steps) | evaluations
        num_rows, step_s = 0, 0.0
        self.progress.start("train", num_steps, self.position.step)
        try:
            with deferred_stop() as stop, self._reuse_prefix(train, num_steps > per_epoch) as note:
                if note:
                    self.progress.note(note)
                for result in self._steps(train, stop):
                    num_rows, step_s = num_rows + result.num_records, step_s + result.step_s
                    self.position = replace(self.position, step=result.step)
                    self._log_step(result)
                    self.progress.advance(result.step, loss=result.loss, rows_per_s=num_rows / step_s)
                    if result.step in evaluations:
                        self._validate(result, validation, watched)
                    # This is read once: a signal during saving takes effect after the next step, which is saved.
                    # Several processes use the value that all of them saw in the step, or they would stop at different
                    # steps.
                    stopping = stop.is_set if self.processes.count == 1 else result.is_stopping
                    if result.step in saves or stopping or self.position.stopped:
                        self._save()
                    if stopping and result.step < num_steps:
                        raise Interrupted(str(self.run.path))
                    if self.position.stopped:
                        self.progress.note(f"stopped early: no better {settings.metric} since {self._best_step}")
                        break
        finally:
            self.progress.finish()
            if self.log is not None:
                self.log.close()
            self.trackers.close()
        self._load_best()
        assert self.position.best_value is not None
        return FitResult(
            best_step=self.position.best_step,
            best_value=self.position.best_value,
            num_steps=self.position.step,
            train_s=self.position.elapsed_s,
            rows_per_s=num_rows / step_s if step_s else None,
        )

    @property
    def _best_step(self) -> str:
        return f"step {self.position.best_step:,}"

    def _steps(self, train: Sequence[Features], stop: StopRequest) -> Any:
        if self.position.stopped:
            return iter(())
        return train_steps(
            self.classifier,
            train,
            self.optimizer,
            self.config.train,
            seed=self.config.seed,
            first_step=self.position.step,
            average=self.average,
            scaler=self.scaler,
            processes=self.processes,
            is_stopping=lambda: stop.is_set,
        )

    def _reuse_prefix(self, train: Sequence[Features], is_repeated: bool) -> AbstractContextManager[str]:
        # With several processes, each epoch gives a record to another process.
        if not is_repeated or self.processes.count > 1:
            return nullcontext("")
        return reuse_prefix(self.classifier, train, self.run.path)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._resumed_at

    def _write_log(self, entry: JsonView) -> None:
        if self.log is not None:
            self.log.write(entry)

    def _log_step(self, result: StepResult) -> None:
        entry: JsonObject = {"kind": "step", **asdict(result)}
        del entry["is_stopping"]
        if result.loss_scale is None:
            del entry["loss_scale"]
        entry["learning_rate"] = result.learning_rates.get("adapter_a", max(result.learning_rates.values()))
        entry["elapsed_s"] = self._elapsed()
        self._write_log(entry)
        figures = {key: entry.get(key) for key in ("loss", "learning_rate", "grad_norm", "loss_scale", "epoch")}
        self.trackers.log({f"train/{key}": value for key, value in figures.items() if value is not None}, result.step)

    def _validate(
        self, result: StepResult, validation: Sequence[Features], watched: Mapping[str, Sequence[Features]]
    ) -> None:
        with self.average.applied() if self.average is not None else nullcontext():
            sets = {"validation": validation, **watched}
            figures = {}
            for name, features in sets.items():

                def show(scored: int, name: str = name) -> None:
                    self.progress.advance(result.step, loss=result.loss, **{f"{name}_rows": scored})

                figures[name] = measure(
                    self.classifier,
                    features,
                    self.config.train,
                    on_progress=show,
                    processes=self.processes,
                    label_id=self._label_id,
                )
        # Different machines may round a figure differently, and would then disagree on the best step.
        figures = self.processes.share(figures)
        metric = self.config.train.metric
        value = figures["validation"][metric]
        better = is_better(metric, value, self.position.best_value)
        waited = 0 if better else self.position.validations_since_best + 1
        patience = self.config.train.patience
        self.position = replace(
            self.position,
            best_step=result.step if better else self.position.best_step,
            best_value=value if better else self.position.best_value,
            validations_since_best=waited,
            stopped=patience is not None and waited >= patience,
        )
        for name, row in figures.items():
            entry = {"kind": "evaluation", "step": result.step, "epoch": result.epoch, "split": name, **row}
            entry["elapsed_s"] = self._elapsed()
            if name == "validation":
                entry["best"] = better
            self._write_log(entry)
            self.trackers.log({f"{name}/{key}": number for key, number in row.items()}, result.step)
        shown = ", ".join(f"{name} {row['accuracy']:.2%}" for name, row in figures.items())
        self.progress.note(f"step {result.step:,}: accuracy on {shown}{' (best)' if better else ''}")

    def _save(self) -> None:
        with self.processes.acting_together():
            if self.log is not None:
                self._write_checkpoint(self.log)

    def _write_checkpoint(self, log: RunLog) -> None:
        updates = self.average.num_updates if self.average is not None else 0
        self.position = replace(self.position, elapsed_s=self._elapsed(), log_bytes=log.sync(), average_updates=updates)
        if self.scaler is not None:
            state = self.scaler.state
            self.position = replace(self.position, loss_scale=state.scale, num_good_steps=state.num_good_steps)
        folder = self.run.checkpoints
        checkpoint.save_checkpoint(folder, self.position, self.parameters, self.optimizer, self.average)
        if self.position.best_step == self.position.step:
            checkpoint.point_to(folder, "best", self.position.step)
        checkpoint.delete_old_checkpoints(
            folder,
            keep=self.config.train.keep_checkpoints,
            last_step=self.position.step,
            best_step=self.position.best_step,
        )

    def _load_best(self) -> None:
        # The position decides which step is best, since the process can be killed between a checkpoint and its pointer.
        best = self.run.checkpoints / f"step-{self.position.best_step}"
        with self.processes.acting_together():
            if not best.is_dir():
                raise RunError("the best checkpoint does not exist", where=str(best), hint="Start the run again.")
            if self.processes.is_first:
                checkpoint.point_to(self.run.checkpoints, "best", self.position.best_step)
            checkpoint.load_parameters(best, self.parameters, averaged=self.average is not None)
        self._require_same_position()
