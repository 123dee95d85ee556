"""Biases on attention scores that depend only on the head and on the distance between query and key.

MPNet (Song et al., arXiv 2004.09297) has one such table for all layers, by T5's buckets (Raffel et al., arXiv
1910.10683, section 2.1): each near distance has its own bucket, and far ones share buckets that grow logarithmically.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from submillion.budget.families import get_family
from submillion.errors import ModelError
from submillion.kernels.attention import DistanceTable
from submillion.model.config_facts import first_position, read_sizes
from submillion.model.untyped import Stock

_LANES = 16
"""Number of queries that the kernels read at once, and so of entries that they may read past the last distance."""


@dataclass(frozen=True, eq=False)
class DistanceBias:
    """A bias for every head and distance.

    Attributes:
        entries: Shape (heads, 2 * reach - 1), float32; the bias of key minus query at ``reach - 1 + key - query``.
        reach: Tokens of the longest record.
    """

    entries: torch.Tensor
    reach: int

    def spread(self, length: int) -> torch.Tensor:
        """Return the bias of every query (rows) and key (columns) of a record, shape (heads, length, length).

        Raises:
            ModelError: The record is longer than the table reaches.
        """
        if length > self.reach:
            raise ModelError(
                f"a record has {length:,} tokens, the model's attention bias reaches {self.reach:,}",
                hint="Lower model.max_length.",
            )
        windows = self.entries.unfold(1, length, 1)[:, self.reach - length : self.reach]
        return windows.flip(1)

    @cached_property
    def table(self) -> DistanceTable:
        """The same table for the CPU kernels."""
        by_query = self.entries.flip(1) * math.log2(math.e)
        return DistanceTable(torch.nn.functional.pad(by_query, (0, _LANES - 1)).contiguous(), self.reach - 1)


def read_distance_bias(config: Stock, weight: torch.Tensor, *, num_positions: int) -> DistanceBias:
    """Return the bias that an encoder's table gives each distance.

    Args:
        config: The encoder's configuration; its family has a `PositionBias`.
        weight: The table, shape (buckets, heads).
        num_positions: Number of the encoder's positions, which bounds the length of a record.

    Raises:
        ModelError: The table has another number of buckets or heads than the configuration says.
    """
    facts = get_family(config.model_type).position_bias
    assert facts is not None
    wanted = (facts.num_buckets, read_sizes(config)[2])
    if tuple(weight.shape) != wanted:
        raise ModelError(
            f"the table of attention biases has shape {tuple(weight.shape)}, the model needs {wanted}",
            where=facts.table,
            hint="The numbers of buckets or heads differ. Get config.json and the weights of one model again.",
        )
    reach = num_positions - first_position(config)
    distances = torch.arange(1 - reach, reach, device=weight.device)
    buckets = assign_buckets(distances, num_buckets=facts.num_buckets, max_distance=facts.max_distance)
    return DistanceBias(weight.detach().float()[buckets].t().contiguous(), reach)


def assign_buckets(distances: torch.Tensor, *, num_buckets: int, max_distance: int) -> torch.Tensor:
    """Return the bucket of each distance (key minus query), int64, by T5's rule for both directions.

    Args:
        distances: Any shape, int64.
        num_buckets: Buckets of both directions together, a multiple of 4.
        max_distance: Distance from which all larger ones share the last bucket.
    """
    half = num_buckets // 2
    exact = half // 2
    size = distances.abs()
    # This is computed in float32, as published: at the borders of buckets, another rounding gives another bucket.
    far = torch.log(size.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (half - exact)
    shared = (exact + far.to(torch.int64)).clamp(max=half - 1)
    return torch.where(size < exact, size, shared) + half * (distances > 0).to(torch.int64)
