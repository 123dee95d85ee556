"""A step of the training loop, from its gradients to its result, without waiting for a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NoReturn

import torch

from submillion.errors import DivergedError
from submillion.training.collective import Processes
from submillion.training.feed import StepInput
from submillion.training.gradients import Figures, Sums
from submillion.training.optim import step_where_finite
from submillion.training.scaling import LEAST_SCALE, LossScaler


@dataclass(frozen=True)
class StepResult:
    """The result of one optimizer step.

    Attributes:
        step: Number of the step, from 1.
        epoch: Number of passes over the training rows after the step.
        loss: Mean loss of the step's records.
        num_right: Number of records whose most probable class, before the step, was right.
        learning_rates: Learning rates by parameter group.
        grad_norm: Euclidean norm of all gradients before clipping; None if they overflowed and loss scaling left the
            step out.
        num_records: Number of records of the step.
        num_tokens: Number of tokens of the step.
        step_s: Seconds since the result of the previous step was yielded.
        is_stopping: Whether any process had been asked to stop when the step's gradients were summed; it is the same on
            all processes.
        loss_scale: Factor on the losses, with loss scaling.
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


class Step:
    """A step whose figures may not have arrived from the device yet.

    Args:
        given: Input of the step.
        sums: Sums of this process.
        totals: Loss, right records and processes asked to stop, over all processes; None with a single process.
        norm: Norm of the gradients.
        rates: Learning rates.
        scaler: Loss scaler of the losses, which learns from this step whether the gradients were finite.
        processes: Processes that made the step.
    """

    def __init__(
        self,
        given: StepInput,
        sums: Sums,
        *,
        totals: torch.Tensor | None,
        norm: torch.Tensor,
        rates: dict[str, float],
        scaler: LossScaler | None,
        processes: Processes,
    ) -> None:
        self._given = given
        self._failure = sums.failure
        self._rates = rates
        self._processes = processes
        self._losses = sums.losses if totals is None else totals[:1]
        self._norm = norm
        self._scaler = scaler
        scales = [] if scaler is None else [scaler.scale]
        self._figures = Figures(sums.losses, sums.num_right if totals is None else totals, norm, *scales)

    def make(self, optimizer: torch.optim.Optimizer, *, unread: bool) -> None:
        """Update the parameters and drop the gradients.

        Args:
            optimizer: Optimizer of the parameters.
            unread: Whether to leave the figures on the device, which then decides whether the step is made.

        Raises:
            DivergedError: Loss or gradients were read and are not finite. The error is the same on all processes.
        """
        if not unread:
            self.check()
        if self._scaler is None and not unread:
            optimizer.step()
        else:
            is_finite = torch.cat([self._losses, self._norm[None]]).isfinite().all()
            step_where_finite(optimizer, is_finite)
            if self._scaler is not None:
                self._scaler.update(is_finite)
        optimizer.zero_grad(set_to_none=True)

    def check(self) -> tuple[float, int, bool, float | None, float | None]:
        """Return loss, right records, whether any process is to stop, gradient norm and loss scale, or raise.

        The norm is None if loss scaling leaves the step out.

        Raises:
            DivergedError: Loss or gradients are not finite. The error is the same on all processes.
        """
        losses, totals, [norm], *scales = self._figures.read()
        scale = scales[0][0] if scales else None
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
        """Return the step's result, and wait for it if necessary.

        Args:
            per_epoch: Number of steps per epoch.
            since_s: Time when the previous result was yielded.

        Raises:
            DivergedError: Loss or gradients were not finite. The error is the same on all processes.
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


def train_all_parts(classifier: torch.nn.Module) -> None:
    """Put a model into training mode if any part of it is not, since the modes of the parts can differ."""
    if not all(part.training for part in classifier.modules()):
        classifier.train()


class Results:
    """Results in order: at once on a CPU; on a GPU, when the next step's gradients have been requested.

    Args:
        device: Device that computes the steps.
        per_epoch: Number of steps per epoch.
    """

    def __init__(self, device: torch.device, per_epoch: int) -> None:
        self.are_late = _reads_late(device)
        """Whether a result is read only after the next step's gradients have been requested."""
        self._per_epoch = per_epoch
        self._waiting: Step | None = None
        self._handed_out_s = time.perf_counter()

    def add(self, step: Step) -> Iterator[StepResult]:
        """Add a step that was made, and yield its result unless it must wait."""
        self._waiting = step
        if not self.are_late:
            yield from self.read_waiting()

    def read_waiting(self) -> Iterator[StepResult]:
        """Yield the result of the waiting step, if there is one.

        Raises:
            DivergedError: Loss or gradients were not finite. The error is the same on all processes.
        """
        if self._waiting is not None:
            step, self._waiting = self._waiting, None
            yield step.read(self._per_epoch, since_s=self._handed_out_s)
            self._handed_out_s = time.perf_counter()


def _reads_late(device: torch.device) -> bool:
    return device.type == "cuda"


def _refuse(ids: Sequence[str], step: int, what: str, value: float) -> DivergedError:
    more = f" and {len(ids) - 20} more" if len(ids) > 20 else ""
    return DivergedError(
        f"the {what} of step {step + 1} is {value}; the step was not made. Its records: {', '.join(ids[:20])}{more}",
        where="train",
        hint="Lower train.learning_rate, set train.clip_norm, or look at these rows; --resume continues before it.",
    )
