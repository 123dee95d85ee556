"""The one training loop: a generator that makes optimizer steps and yields what came of each.

It neither evaluates nor writes nor prints; its consumer does, between steps. The order of the records is a function
of (seed, epoch) and masks of (seed, step, record), so a run that starts at any step continues as if never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NoReturn

import numpy as np
import torch

from submillion.batches import Features
from submillion.config import TrainConfig
from submillion.errors import ConfigError, RunError
from submillion.model.encoder import Classifier
from submillion.training.feed import StepInput, count_steps, feed_steps
from submillion.training.gradients import Figures, Sums, accumulate_gradients, add_up_gradients, weigh_records
from submillion.training.optim import (
    MovingAverage,
    count_warmup_steps,
    schedule_factor,
    set_learning_rates,
    step_where_finite,
)
from submillion.training.processes import ALONE, Processes
from submillion.training.scaling import LEAST_SCALE, LossScaler


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        step: Number of the step, from 1.
        epoch: Passes over the training rows after it.
        loss: Mean loss of its records.
        num_right: Records whose most probable class, before the step, was right.
        learning_rates: By parameter group.
        grad_norm: Euclidean norm of all gradients before clipping; None where they overflowed and the step was left
            out, which only loss scaling does.
        num_records: Records of the step.
        num_tokens: Their tokens.
        step_s: Seconds spent on it, since the step before was handed out.
        is_stopping: Whether any process had been asked to stop when the step's gradients were added up; all
            processes see the same.
        loss_scale: Factor that the losses had, with loss scaling.
    """

    step: int
    epoch: float
    loss: float
    num_right: int
    learning_rates: dict[str, float]
    grad_norm: float | None
    num_records: int
    num_tokens: int
    step_s: float
    is_stopping: bool
    loss_scale: float | None = None


def weigh_classes(
    labels: Sequence[int], num_labels: int, config: TrainConfig, record_weights: Sequence[float] | None = None
) -> torch.Tensor | None:
    """Return one loss weight a class, float32 (C,), or None for equal weights.

    ``balanced`` is n / (C * count), the rule of scikit-learn's class weights; both count records by their weights.

    Raises:
        ConfigError: As many weights as classes are needed.
    """
    if config.class_weights == "none":
        return None
    if config.class_weights == "balanced":
        counts = np.bincount(labels, weights=record_weights, minlength=num_labels)
        return torch.tensor(counts.sum() / (num_labels * np.where(counts > 0, counts, 1)), dtype=torch.float32)
    if len(config.class_weights) != num_labels:
        raise ConfigError(
            f"{len(config.class_weights)} weights for {num_labels} classes",
            where="train.class_weights",
            hint="Give one weight a class, in the order of the labels, or balanced.",
        )
    return torch.tensor(config.class_weights, dtype=torch.float32)


