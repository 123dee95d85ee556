"""Weights in the kernels' layout: panels of 64 columns, pairs of bfloat16 or quads of int8 along the inner length.

Shape letters: N tokens, K inner length, O output columns, R ranks.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from submillion.kernels.binding import Int8Struct, LowRankStruct, functions

PANEL = 64
_REGISTER = 16


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight in the kernels' layout.

    Attributes:
        words: The packed words, int32.
        inner: Inner length K.
        columns: Number of columns O, rounded up to whole registers.
    """

    words: torch.Tensor
    inner: int
    columns: int


def pack_weight(weight: torch.Tensor, *, transposed: bool = False, factor: float = 1.0) -> PackedWeight:
    """Pack a weight (O, K) for products x W^T, or its transpose for products x W.

    Args:
        weight: Weight in bfloat16 or float32 with any strides; float32 is rounded to bfloat16.
        transposed: Whether the first axis is the inner one.
        factor: Factor on float32 weights, applied before rounding.
    """
    outer_axis, inner_axis = (1, 0) if transposed else (0, 1)
    columns, inner = weight.shape[outer_axis], weight.shape[inner_axis]
    column_stride, inner_stride = weight.stride(outer_axis), weight.stride(inner_axis)
    padded = -(-columns // _REGISTER) * _REGISTER
    words = torch.empty(((inner + 1) // 2) * padded, dtype=torch.int32)
    arguments = (weight.data_ptr(), inner, columns, inner_stride, column_stride)
    if weight.dtype == torch.bfloat16:
        assert factor == 1.0
        functions()["pack_bf16"](*arguments, words.data_ptr())
    else:
        assert weight.dtype == torch.float32
        functions()["pack_float"](*arguments, factor, words.data_ptr())
    return PackedWeight(words, inner, padded)


@dataclass(frozen=True, eq=False)
class LowRank:
    """A low-rank term of a product.

    Attributes:
        low: Shape (N, R), where R is a multiple of 16.
        weight: Packed weight, R x O.
        begin: First pair of ranks that serves each panel of 64 columns, int32.
        end: The pair after the last one of each panel, int32.
    """

    low: torch.Tensor
    weight: PackedWeight
    begin: torch.Tensor
    end: torch.Tensor

    def as_struct(self) -> ctypes.Structure:
        """Return the kernels' view, which is valid while this object lives."""
        return LowRankStruct(
            self.low.data_ptr(),
            self.low.stride(0),
            self.weight.words.data_ptr(),
            (self.weight.inner + 1) // 2,
            self.begin.data_ptr(),
            self.end.data_ptr(),
        )


def find_panel_ranks(spans: Sequence[tuple[int, int, int, int]], columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each panel the pairs of ranks that serve it, int32 begin and end.

    Args:
        spans: (first column, end column, first rank, number of ranks) of each adapter; first ranks are even.
        columns: Number of columns O.
    """
    begin, end = [], []
    for first in range(0, columns, PANEL):
        ranks = [(s[2] // 2, (s[2] + s[3] + 1) // 2) for s in spans if s[0] < first + PANEL and s[1] > first]
        begin.append(min((low for low, _ in ranks), default=0))
        end.append(max((high for _, high in ranks), default=0))
    return torch.tensor(begin, dtype=torch.int32), torch.tensor(end, dtype=torch.int32)


@dataclass(frozen=True, eq=False)
class Int8Weight:
    """A weight as 8-bit integers with one scale per column.

    Attributes:
        words: The packed words, int32.
        inner: Inner length K.
        scales: One scale per column, shape (O,), float32.
        sums: Sums of the integers over K, shape (O,), float32; the zero points of the activations multiply them.
    """

    words: torch.Tensor
    inner: int
    scales: torch.Tensor
    sums: torch.Tensor

    def as_struct(self) -> ctypes.Structure:
        """Return the kernels' view, which is valid while this object lives."""
        return Int8Struct(
            *(self.words.data_ptr(), self.inner, len(self.scales), self.scales.data_ptr(), self.sums.data_ptr())
        )


def quantise_weight(weight: torch.Tensor) -> Int8Weight:
    """Round a weight (O, K) to integers in [-127, 127], each row by its largest magnitude."""
    weight = weight.float()
    scales = (weight.abs().amax(dim=1) / 127.0).clamp_min(1e-20)
    values = torch.round(weight / scales[:, None]).to(torch.int8).contiguous()
    words = torch.empty(values.numel() // 4, dtype=torch.int32)
    functions()["pack_int8"](values.data_ptr(), weight.shape[1], weight.shape[0], words.data_ptr())
    return Int8Weight(words, weight.shape[1], scales, values.sum(dim=1).float())
