"""A step's loss and gradients: summed over forward passes and processes, and copied from the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from submillion.config.run import TrainConfig
from submillion.encoding.batches import Batch
from submillion.encoding.text_encoder import Features
from submillion.errors import ConfigError
from submillion.model.encoder import Classifier
from submillion.training.collective import Processes
from submillion.training.feed import StepInput
from submillion.training.scaling import LossScaler


@dataclass(frozen=True, eq=False)
class Sums:
    """Results of a step's forward and backward passes on this process, made without waiting for a GPU.

    Attributes:
        losses: Each pass's part of the step's loss, float32 (passes,).
        num_right: Number of records whose most probable class was right, int64 ().
        failure: Exception that ended the passes early, which makes the other two useless.
    """

    losses: torch.Tensor
    num_right: torch.Tensor
    failure: Exception | None = None


def weigh_classes(
    labels: Sequence[int], num_labels: int, config: TrainConfig, record_weights: Sequence[float] | None = None
) -> torch.Tensor | None:
    """Return one loss weight per class, float32 (C,), or None for equal weights.

    ``balanced`` is n / (C * count), the rule of scikit-learn's class weights; both count records by their weights.

    Raises:
        ConfigError: The numbers of weights and classes differ.
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
            hint="Give one weight per class, in the order of the labels, or balanced.",
        )
    return torch.tensor(config.class_weights, dtype=torch.float32)


def weigh_rows(features: Sequence[Features], num_labels: int, config: TrainConfig) -> torch.Tensor | None:
    """Return one loss weight a class for training rows, all of them labelled, as `weigh_classes` does."""
    labels = [item.label for item in features if item.label is not None]
    assert len(labels) == len(features), "training rows must be labelled"
    return weigh_classes(labels, num_labels, config, [item.weight for item in features])


def weigh_records(items: Sequence[Features], weights: torch.Tensor | None) -> float:
    """Return the divisor of the sum of a step's losses: the summed weights of its records.

    A record's weight is its own times that of its label, as in the mean of torch's cross-entropy. The sum here is over
    the whole step, with all passes and processes.

    Args:
        items: The records of the step.
        weights: One weight per class, float32 (C,) on the CPU, or None for equal ones.
    """
    of_labels = torch.ones(len(items)) if weights is None else weights[torch.tensor([item.label for item in items])]
    if all(item.weight == 1 for item in items):
        return float(of_labels.sum())
    own = torch.tensor([item.weight for item in items], dtype=torch.float64)
    return float((of_labels * own).sum())


def accumulate_gradients(
    classifier: Classifier,
    given: StepInput,
    *,
    weights: torch.Tensor | None,
    total_weight: float,
    label_smoothing: float,
    seed: int,
    scaler: LossScaler | None = None,
) -> Sums:
    """Run a step's passes and add up their gradients.

    Args:
        classifier: Model in training mode.
        given: Records and batches of the step.
        weights: One weight per class, float32 (C,) on the classifier's device, or None for equal ones.
        total_weight: Total weight of the step's records, from `weigh_records`.
        label_smoothing: Share of the target that is spread over all classes.
        seed: Seed for dropout.
        scaler: Loss scaler, which scales the losses before their backward passes and so the gradients, but not the
            sums.

    Returns:
        The sums. They include an exception instead of raising it, as other processes may wait for this one's gradients.
    """
    device = next(classifier.parameters()).device
    losses, num_right = [], torch.zeros((), dtype=torch.int64, device=device)
    failure = None
    try:
        for packed in given.batches:
            batch = packed.to(device)
            classifier.dropout_state.set_step(packed, seed=seed, step=given.step, device=device)
            logits = classifier(batch)
            loss = _sum_losses(logits, batch, weights=weights, label_smoothing=label_smoothing) / total_weight
            (loss if scaler is None else loss * scaler.scale).backward()
            losses.append(loss.detach())
            num_right += (logits.detach().argmax(dim=1) == batch.labels).sum()
        classifier.dropout_state.clear()
    except Exception as error:
        failure = error
    return Sums(torch.stack(losses) if losses else torch.zeros(0, device=device), num_right, failure)


def _sum_losses(
    logits: torch.Tensor, batch: Batch, *, weights: torch.Tensor | None, label_smoothing: float
) -> torch.Tensor:
    """Return the weighted sum of a pass's losses, float32 ()."""
    reduction = "sum" if batch.weights is None else "none"
    losses = torch.nn.functional.cross_entropy(
        logits, batch.labels, weight=weights, label_smoothing=label_smoothing, reduction=reduction
    )
    return losses if batch.weights is None else (losses * batch.weights).sum()


def reduce_gradients(
    parameters: Sequence[nn.Parameter], sums: Sums, processes: Processes, is_stopping: Callable[[], bool]
) -> torch.Tensor | None:
    """Replace every process's gradients by their sum, in one message.

    Args:
        parameters: The trained parameters. Those without a gradient, as this process had no records, get one.
        sums: Sums of this process. A failure is sent as a loss that is not finite.
        processes: All processes of the run; each takes part, with or without records.
        is_stopping: Function that returns whether this process was asked to stop; called if there are several
            processes.

    Returns:
        The step's loss, its number of right records and the number of processes that were asked to stop, float32 (3,).
        With a single process it is None, since its gradients and sums are those of the step.

    Raises:
        Exception: The passes ended early, and there is a single process.
    """
    if processes.count == 1:
        processes.fail_together(sums.failure)
        return None
    first = parameters[0]
    loss = sums.losses.sum() if sums.failure is None else first.new_full((), math.nan)
    tail = [loss, sums.num_right.float(), first.new_full((), float(is_stopping()))]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = processes.add_up(torch.cat([*(gradient.flatten() for gradient in gradients), torch.stack(tail)]))
    pieces = flat[: -len(tail)].split([p.numel() for p in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)
    return flat[-len(tail) :]


def clip_gradients(
    parameters: Sequence[nn.Parameter], largest_norm: float | None, scaler: LossScaler | None
) -> torch.Tensor:
    """Unscale and clip the gradients, and return their Euclidean norm before clipping, float32 ().

    Args:
        parameters: The trained parameters.
        largest_norm: Norm that larger gradients are scaled down to; None or 0 for no limit.
        scaler: Loss scaler that has scaled losses and gradients; the norm is the one without scaling.
    """
    if scaler is not None:
        scaler.unscale(parameters)
    return torch.nn.utils.clip_grad_norm_(parameters, largest_norm or math.inf)


class Figures:
    """Numbers that are being copied from a device, in one copy that is waited for only when they are read.

    Args:
        values: Tensors of any shapes, whose numbers are exact in float64.
    """

    def __init__(self, *values: torch.Tensor) -> None:
        flat = torch.cat([value.detach().double().flatten() for value in values])
        self._lengths = [value.numel() for value in values]
        self._arrived: torch.cuda.Event | None = None
        if flat.device.type == "cuda":
            home = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
            home.copy_(flat, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
            flat = home
        self._flat = flat

    def read(self) -> list[list[float]]:
        """Return the numbers of each tensor, and wait for them if necessary."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers = [float(number) for number in self._flat.tolist()]
        ends = [sum(self._lengths[: place + 1]) for place in range(len(self._lengths))]
        return [numbers[end - length : end] for end, length in zip(ends, self._lengths, strict=True)]
