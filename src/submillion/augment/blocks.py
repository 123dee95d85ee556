"""Whole rows packed into blocks of equal length with little padding, so that no row sees another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

IGNORED = -100
"""Torch's label of positions without a loss."""

OPEN_BLOCKS = 64
"""Number of blocks that stay open for further rows; news then leaves about one position in fifty empty."""


@dataclass(frozen=True)
class Blocks:
    """Rows in blocks; shapes (blocks, tokens), int64.

    Attributes:
        input_ids: Token ids; the end token at empty positions.
        segments: Number of the row in its block, from 1; 0 at empty positions.
        positions: Position of each token in its row.
        num_cut: Number of rows that were longer than a block and lost their end.
    """

    input_ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    positions: NDArray[np.int64]
    num_cut: int

    def __len__(self) -> int:
        return len(self.input_ids)


def pack_rows(rows: Sequence[Sequence[int]], *, block_tokens: int, fill_id: int) -> Blocks:
    """Put rows into blocks, each into the first open one with room for it (first fit).

    Args:
        rows: Token ids, start and end token included; none is empty.
        block_tokens: Number of tokens in a block; longer rows are cut.
        fill_id: Token for empty positions.
    """
    blocks: list[list[Sequence[int]]] = []
    free: list[int] = []
    num_cut = 0
    first_open = 0
    for row in rows:
        piece = row[:block_tokens]
        num_cut += len(row) > block_tokens
        place = next((n for n in range(first_open, len(blocks)) if free[n] >= len(piece)), None)
        if place is None:
            place = len(blocks)
            blocks.append([])
            free.append(block_tokens)
            first_open = max(0, len(blocks) - OPEN_BLOCKS)
        blocks[place].append(piece)
        free[place] -= len(piece)
    shape = (len(blocks), block_tokens)
    input_ids, segments, positions = np.full(shape, fill_id, np.int64), np.zeros(shape, np.int64), np.zeros(shape, int)
    for number, block in enumerate(blocks):
        begin = 0
        for segment, piece in enumerate(block, start=1):
            part = slice(begin, begin + len(piece))
            input_ids[number, part] = piece
            segments[number, part] = segment
            positions[number, part] = np.arange(len(piece))
            begin += len(piece)
    return Blocks(input_ids, segments, positions, num_cut)


def make_block_mask(segments: torch.Tensor) -> torch.Tensor:
    """Return the attention mask by which each token sees the earlier tokens of its segment and itself.

    Args:
        segments: Segment of each token, shape (B, T).

    Returns:
        Whether a query sees a key, shape (B, 1, T, T), bool.
    """
    size = segments.shape[1]
    is_same = segments[:, :, None] == segments[:, None, :]
    is_earlier = torch.ones(size, size, dtype=torch.bool, device=segments.device).tril()
    return (is_same & is_earlier)[:, None]


def make_targets(input_ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Return the next token of each position, or -100 at the end of a row; shape (B, T)."""
    targets = torch.full_like(input_ids, IGNORED)
    goes_on = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    targets[:, :-1] = torch.where(goes_on, input_ids[:, 1:], targets[:, :-1])
    return targets
