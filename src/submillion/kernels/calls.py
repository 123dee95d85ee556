"""The kernels as functions over tensors.

Shape letters: N tokens, K inner length, O output columns, R ranks, H hidden. All tensors are on the CPU, and token rows
are contiguous bfloat16 unless a docstring says otherwise. Callers guarantee the shapes (`supports` says which are
possible).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from submillion.errors import ModelError
from submillion.kernels.binding import NormStruct, address_of, functions, reference_to
from submillion.kernels.weights import Int8Weight, LowRank, PackedWeight

_COLUMN_MULTIPLE = 32


def supports(hidden_size: int, intermediate_size: int, num_heads: int) -> bool:
    """Return whether an encoder's sizes fit the kernels' registers."""
    sizes = (hidden_size, intermediate_size, hidden_size // num_heads)
    return hidden_size % num_heads == 0 and all(size % _COLUMN_MULTIPLE == 0 for size in sizes)


def linear(
    x: torch.Tensor,
    weight: PackedWeight | Int8Weight,
    *,
    bias: torch.Tensor | None = None,
    low_rank: LowRank | None = None,
    added: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return x W^T (+ low-rank term) (+ bias) (+ added), (N, O).

    Args:
        x: Shape (N, K); rows may be slices of wider rows.
        weight: Packed weight; with 8-bit integers, only a bias may be given besides.
        bias: Shape (O,), float32.
        low_rank: Low-rank term to add.
        added: Tensor to add, shape (N, O), contiguous.
        out: Tensor to write to; its rows may be slices of wider rows.
    """
    if isinstance(weight, Int8Weight):
        return _int8_linear(x, weight, bias)
    if out is None:
        out = x.new_empty(len(x), weight.columns)
    assert x.shape[1] == weight.inner
    assert x.stride(1) == 1
    assert out.stride(1) == 1
    assert added is None or added.stride() == out.stride()
    term = None if low_rank is None else low_rank.as_struct()
    functions()["linear"](
        *(x.data_ptr(), x.stride(0), len(x), weight.inner, weight.words.data_ptr(), weight.columns),
        *(address_of(bias), reference_to(term), address_of(added), out.data_ptr(), out.stride(0)),
    )
    return out


