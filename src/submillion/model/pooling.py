"""Pooling of packed states to one state per record."""

from __future__ import annotations

import torch


def pool_first(hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return each record's first state, float32 (B, H), from packed states (N, H)."""
    return hidden.index_select(0, offsets[:-1]).float()


def pool_mean(hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the mean of each record's states, float32 (B, H), from packed states (N, H)."""
    lengths = offsets.diff()
    num_records = len(lengths)
    # Filler tokens count as one more record, so that the number of tokens is known without waiting for a GPU.
    filler = len(hidden) - offsets[-1:]
    records = torch.repeat_interleave(
        torch.arange(num_records + 1, device=hidden.device), torch.cat([lengths, filler]), output_size=len(hidden)
    )
    sums = torch.zeros(num_records + 1, hidden.shape[1], dtype=torch.float32, device=hidden.device)
    return sums.index_add(0, records, hidden.float())[:num_records] / lengths[:, None]
