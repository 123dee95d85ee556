"""From packed states to one state a record."""

from __future__ import annotations

import torch


def pool_first(hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return each record's first state, float32 (B, H), from packed states (N, H)."""
    return hidden.index_select(0, offsets[:-1]).float()


def pool_mean(hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the mean of each record's states, float32 (B, H), from packed states (N, H)."""
    lengths = offsets.diff()
    records = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
    sums = torch.zeros(len(lengths), hidden.shape[1], dtype=torch.float32, device=hidden.device)
    sums = sums.index_add(0, records, hidden[: len(records)].float())
    return sums / lengths[:, None]
