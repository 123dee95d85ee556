"""The attention kernels as functions over tensors, with the shape letters and layouts of `calls`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from submillion.kernels.binding import AttentionStruct, address_of, functions
from submillion.kernels.calls import Mask, mask_fields


@dataclass(frozen=True, eq=False)
class DistanceTable:
    """A bias on attention scores that depends on the head and on the distance between query and key.

    Attributes:
        entries: Shape (heads, W), float32, times log2(e): the bias of query minus key at ``centre + query - key``.
            It has 15 more entries than the largest distance needs, since 16 queries are read at once.
        centre: Index of distance 0; records have at most ``centre + 1`` tokens.
    """

    entries: torch.Tensor
    centre: int


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One attention pass over packed records.

    Attributes:
        qkv: Shape (N, 3 * H), with queries, keys and values side by side.
        num_heads: Number of heads.
        scaling: Factor on the scores.
        offsets: Shape (B + 1,), int64; record boundaries in ascending order of length.
        mask: Dropout of the weights.
        maxima: Largest score of each query, shape (heads, N), float32; `attend` writes it for `attend_backward`. Or
            None.
        inverses: Inverse of each query's softmax sum, in the same form as `maxima`.
        bias: Bias added to the scores; None for no bias.
    """

    qkv: torch.Tensor
    num_heads: int
    scaling: float
    offsets: torch.Tensor
    mask: Mask | None
    maxima: torch.Tensor | None
    inverses: torch.Tensor | None
    bias: DistanceTable | None = None

    def as_struct(self) -> ctypes.Structure:
        """Return the kernels' view, which is valid while this object lives."""
        num_tokens, width = self.qkv.shape
        row_keys, pair_keys, probability = mask_fields(self.mask)
        return AttentionStruct(
            *(self.qkv.data_ptr(), self.num_heads, width // (3 * self.num_heads), self.scaling),
            *(self.offsets.data_ptr(), len(self.offsets) - 1, num_tokens),
            *(address_of(self.maxima), address_of(self.inverses), row_keys, pair_keys),
            *(0 if self.mask is None else self.mask.pair_keys.shape[1], probability),
            *((None, 0, 0) if self.bias is None else (address_of(self.bias.entries), *self._place_bias())),
        )

    def _place_bias(self) -> tuple[int, int]:
        assert self.bias is not None
        entries, centre = self.bias.entries, self.bias.centre
        assert entries.dtype == torch.float32
        assert entries.is_contiguous()
        assert entries.shape[0] == self.num_heads
        assert entries.shape[1] >= 2 * centre + 16
        return entries.shape[1], centre


def attend(call: AttentionCall) -> torch.Tensor:
    """Return softmax(q k^T scaling + bias) v within records, (N, H)."""
    out = call.qkv.new_empty(len(call.qkv), call.qkv.shape[1] // 3)
    functions()["attention"](ctypes.byref(call.as_struct()), out.data_ptr())
    return out


def attend_backward(call: AttentionCall, out: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Return the gradient of qkv, (N, 3 * H)."""
    assert grad.is_contiguous()
    grad_qkv = torch.empty_like(call.qkv)
    functions()["attention_backward"](
        ctypes.byref(call.as_struct()), out.data_ptr(), grad.data_ptr(), grad_qkv.data_ptr()
    )
    return grad_qkv
