"""Classification heads on packed encoder states: the architecture's own, or one linear layer.

Heads run in float32 on one state per record. `budget.heads` knows their shapes; this module knows how to apply them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from submillion.errors import ModelError
from submillion.model.pooling import pool_first, pool_mean


class LinearHead(nn.Module):
    """One linear layer on the pooled state.

    Args:
        hidden_size: H.
        num_labels: C.
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


def _apply_token_head(model: Any, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    # These heads take (B, T, H) and read the first state themselves.
    return _as_tensor(model.classifier(pool_first(hidden, offsets)[:, None]))


def _apply_bert(model: Any, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    pooled = model.bert.pooler(pool_first(hidden, offsets)[:, None])
    return _as_tensor(model.classifier(model.dropout(pooled)))


def _apply_distilbert(model: Any, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    pooled = torch.relu(model.pre_classifier(pool_first(hidden, offsets)))
    return _as_tensor(model.classifier(model.dropout(pooled)))


def _apply_deberta(model: Any, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    pooled = model.pooler(pool_first(hidden, offsets)[:, None])
    return _as_tensor(model.classifier(model.dropout(pooled)))


def _apply_albert(model: Any, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    albert = model.albert
    pooled = albert.pooler_activation(albert.pooler(pool_first(hidden, offsets)))
    return _as_tensor(model.classifier(model.dropout(pooled)))


def _apply_modernbert(model: Any, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    pool = pool_first if model.config.classifier_pooling == "cls" else pool_mean
    return _as_tensor(model.classifier(model.drop(model.head(pool(hidden, offsets)))))


def _as_tensor(value: Any) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)
    return value


NATIVE_HEADS: dict[str, Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "albert": _apply_albert,
    "bert": _apply_bert,
    "camembert": _apply_token_head,
    "deberta": _apply_deberta,
    "deberta-v2": _apply_deberta,
    "distilbert": _apply_distilbert,
    "electra": _apply_token_head,
    "modernbert": _apply_modernbert,
    "mpnet": _apply_token_head,
    "roberta": _apply_token_head,
    "xlm-roberta": _apply_token_head,
}


def find_native_head(family: str) -> Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the function (stock model, states (N, H), offsets (B+1,)) -> logits (B, C) of a family.

    Raises:
        ModelError: The family's head is not known.
    """
    try:
        return NATIVE_HEADS[family]
    except KeyError:
        raise ModelError(
            f"no native head is known for {family!r}",
            where="model.head",
            hint=f"Use model.head=linear, or one of: {', '.join(sorted(NATIVE_HEADS))}.",
        ) from None
