"""Classification heads on packed encoder states: the architecture's native head, or one linear layer.

Heads run in float32 on one state per record. `budget.families` says which family has which head and `budget.heads`
gives their shapes. This module applies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from submillion.budget.families import HeadForm
from submillion.model.pooling import pool_first, pool_mean
from submillion.model.untyped import Stock


class LinearHead(nn.Module):
    """One linear layer on the pooled state.

    Args:
        hidden_size: Width H of a state.
        num_labels: Number of classes C.
        dropout: Probability on the pooled state.
    """

    def __init__(self, hidden_size: int, num_labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, num_labels)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return logits (B, C) from pooled states (B, H)."""
        logits: torch.Tensor = self.linear(self.dropout(pooled))
        return logits


def _apply_token_head(model: Stock, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    # These heads take (B, T, H) and read the first state themselves.
    return _as_tensor(model.classifier(pool_first(hidden, offsets)[:, None]))


def _apply_pooler_head(model: Stock, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    pooled = model.base_model.pooler(pool_first(hidden, offsets)[:, None])
    return _as_tensor(model.classifier(model.dropout(pooled)))


def _apply_pre_classifier_head(model: Stock, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    pooled = torch.relu(model.pre_classifier(pool_first(hidden, offsets)))
    return _as_tensor(model.classifier(model.dropout(pooled)))


def _apply_context_pooler_head(model: Stock, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    pooled = model.pooler(pool_first(hidden, offsets)[:, None])
    return _as_tensor(model.classifier(model.dropout(pooled)))


def _apply_plain_pooler_head(model: Stock, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    # In this encoder, the pooler is a linear layer and its activation is a separate attribute.
    encoder = model.base_model
    pooled = encoder.pooler_activation(encoder.pooler(pool_first(hidden, offsets)))
    return _as_tensor(model.classifier(model.dropout(pooled)))


def _apply_prediction_head(model: Stock, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    pool = pool_first if model.config.classifier_pooling == "cls" else pool_mean
    return _as_tensor(model.classifier(model.drop(model.head(pool(hidden, offsets)))))


def _as_tensor(value: Stock) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)
    return value


NATIVE_HEADS: Mapping[HeadForm, Callable[[Stock, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "token": _apply_token_head,
    "pooler": _apply_pooler_head,
    "plain_pooler": _apply_plain_pooler_head,
    "context_pooler": _apply_context_pooler_head,
    "pre_classifier": _apply_pre_classifier_head,
    "prediction": _apply_prediction_head,
}
"""Functions (stock model, states (N, H), offsets (B+1,)) -> logits (B, C), by `Family.head`."""
