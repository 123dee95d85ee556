"""Layers whose states are computed again in the backward pass instead of being kept, for less memory and more time.

T. Chen et al., "Training deep nets with sublinear memory cost" (arXiv 1604.06174), section 4, with one segment per
layer. Dropout masks are functions of keys, so the second pass gives the same bits, and no state of a random generator
has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from submillion.model.dropout import DropoutState
from submillion.model.untyped import Stock


def recompute_layers(encoder: nn.Module, state: DropoutState) -> int:
    """Make every layer of a stock encoder keep only its input in training, and return the number of layers.

    Args:
        encoder: A stock transformers encoder, adapters included.
        state: State of the encoder's dropout.
    """
    layers = list(_iter_layers(encoder))
    for layer in layers:
        layer.forward = _Recomputed(layer, layer.forward, state)
    return len(layers)


def _iter_layers(encoder: nn.Module) -> Iterator[Stock]:
    # All families keep their layers in lists. ALBERT's groups are lists of layers and do not count as layers.
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList):
            yield from (item for item in module if not any(isinstance(part, nn.ModuleList) for part in item.modules()))


class _Recomputed:
    """A layer's forward pass that leaves only its input for the backward pass."""

    def __init__(self, layer: nn.Module, forward: Stock, state: DropoutState) -> None:
        self._layer = layer
        self._forward = forward
        self._state = state

    def __call__(self, *inputs: Stock, **settings: Stock) -> Stock:
        if not (self._layer.training and torch.is_grad_enabled()):
            return self._forward(*inputs, **settings)
        num_calls, is_again = dict(self._state.num_calls), False

        def run(*inputs: Stock, **settings: Stock) -> Stock:
            nonlocal is_again
            if not is_again:
                is_again = True
                return self._forward(*inputs, **settings)
            with self._state.replaying(num_calls):
                return self._forward(*inputs, **settings)

        return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False, **settings)
