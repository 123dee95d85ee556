"""Attention with a bias by distance on packed batches, for encoders that compute theirs outside the AttentionInterface.

MPNet is the only family of this kind. Its stock encoder expands the bias to all pairs of tokens and passes it to every
layer. On packed batches, the record boundaries and the bias by distance are passed in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.mpnet.modeling_mpnet import MPNetModel, MPNetSelfAttention

from submillion.budget.families import get_family
from submillion.model.distance_bias import DistanceBias, read_distance_bias
from submillion.model.packed_attention import PackedLayout, packed_attention
from submillion.model.untyped import Stock


def replace_attention(encoder: Stock) -> None:
    """Let the attention of a stock encoder see record boundaries, if its family has a bias by distance.

    Args:
        encoder: The stock encoder; it is changed in place, and its parameters stay as they are.

    Raises:
        ModelError: The table of biases has another number of buckets or heads than the configuration says.
    """
    if get_family(encoder.config.model_type).position_bias is None:
        return
    assert type(encoder) is MPNetModel
    _read_bias(encoder)  # refuse a table of another size here, not in the middle of a run
    encoder.__class__ = _PackedModel
    for module in encoder.modules():
        if type(module) is MPNetSelfAttention:
            module.__class__ = _PackedSelfAttention


def _read_bias(encoder: MPNetModel) -> DistanceBias:
    return read_distance_bias(
        encoder.config,
        encoder.encoder.relative_attention_bias.weight,
        num_positions=encoder.embeddings.position_embeddings.num_embeddings,
    )


@dataclass(frozen=True, eq=False)
class _Places:
    """Record boundaries and bias, which layers pass to their attention instead of a bias for all pairs of tokens."""

    layout: PackedLayout | None
    bias: DistanceBias


class _PackedModel(MPNetModel):
    """The encoder over packed records."""

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        packed_layout: PackedLayout | None = None,
    ) -> BaseModelOutput:
        places = _Places(packed_layout, _read_bias(self))
        states = self.embeddings(input_ids=input_ids, position_ids=position_ids)
        for layer in self.encoder.layer:
            states = layer(states, position_bias=places)[0]
        return BaseModelOutput(last_hidden_state=states)


class _PackedSelfAttention(MPNetSelfAttention):
    """Attention within records."""

    def forward(  # type: ignore[override]  # the third input is no tensor
        self, hidden_states: torch.Tensor, attention_mask: None = None, position_bias: Stock = None, **_: object
    ) -> tuple[torch.Tensor]:
        places: _Places = position_bias
        shape = (*hidden_states.shape[:-1], -1, self.attention_head_size)
        query, key, value = (part(hidden_states).view(shape).transpose(1, 2) for part in (self.q, self.k, self.v))
        dropout = self.dropout.p if self.training else 0.0
        context, _weights = packed_attention(
            self, query, key, value, None, dropout=dropout, packed_layout=places.layout, bias=places.bias
        )
        return (self.o(context.flatten(2)),)