def train_steps(
    classifier: Classifier,
    features: Sequence[Features],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    *,
    seed: int,
    first_step: int = 0,
    average: MovingAverage | None = None,
    scaler: LossScaler | None = None,
    processes: Processes = ALONE,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[StepResult]:
    """Make optimizer steps from `first_step` to the end of the run.

    A step's loss is the weighted mean over its records, however many forward passes and processes they take, so
    accumulation equals one large batch, and several processes equal one, up to rounding.

    When a result is handed out, the parameters are those after its step. On a GPU, the gradients of the next step are
    under way by then, so that the GPU does not wait for its host to read the result.

    Args:
        classifier: The model.
        features: Training rows, labelled.
        optimizer: Made by `build_optimizer`.
        config: Training settings.
        seed: Seed of order and dropout.
        first_step: Steps made before, on resume.
        average: Updated after each step, if given; after one that is left out, too.
        scaler: Scales losses, where weights are fp16. A step whose gradients overflow is left out, and counts.
        processes: Those that share each step's records; parameters, optimizer and average are the same on all.
        is_stopping: Says whether this process has been asked to stop; asked in each step of several processes.

    Raises:
        RunError: A loss that is not finite, or gradients that are not at the least scale; the step is not made. The
            same on all processes.
    """
    per_epoch, num_steps = count_steps(len(features), config)
    warmup = count_warmup_steps(config, num_steps)
    device = next(classifier.parameters()).device
    labels = [f.label for f in features if f.label is not None]
    assert len(labels) == len(features), "training rows must be labelled"
    weights = weigh_classes(labels, classifier.plan.num_labels, config, [item.weight for item in features])
    weights_on_device = None if weights is None else weights.to(device)
    parameters = list(classifier.trainable_parameters().values())
    parts = list(classifier.modules())
    reads_late = _reads_late(device)
    waiting: _Step | None = None
    handed_out_s = time.perf_counter()
    for given in feed_steps(features, config, seed=seed, first_step=first_step, device=device, processes=processes):
        if not all(part.training for part in parts):  # asked of every part: the root's own mode says nothing of theirs
            classifier.train()
        sums = accumulate_gradients(
            classifier,
            given,
            weights=weights_on_device,
            total_weight=weigh_records(given.items, weights),
            label_smoothing=config.label_smoothing,
            seed=seed,
            scaler=scaler,
        )
        if waiting is not None:
            yield waiting.read(per_epoch, since_s=handed_out_s)
            handed_out_s = time.perf_counter()
        factor = schedule_factor(
            given.step, num_steps=num_steps, warmup_steps=warmup, schedule=config.schedule, num_cycles=config.num_cycles
        )
        rates = set_learning_rates(optimizer, factor)
        if processes.count == 1:
            processes.fail_together(sums.failure)
            totals = None
        else:
            totals = add_up_gradients(parameters, sums, processes, is_stopping=is_stopping())
        if scaler is not None:
            scaler.unscale(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm or math.inf)
        scale = None if scaler is None else scaler.scale
        step = _Step(given, sums, totals=totals, norm=norm, scale=scale, rates=rates, processes=processes)
        _make_step(optimizer, step, scaler, reads_late=reads_late)
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update()
        if reads_late:
            waiting = step
        else:
            yield step.read(per_epoch, since_s=handed_out_s)
            handed_out_s = time.perf_counter()
    if waiting is not None:
        yield waiting.read(per_epoch, since_s=handed_out_s)


def _reads_late(device: torch.device) -> bool:
    return device.type == "cuda"


def _make_step(optimizer: torch.optim.Optimizer, step: _Step, scaler: LossScaler | None, *, reads_late: bool) -> None:
    if not reads_late:
        step.check()
    if scaler is None and not reads_late:
        optimizer.step()
        return
    is_finite = step.is_finite()
    step_where_finite(optimizer, is_finite)
    if scaler is not None:
        scaler.update(is_finite)


class _Step:
    """A step whose figures may still be on their way from the device.

    Args:
        given: What it read.
        sums: Of this process.
        totals: Loss, right records and processes asked to stop, over all processes; None where there is one.
        norm: Of the gradients.
        scale: Factor that the losses had, float32 (); None without loss scaling.
        rates: Learning rates.
        processes: Those that made it.
    """

    def __init__(
        self,
        given: StepInput,
        sums: Sums,
        *,
        totals: torch.Tensor | None,
        norm: torch.Tensor,
        scale: torch.Tensor | None,
        rates: dict[str, float],
        processes: Processes,
    ) -> None:
        self._given = given
        self._failure = sums.failure
        self._rates = rates
        self._processes = processes
        self._losses = sums.losses if totals is None else totals[:1]
        self._norm = norm
        self._is_scaled = scale is not None
        scales = [] if scale is None else [scale]
        self._figures = Figures(sums.losses, sums.num_right if totals is None else totals, norm, *scales)

    def is_finite(self) -> torch.Tensor:
        """Return on the device whether loss and gradients are finite, bool ()."""
        return torch.cat([self._losses, self._norm[None]]).isfinite().all()

    def check(self) -> tuple[float, int, bool, float | None, float | None]:
        """Return loss, right records, whether any process is to stop, gradient norm and loss scale, or raise.

        The norm is None where loss scaling leaves the step out.

        Raises:
            RunError: Loss or gradients are not finite; the same on all processes.
        """
        losses, totals, [norm], *scales = self._figures.read()
        scale = scales[0][0] if self._is_scaled else None
        if self._processes.count == 1:
            loss, num_right, num_stopping = reduce(add, losses, 0.0), totals[0], 0.0
        else:
            loss, num_right, num_stopping = totals
        is_left_out = scale is not None and scale > LEAST_SCALE and math.isfinite(loss) and not math.isfinite(norm)
        if not (is_left_out or (math.isfinite(loss) and math.isfinite(norm))):
            self._fail(losses, loss, norm)
        return loss, int(num_right), num_stopping > 0, None if is_left_out else norm, scale

    def _fail(self, losses: Sequence[float], loss: float, norm: float) -> NoReturn:
        failure = self._failure
        for batch, value in zip(self._given.batches, losses, strict=False):
            if failure is None and not math.isfinite(value):
                failure = _refuse(batch.ids, self._given.step, "loss", value)
        self._processes.fail_together(failure)
        what, value = ("gradient norm", norm) if math.isfinite(loss) else ("loss", loss)
        raise _refuse([item.id for item in self._given.items], self._given.step, what, value)

    def read(self, per_epoch: int, *, since_s: float) -> StepResult:
        """Return what came of the step, waiting for it if need be.

        Args:
            per_epoch: Steps an epoch.
            since_s: When the result before was handed out.

        Raises:
            RunError: Loss or gradients were not finite; the same on all processes.
        """
        loss, num_right, is_stopping, norm, scale = self.check()
        items = self._given.items
        return StepResult(
            step=self._given.step + 1,
            epoch=(self._given.step + 1) / per_epoch,
            loss=loss,
            num_right=num_right,
            learning_rates=self._rates,
            grad_norm=norm,
            num_records=len(items),
            num_tokens=sum(len(item) for item in items),
            step_s=time.perf_counter() - since_s,
            is_stopping=is_stopping,
            loss_scale=scale,
        )


def _refuse(ids: Sequence[str], step: int, what: str, value: float) -> RunError:
    more = f" and {len(ids) - 20} more" if len(ids) > 20 else ""
    return RunError(
        f"the {what} of step {step + 1} is {value}; the step was not made. Its records: {', '.join(ids[:20])}{more}",
        where="train",
        hint="Lower train.learning_rate, set train.clip_norm, or look at these rows; --resume continues before it.",
    )
