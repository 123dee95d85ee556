"""Parameter groups, AdamW, schedules and the moving average of the trained parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from submillion.config.run import Schedule, TrainConfig

GroupName = Literal["adapter_a", "adapter_b", "head", "bias"]


def find_group(name: str) -> GroupName:
    """Return the group of a trained parameter by its name in the classifier."""
    if ".lora_A." in name:
        return "adapter_a"
    if ".lora_B." in name or ".lora_magnitude_vector" in name:
        return "adapter_b"
    if name.startswith("head.") or ".modules_to_save." in name:
        return "head"
    return "bias"


def build_optimizer(parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov & Hutter, arXiv 1711.05101) with one learning rate per group.

    Vectors (biases and DoRA magnitudes) are not decayed. Each group has a ``name`` and a ``peak``, the learning rate
    that the schedule scales.

    Args:
        parameters: The trained parameters by name.
        config: Learning rates and decay.
    """
    rates = {
        "adapter_a": config.learning_rate,
        "adapter_b": config.learning_rate_b or config.learning_rate,
        "head": config.head_learning_rate or config.learning_rate,
        "bias": config.bias_learning_rate or config.learning_rate,
    }
    members: dict[tuple[GroupName, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        members.setdefault((find_group(name), parameter.dim() >= 2), []).append(parameter)
    groups = [
        {
            "params": group,
            "name": name,
            "peak": rates[name],
            "lr": rates[name],
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (name, decays), group in members.items()
    ]
    return torch.optim.AdamW(groups, betas=config.betas, eps=config.epsilon, fused=True)


def count_warmup_steps(config: TrainConfig, num_steps: int) -> int:
    """Return the number of warmup steps; the ratio is rounded up."""
    if config.warmup_steps is not None:
        return min(config.warmup_steps, num_steps)
    return math.ceil(config.warmup_ratio * num_steps)


def schedule_factor(step: int, *, num_steps: int, warmup_steps: int, schedule: Schedule, num_cycles: int = 1) -> float:
    """Return the share of the peak learning rate that a step uses, in [0, 1].

    A linear warmup is followed by the schedule over the remaining steps. ``cosine`` is half a cosine period and
    ``cosine_restarts`` repeats it `num_cycles` times (Loshchilov & Hutter, arXiv 1608.03983, section 3).

    Args:
        step: Number of the coming step, from 0.
        num_steps: Number of steps of the whole run.
        warmup_steps: Number of steps of linear warmup; the first step's rate is already above 0.
        schedule: Schedule after warmup.
        num_cycles: Number of cycles of cosine_restarts.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    if progress >= 1.0:
        return 0.0 if schedule != "constant" else 1.0
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule == "cosine_restarts":
        return 0.5 * (1.0 + math.cos(math.pi * ((progress * num_cycles) % 1.0)))
    return 1.0


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Scale every group's peak learning rate, and return the rates by group name."""
    rates = {}
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
        rates[str(group["name"])] = float(group["lr"])
    return rates


class LearningRates:
    """The learning rates of a run, step by step.

    Args:
        optimizer: Optimizer from `build_optimizer`.
        config: Training settings.
        num_steps: Number of steps of the whole run.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainConfig, num_steps: int) -> None:
        self._optimizer = optimizer
        self._config = config
        self._num_steps = num_steps
        self._warmup_steps = count_warmup_steps(config, num_steps)

    def set(self, step: int) -> dict[str, float]:
        """Set the rates of a step, counted from 0, and return them by group name."""
        factor = schedule_factor(
            step,
            num_steps=self._num_steps,
            warmup_steps=self._warmup_steps,
            schedule=self._config.schedule,
            num_cycles=self._config.num_cycles,
        )
        return set_learning_rates(self._optimizer, factor)


def step_where_finite(optimizer: torch.optim.Optimizer, is_finite: torch.Tensor) -> None:
    """Make an optimizer step if a flag on the device is set, without waiting for the device.

    Args:
        optimizer: A fused optimizer, whose kernel reads the flag as it does for torch's GradScaler. If the flag is not
            set, parameters, moments and step counts are unchanged.
        is_finite: Shape (), bool, on the parameters' device.
    """
    asked: Any = optimizer
    asked.found_inf = (~is_finite).float()
    optimizer.step()


class MovingAverage:
    """Exponential moving average of the trained parameters.

    The decay of update t (from 0) is ``min(decay, (1 + t) / (10 + t))``, so that early values fade quickly
    (the rule of TensorFlow's ExponentialMovingAverage).

    Args:
        parameters: The trained parameters by name.
        decay: Largest decay, in [0, 1).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._parameters = dict(parameters)
        self.values = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def update(self) -> None:
        """Update the averages with the parameters after an optimizer step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages = list(self.values.values())
        current = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(averages, current, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the parameters by the averages while the block runs."""
        kept = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._copy(self.values)
        try:
            yield
        finally:
            self._copy(kept)

    def _copy(self, values: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(values[name])
