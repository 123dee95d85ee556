"""Layers whose states are computed once more in the backward pass instead of being kept: less memory, more time.

T. Chen et al., "Training deep nets with sublinear memory cost" (arXiv 1604.06174), section 4, with one segment a
layer. Dropout masks are functions of keys, so what is computed again is the same to the last bit, and no state of a
random generator has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from submillion.model.dropout import DropoutState


def recompute_layers(encoder: nn.Module, state: DropoutState) -> int:
    """Let every layer of a stock encoder keep only its input in training; return the number of layers.

    Args:
        encoder: A stock transformers encoder, adapters included.
        state: Of its dropout.
    """
    layers = list(_iter_layers(encoder))
    for layer in layers:
        layer.forward = _Recomputed(layer, layer.forward, state)
    return len(layers)


def _iter_layers(encoder: nn.Module) -> Iterator[Any]:
    # All families keep their layers in lists; ALBERT's groups, lists of layers themselves, are no layers.
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList):
            yield from (item for item in module if not any(isinstance(part, nn.ModuleList) for part in item.modules()))


class _Recomputed:
    """A layer's forward pass that leaves only its input for the backward pass."""

    def __init__(self, layer: nn.Module, forward: Any, state: DropoutState) -> None:
        self._layer = layer
        self._forward = forward
        self._state = state

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        if not (self._layer.training and torch.is_grad_enabled()):
            return self._forward(*inputs, **settings)
        num_calls, is_again = dict(self._state.num_calls), False

        def run(*inputs: Any, **settings: Any) -> Any:
            nonlocal is_again
            if not is_again:
                is_again = True
                return self._forward(*inputs, **settings)
            with self._state.replaying(num_calls):
                return self._forward(*inputs, **settings)

        return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False, **settings)
