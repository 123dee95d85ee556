"""Loss scaling for fp16: it keeps small gradients from vanishing, and leaves out steps whose gradients overflow.

P. Micikevicius et al., "Mixed precision training" (arXiv 1710.03740), section 3.2. Rule and constants are those of
torch's GradScaler: the scale halves if gradients overflow, and doubles after 2,000 consecutive steps without an
overflow. All of it happens on the device, so that nothing waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

GROWTH_INTERVAL = 2000
LEAST_SCALE = 1.0
"""Gradients that overflow at this scale would also overflow without scaling, so the run ends in an error."""


@dataclass(frozen=True)
class ScalerState:
    """The state of loss scaling.

    Attributes:
        scale: Factor on the losses of the next step.
        num_good_steps: Number of steps without an overflow since the scale last changed.
    """

    scale: float = 2.0**16
    num_good_steps: int = 0


class LossScaler:
    """The factor on the losses of a run, and the rule of its changes.

    Args:
        device: Device of the trained parameters.
        state: State after an earlier part of the run.
        growth_interval: Number of consecutive steps without an overflow after which the scale doubles.
    """

    def __init__(
        self, device: torch.device, state: ScalerState | None = None, *, growth_interval: int = GROWTH_INTERVAL
    ) -> None:
        state = state or ScalerState()
        self._growth_interval = growth_interval
        self._num_good_steps = torch.tensor(state.num_good_steps, dtype=torch.int64, device=device)
        self.scale = torch.tensor(state.scale, dtype=torch.float32, device=device)
        """The factor, float32 (), on the device."""

    @property
    def state(self) -> ScalerState:
        """The state after the last step; reading it waits for the device."""
        return ScalerState(float(self.scale), int(self._num_good_steps))

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale of their losses."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, 1.0 / self.scale)

    def update(self, is_finite: torch.Tensor) -> None:
        """Set the scale of the next step.

        Args:
            is_finite: Whether the gradients of this step were finite, bool () on the device.
        """
        num_good_steps = (self._num_good_steps + 1) * is_finite
        grows = num_good_steps == self._growth_interval
        kept_or_doubled = torch.where(grows, self.scale * 2.0, self.scale)
        self.scale = torch.where(is_finite, kept_or_doubled, self.scale * 0.5)
        self._num_good_steps = num_good_steps * ~grows
