"""The one training loop: a generator that makes optimizer steps and yields what came of each.

It neither evaluates nor writes nor prints; its consumer does, between steps. The order of the records is a function
of (seed, epoch) and masks of (seed, step, record), so a run that starts at any step continues as if never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from submillion.batches import Features, pack, split_micro_batches
from submillion.config import TrainConfig
from submillion.errors import ConfigError, RunError
from submillion.model.encoder import Classifier
from submillion.train.optim import MovingAverage, count_warmup_steps, schedule_factor, set_learning_rates


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        step: Number of the step, from 1.
        epoch: Passes over the training rows after it.
        loss: Mean loss of its records.
        num_right: Records whose most probable class, before the step, was right.
        learning_rates: By parameter group.
        grad_norm: Euclidean norm of all gradients before clipping.
        num_records: Records of the step.
        num_tokens: Their tokens.
        step_s: Seconds.
    """

    step: int
    epoch: float
    loss: float
    num_right: int
    learning_rates: dict[str, float]
    grad_norm: float
    num_records: int
    num_tokens: int
    step_s: float


def count_steps(num_records: int, config: TrainConfig) -> tuple[int, int]:
    """Return (steps per epoch, steps of the run); the last step of an epoch may hold fewer records."""
    per_epoch = math.ceil(num_records / config.batch_size)
    if config.max_steps is not None:
        return per_epoch, config.max_steps
    return per_epoch, max(1, round(config.epochs * per_epoch))


def order_epoch(num_records: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the records in an epoch: a permutation drawn without regard to their lengths."""
    return np.random.default_rng([seed, epoch]).permutation(num_records)


def weigh_classes(labels: Sequence[int], num_labels: int, config: TrainConfig) -> torch.Tensor | None:
    """Return one loss weight a class, float32 (C,), or None for equal weights.

    ``balanced`` is n / (C * count), the rule of scikit-learn's class weights.

    Raises:
        ConfigError: As many weights as classes are needed.
    """
    if config.class_weights == "none":
        return None
    if config.class_weights == "balanced":
        counts = np.maximum(np.bincount(labels, minlength=num_labels), 1)
        return torch.tensor(len(labels) / (num_labels * counts), dtype=torch.float32)
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
) -> Iterator[StepResult]:
    """Make optimizer steps from `first_step` to the end of the run.

    A step's loss is the weighted mean over its records, however many forward passes they take, so accumulation
    equals one large batch up to rounding.

    Args:
        classifier: The model.
        features: Training rows, labelled.
        optimizer: Made by `build_optimizer`.
        config: Training settings.
        seed: Seed of order and dropout.
        first_step: Steps made before, on resume.
        average: Updated after each step, if given.

    Raises:
        RunError: A loss that is not finite; the step is not made.
    """
    per_epoch, num_steps = count_steps(len(features), config)
    warmup = count_warmup_steps(config, num_steps)
    device = next(classifier.parameters()).device
    labels = [f.label for f in features if f.label is not None]
    assert len(labels) == len(features), "training rows must be labelled"
    weights = weigh_classes(labels, classifier.plan.num_labels, config)
    weights = None if weights is None else weights.to(device)
    parameters = list(classifier.trainable_parameters().values())
    order, order_of = np.empty(0, dtype=np.int64), -1
    for step in range(first_step, num_steps):
        started = time.perf_counter()
        epoch, place = divmod(step, per_epoch)
        if epoch != order_of:
            order, order_of = order_epoch(len(features), seed=seed, epoch=epoch), epoch
        rows = order[place * config.batch_size : (place + 1) * config.batch_size]
        items = [features[row] for row in rows]
        factor = schedule_factor(
            step, num_steps=num_steps, warmup_steps=warmup, schedule=config.schedule, num_cycles=config.num_cycles
        )
        rates = set_learning_rates(optimizer, factor)
        classifier.train()
        loss, num_right = _accumulate_gradients(classifier, items, config, weights, seed=seed, step=step)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm or math.inf)
        grad_norm = float(norm)
        if not math.isfinite(grad_norm):
            _refuse(items, step, "gradient norm", grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update()
        yield StepResult(
            step=step + 1,
            epoch=(step + 1) / per_epoch,
            loss=loss,
            num_right=num_right,
            learning_rates=rates,
            grad_norm=grad_norm,
            num_records=len(items),
            num_tokens=sum(len(item) for item in items),
            step_s=time.perf_counter() - started,
        )


def _accumulate_gradients(
    classifier: Classifier,
    items: Sequence[Features],
    config: TrainConfig,
    weights: torch.Tensor | None,
    *,
    seed: int,
    step: int,
) -> tuple[float, int]:
    device = next(classifier.parameters()).device
    labels = torch.tensor([item.label for item in items], device=device)
    # Cross-entropy's own mean divides by the summed weights of the labels; the same over all passes of the step.
    total_weight = float(len(items)) if weights is None else float(weights[labels].sum())
    loss_sum, num_right = 0.0, 0
    for part in split_micro_batches(items, config.micro_batch_tokens):
        batch = pack(part).to(device)
        classifier.dropout_state.set_step(batch, seed=seed, step=step)
        logits = classifier(batch)
        loss = (
            torch.nn.functional.cross_entropy(
                logits, batch.labels, weight=weights, label_smoothing=config.label_smoothing, reduction="sum"
            )
            / total_weight
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            _refuse(part, step, "loss", value)
        loss.backward()
        loss_sum += value
        num_right += int((logits.detach().argmax(dim=1) == batch.labels).sum())
    classifier.dropout_state.clear()
    return loss_sum, num_right


def _refuse(items: Sequence[Features], step: int, what: str, value: float) -> None:
    ids = ", ".join(item.id for item in items[:20])
    more = f" and {len(items) - 20} more" if len(items) > 20 else ""
    raise RunError(
        f"the {what} of step {step + 1} is {value}; the step was not made. Its records: {ids}{more}",
        where="train",
        hint="Lower train.learning_rate, set train.clip_norm, or look at these rows; --resume continues before it.",
    )
