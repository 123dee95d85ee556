"""Attention over packed records, registered with transformers' AttentionInterface.

A packed batch is one row of N tokens; linear layers and norms see it whole. Only attention looks at the record
boundaries: it works on runs of records of equal length (`Batch.groups`), so no padding is ever computed.
Registered under `IMPLEMENTATION`; encoders that dispatch attention through the interface keep their own code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from submillion.encoding.batches import Batch, LengthGroup
from submillion.errors import ModelError
from submillion.model.distance_bias import DistanceBias
from submillion.model.dropout import DropoutState, KeyedDropout, attention_keep_mask, drop

IMPLEMENTATION = "submillion_packed"


@dataclass(frozen=True, eq=False)
class PackedLayout:
    """Record boundaries of the forward pass under way, as the attention function needs them."""

    groups: tuple[LengthGroup, ...]
    num_tokens: int
    state: DropoutState
    offsets: torch.Tensor

    @classmethod
    def from_batch(cls, batch: Batch, state: DropoutState) -> PackedLayout:
        """Take the boundaries of a packed batch; the filler, if any, is one more record in `offsets`."""
        offsets = batch.offsets
        if len(batch.input_ids) > batch.num_tokens:
            # Made once a pass and without a look at values on the device, for which a GPU would have to be waited for.
            offsets = torch.nn.functional.pad(offsets, (0, 1), value=len(batch.input_ids))
        return cls(batch.groups, batch.num_tokens, state, offsets)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed_layout: PackedLayout | None = None,
    sliding_window: int | None = None,
    bias: DistanceBias | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each record of a packed batch.

    Args:
        module: The attention layer.
        query: Shape (1, heads, N, D); key and value likewise.
        key: As query.
        value: As query.
        attention_mask: Always None; boundaries come from the layout.
        scaling: Factor on the scores; 1/sqrt(D) if absent.
        dropout: Probability on the attention weights; 0 outside of training.
        packed_layout: Record boundaries.
        sliding_window: Half-window plus one of local attention, or None.
        bias: Added to the scores; None for none.

    Returns:
        Shape (1, N, heads, D), and None for the weights.

    Raises:
        ModelError: Called without a layout, which would mix records.
    """
    if packed_layout is None:
        raise ModelError(
            f"{type(module).__name__} does not pass record boundaries to its attention",
            hint="This architecture cannot run packed; please report it with its config.json.",
        )
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    site = _attention_site(module) if dropout > 0.0 else 0
    arguments = (packed_layout, scaling, dropout, site, sliding_window, bias)
    # (1, heads, N, D) -> (N, heads, D): a view, since the projections are laid out so.
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if q.is_cuda and dropout == 0.0 and sliding_window is None and bias is None:
        return _attend_nested(q, k, v, packed_layout, scaling)[None], None
    apply: Any = _PackedAttention.apply
    out = apply(q, k, v, *arguments)
    return out[None], None


def _attention_site(module: torch.nn.Module) -> int:
    # The dropout of the probabilities is never called by interface attention; its site number is free to use.
    # Others are: ModernBERT's layers hold one that acts on their output.
    dropout = getattr(module, "dropout", None)
    if isinstance(dropout, KeyedDropout):
        return dropout.site
    layer = getattr(module, "layer_idx", None)
    if layer is None:
        raise ModelError(f"{type(module).__name__} has neither a dropout module nor a layer number")
    return 1_000_000 + int(layer)


def _attend_nested(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: PackedLayout, scaling: float
) -> torch.Tensor:
    # torch's jagged tensors dispatch to variable-length flash attention on CUDA. The filler is a record by itself, so
    # every row has finite states.
    lengths = [group.length for group in layout.groups]
    num_filler = len(q) - layout.num_tokens
    if num_filler:
        lengths.append(num_filler)
    jagged_q, jagged_k, jagged_v = (
        torch.nested.nested_tensor_from_jagged(
            tensor.contiguous(), layout.offsets, min_seqlen=min(lengths), max_seqlen=max(lengths)
        ).transpose(1, 2)
        for tensor in (q, k, v)
    )
    out = torch.nn.functional.scaled_dot_product_attention(jagged_q, jagged_k, jagged_v, scale=scaling)
    states: torch.Tensor = out.transpose(1, 2).values()
    return states