def linear_gelu(
    x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor, low_rank: LowRank | None = None, *, keep_slope: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return gelu(x W^T + bias + low-rank term) and, if wanted, gelu's derivative there; both (N, O)."""
    out = x.new_empty(len(x), weight.columns)
    slope = torch.empty_like(out) if keep_slope else None
    term = None if low_rank is None else low_rank.as_struct()
    functions()["linear_gelu"](
        *(x.data_ptr(), len(x), weight.inner, weight.words.data_ptr(), weight.columns),
        *(bias.data_ptr(), reference_to(term), address_of(slope), out.data_ptr()),
    )
    return out, slope


def linear_times(x: torch.Tensor, weight: PackedWeight, low_rank: LowRank | None, factor: torch.Tensor) -> torch.Tensor:
    """Return (x W^T + low-rank term) * factor, (N, O)."""
    out = torch.empty_like(factor)
    term = None if low_rank is None else low_rank.as_struct()
    functions()["linear_times"](
        *(x.data_ptr(), len(x), weight.inner, weight.words.data_ptr(), weight.columns),
        *(reference_to(term), factor.data_ptr(), out.data_ptr()),
    )
    return out


@dataclass(frozen=True, eq=False)
class Mask:
    """Keep masks of one dropout site.

    Attributes:
        row_keys: One key per token, int32.
        pair_keys: One key per pair of columns, int32; for attention, shape (heads, pairs of keys).
        probability: Share of elements dropped.
    """

    row_keys: torch.Tensor
    pair_keys: torch.Tensor
    probability: float


def mask_fields(mask: Mask | None) -> tuple[int | None, int | None, float]:
    """Return a mask as fields of the kernels' structures; without a mask, nothing is dropped."""
    return (
        (None, None, 0.0) if mask is None else (mask.row_keys.data_ptr(), mask.pair_keys.data_ptr(), mask.probability)
    )


@dataclass(frozen=True, eq=False)
class NormResult:
    """Result of `linear_norm`. The last two are for the backward pass, or None.

    Attributes:
        out: The normed states, shape (N, O).
        normalised: States before the norm's weight and bias, shape (N, O).
        inverse_deviations: Inverse standard deviations, shape (N,), float32.
    """

    out: torch.Tensor
    normalised: torch.Tensor | None
    inverse_deviations: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Norm:
    """Weight, bias and epsilon of a LayerNorm, float32 (H,)."""

    weight: torch.Tensor
    bias: torch.Tensor
    epsilon: float


def linear_norm(
    x: torch.Tensor,
    weight: PackedWeight | Int8Weight,
    *,
    bias: torch.Tensor,
    residual: torch.Tensor,
    norm: Norm,
    low_rank: LowRank | None = None,
    mask: Mask | None = None,
    keep_normalised: bool = False,
) -> NormResult:
    """Return norm(drop(x W^T + bias + low-rank term) + residual)."""
    result, struct = _start_norm(residual, norm, mask, keep_normalised=keep_normalised)
    if isinstance(weight, Int8Weight):
        functions()["int8_linear_norm"](
            x.data_ptr(), len(x), ctypes.byref(weight.as_struct()), bias.data_ptr(), ctypes.byref(struct)
        )
    else:
        term = None if low_rank is None else low_rank.as_struct()
        functions()["linear_norm"](
            *(x.data_ptr(), len(x), weight.inner, weight.words.data_ptr(), weight.columns),
            *(bias.data_ptr(), reference_to(term), ctypes.byref(struct)),
        )
    return result


def ffn_norm(
    x: torch.Tensor,
    weight_in: PackedWeight,
    weight_out: PackedWeight,
    *,
    bias_in: torch.Tensor,
    bias_out: torch.Tensor,
    norm: Norm,
    low_rank_in: LowRank | None = None,
    mask: Mask | None = None,
    is_kept: bool = False,
) -> tuple[NormResult, torch.Tensor | None]:
    """Return norm(drop(gelu(x Wi^T + low-rank term + bias) Wf^T + bias) + x) and, if kept, gelu's derivative.

    It equals `linear_gelu` followed by `linear_norm`, but the inner states are never written to memory.
    """
    result, struct = _start_norm(x, norm, mask, keep_normalised=is_kept)
    slope = x.new_empty(len(x), weight_in.columns) if is_kept else None
    term = None if low_rank_in is None else low_rank_in.as_struct()
    functions()["ffn_norm"](
        *(x.data_ptr(), len(x), weight_in.inner, weight_in.words.data_ptr(), weight_in.columns),
        *(bias_in.data_ptr(), reference_to(term), address_of(slope)),
        *(weight_out.words.data_ptr(), bias_out.data_ptr(), ctypes.byref(struct)),
    )
    return result, slope


def int8_ffn_norm(
    x: torch.Tensor,
    weight_in: Int8Weight,
    weight_out: Int8Weight,
    *,
    bias_in: torch.Tensor,
    bias_out: torch.Tensor,
    norm: Norm,
) -> torch.Tensor:
    """Return `ffn_norm`'s states with weights of 8-bit integers."""
    result, struct = _start_norm(x, norm, None, keep_normalised=False)
    first, second = weight_in.as_struct(), weight_out.as_struct()
    functions()["int8_ffn_norm"](
        *(x.data_ptr(), len(x), ctypes.byref(first), bias_in.data_ptr()),
        *(ctypes.byref(second), bias_out.data_ptr(), ctypes.byref(struct)),
    )
    return result.out


def ffn_backward(
    grad: torch.Tensor, weight_out: PackedWeight, slope: torch.Tensor, weight_in: PackedWeight, added: torch.Tensor
) -> torch.Tensor:
    """Return ((grad Wf) * slope) Wi + added, (N, H): the gradient of `ffn_norm`'s x if nothing in between trains.

    Args:
        grad: Gradient of the second product, shape (N, H).
        weight_out: Wf, packed as its transpose.
        slope: Derivative of gelu from `ffn_norm`, shape (N, O).
        weight_in: Wi, packed as its transpose.
        added: Gradient of x through the residual, shape (N, H).
    """
    out = torch.empty_like(grad)
    functions()["ffn_backward"](
        *(grad.data_ptr(), len(grad), grad.shape[1], weight_out.words.data_ptr(), weight_out.columns),
        *(slope.data_ptr(), weight_in.words.data_ptr(), added.data_ptr(), out.data_ptr()),
    )
    return out


def _start_norm(
    residual: torch.Tensor, norm: Norm, mask: Mask | None, *, keep_normalised: bool
) -> tuple[NormResult, ctypes.Structure]:
    result = NormResult(
        out=torch.empty_like(residual),
        normalised=torch.empty_like(residual) if keep_normalised else None,
        inverse_deviations=torch.empty(len(residual), dtype=torch.float32) if keep_normalised else None,
    )
    struct = NormStruct(
        *(residual.data_ptr(), norm.weight.data_ptr(), norm.bias.data_ptr(), norm.epsilon),
        *(address_of(result.normalised), address_of(result.inverse_deviations), result.out.data_ptr()),
        *mask_fields(mask),
    )
    return result, struct


def norm_backward(
    grad: torch.Tensor, result: NormResult, norm: Norm, mask: Mask | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of `linear_norm`'s residual and product, which are one tensor if nothing was dropped."""
    assert result.normalised is not None
    assert result.inverse_deviations is not None
    assert grad.is_contiguous()
    grad_residual = torch.empty_like(grad)
    grad_product = None if mask is None else torch.empty_like(grad)
    functions()["norm_backward"](
        *(grad.data_ptr(), len(grad), grad.shape[1], result.normalised.data_ptr()),
        *(result.inverse_deviations.data_ptr(), norm.weight.data_ptr(), grad_residual.data_ptr()),
        *(address_of(grad_product), *mask_fields(mask)),
    )
    return grad_residual, grad_residual if grad_product is None else grad_product


def embed(
    ids: torch.Tensor,
    positions: torch.Tensor,
    *,
    words: torch.Tensor,
    places: torch.Tensor,
    norm: Norm,
    mask: Mask | None = None,
) -> torch.Tensor:
    """Return drop(norm(words[ids] + places[positions])), (N, H).

    Args:
        ids: Shape (N,), int64.
        positions: Shape (N,), int64.
        words: Shape (V, H).
        places: Shape (P, H), float32.
        norm: The norm over H.
        mask: Dropout after the norm.

    Raises:
        ModelError: An id or a position is beyond its table, so that other memory would be read.
    """
    for name, values, table in (("token", ids, words), ("position", positions, places)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < len(table):
            raise ModelError(
                f"{name} ids reach {int(values.max())}, the model's table has {len(table)} rows",
                hint="The tokenizer belongs to another model, or texts are longer than this one can read.",
            )
    out = words.new_empty(len(ids), words.shape[1])
    struct = NormStruct(
        *(None, norm.weight.data_ptr(), norm.bias.data_ptr(), norm.epsilon),
        *(None, None, out.data_ptr(), *mask_fields(mask)),
    )
    functions()["embed"](
        *(ids.data_ptr(), positions.data_ptr(), len(ids), words.shape[1]),
        *(words.data_ptr(), places.data_ptr(), ctypes.byref(struct)),
    )
    return out


def drop_rows(x: torch.Tensor, mask: Mask, *, added_to: torch.Tensor | None = None) -> torch.Tensor:
    """Return drop(x), or add it to a tensor in place and return that tensor, (N, H)."""
    out = torch.empty_like(x) if added_to is None else added_to
    functions()["drop"](x.data_ptr(), len(x), x.shape[1], *mask_fields(mask), int(added_to is not None), out.data_ptr())
    return out


def outer(left: torch.Tensor, right: torch.Tensor, *, factor: float = 1.0) -> torch.Tensor:
    """Return factor * left^T right, float32 (R, O), summed over tokens in an order that depends only on the threads.

    Args:
        left: Shape (N, R); rows may be slices of wider rows.
        right: Shape (N, O), where O is a multiple of 32; rows may be slices of wider rows.
        factor: Factor on the sums.
    """
    ranks, columns = left.shape[1], right.shape[1]
    num_threads = torch.get_num_threads()
    partial = torch.empty(num_threads, ranks, columns)
    out = torch.empty(ranks, columns)
    functions()["outer"](
        *(left.data_ptr(), left.stride(0), ranks, right.data_ptr(), right.stride(0), columns),
        *(len(left), factor, num_threads, partial.data_ptr(), out.data_ptr()),
    )
    return out


def _int8_linear(x: torch.Tensor, weight: Int8Weight, bias: torch.Tensor | None) -> torch.Tensor:
    # Each row of x is rounded to 8 bits by its own range just before its product.
    out = x.new_empty(len(x), len(weight.scales))
    struct = weight.as_struct()
    functions()["int8_linear"](x.data_ptr(), len(x), ctypes.byref(struct), address_of(bias), out.data_ptr())
    return out