class _PackedAttention(torch.autograd.Function):
    """softmax(q k^T * scaling + bias) v within records, with a hand-written backward pass.

    One node in place of a graph over dozens of slices: autograd's own would build a full-size zero gradient
    for each slice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layout: PackedLayout,
        scaling: float,
        dropout: float,
        site: int,
        sliding_window: int | None,
        bias: DistanceBias | None,
    ) -> torch.Tensor:
        """Inputs (N, heads, D); returns the same shape, contiguous."""
        # On a CPU the products are float32: few and small for each shape, they would not repay the code that
        # low-precision ones have generated for every new shape (see batches.TOKEN_MULTIPLE).
        dtype = torch.float32 if q.device.type == "cpu" else q.dtype
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        out[layout.num_tokens :] = 0.0
        saved: list[torch.Tensor | None] = []
        for group in layout.groups:
            qg, kg, vg = (_copy_group(tensor, group, dtype) for tensor in (q, k, v))
            qg *= scaling
            scores = torch.matmul(qg, kg.transpose(2, 3))
            if bias is not None:
                scores += bias.spread(group.length)
            if sliding_window is not None and group.length > sliding_window:
                scores.masked_fill_(_outside_window(group.length, sliding_window, q.device), -math.inf)
            weights = torch.softmax(scores, dim=-1)
            mask = _dropout_mask(layout, group, q.shape[1], site, dropout)
            kept = weights if mask is None else drop(weights, mask, dropout)
            _view_group(out, group).copy_(torch.matmul(kept, vg))
            saved += [qg, kg, vg, weights, mask]
        # Handed to autograd, not merely kept: where layers are recomputed, it drops them until then.
        ctx.save_for_backward(*saved)
        ctx.layout = layout
        ctx.scaling, ctx.dropout = scaling, dropout
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of q, k and v; the other inputs have none."""
        (grad_out,) = gradients
        grad_q, grad_k, grad_v = (torch.empty_like(grad_out) for _ in range(3))
        for gradient in (grad_q, grad_k, grad_v):
            gradient[ctx.layout.num_tokens :] = 0.0
        saved = ctx.saved_tensors
        for place, group in enumerate(ctx.layout.groups):
            qg, kg, vg, weights, mask = saved[5 * place : 5 * place + 5]
            gg = _copy_group(grad_out, group, qg.dtype)
            kept = weights if mask is None else drop(weights, mask, ctx.dropout)
            _view_group(grad_v, group).copy_(torch.matmul(kept.transpose(2, 3), gg))
            grad_weights = torch.matmul(gg, vg.transpose(2, 3))
            if mask is not None:
                grad_weights = drop(grad_weights, mask, ctx.dropout)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            # qg carries the scaling already.
            _view_group(grad_k, group).copy_(torch.matmul(grad_scores.transpose(2, 3), qg))
            grad_scores *= ctx.scaling
            _view_group(grad_q, group).copy_(torch.matmul(grad_scores, kg))
        return grad_q, grad_k, grad_v, None, None, None, None, None, None


def _view_group(tensor: torch.Tensor, group: LengthGroup) -> torch.Tensor:
    """(N, heads, D) -> (count, heads, length, D) of one run, without a copy."""
    rows = tensor[group.start : group.start + group.count * group.length]
    return rows.view(group.count, group.length, *tensor.shape[1:]).transpose(1, 2)


def _copy_group(tensor: torch.Tensor, group: LengthGroup, dtype: torch.dtype) -> torch.Tensor:
    """The same, laid out for a batched product."""
    return _view_group(tensor, group).to(dtype, memory_format=torch.contiguous_format, copy=True)


def _dropout_mask(
    layout: PackedLayout, group: LengthGroup, num_heads: int, site: int, probability: float
) -> torch.Tensor | None:
    if probability == 0.0:
        return None
    keys = layout.state.token_keys
    if keys is None:
        raise RuntimeError("a training forward pass needs DropoutState.set_step first")
    rows = keys[group.start : group.start + group.count * group.length]
    return attention_keep_mask(rows.view(group.count, group.length), num_heads, site, probability)


def _outside_window(length: int, sliding_window: int, device: torch.device) -> torch.Tensor:
    distance = torch.arange(length, device=device)
    return (distance[:, None] - distance[None, :]).abs() >= sliding_window


def _no_mask(*_: Any, **__: Any) -> None:
    """Boundaries come from the layout; a mask of (N, N) would be both useless and huge."""


def register() -> None:
    """Make `IMPLEMENTATION` known to transformers; harmless when repeated."""
    AttentionInterface.register(IMPLEMENTATION, packed_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)
