"""Attention over packed records, registered with transformers' AttentionInterface.

A packed batch is one row of N tokens, which linear layers and norms process as a whole. Only attention looks at the
record boundaries: it works on runs of records of equal length (`Batch.groups`), so no padding is ever computed. It is
registered under `IMPLEMENTATION`; encoders that call attention through the interface keep their own code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from submillion.encoding.batches import Batch, LengthGroup
from submillion.errors import ModelError
from submillion.model.distance_bias import DistanceBias
from submillion.model.dropout import DropoutState, KeyedDropout, attention_keep_mask, drop
from submillion.model.untyped import Context

IMPLEMENTATION = "submillion_packed"


@dataclass(frozen=True, eq=False)
class PackedLayout:
    """Record boundaries of the current forward pass, in the form that the attention function needs."""

    groups: tuple[LengthGroup, ...]
    num_tokens: int
    state: DropoutState
    offsets: torch.Tensor

    @classmethod
    def from_batch(cls, batch: Batch, state: DropoutState) -> PackedLayout:
        """Take the boundaries of a packed batch; filler counts as one more record in `offsets`."""
        offsets = batch.offsets
        if len(batch.input_ids) > batch.num_tokens:
            # This is done once per pass without reading values from the device, so it does not wait for a GPU.
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
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend within each record of a packed batch.

    Args:
        module: The attention layer.
        query: Shape (1, heads, N, D).
        key: Same shape as `query`.
        value: Same shape as `query`.
        attention_mask: Always None, since boundaries come from the layout.
        scaling: Factor on the scores; 1/sqrt(D) if absent.
        dropout: Probability on the attention weights; 0 outside of training.
        packed_layout: Record boundaries.
        sliding_window: Half-window plus one of local attention, or None.
        bias: Bias added to the scores; None for no bias.

    Returns:
        Shape (1, N, heads, D), and None for the weights.

    Raises:
        ModelError: The layout is missing, so records would mix.
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
    # (1, heads, N, D) -> (N, heads, D) is a view, since this is the layout of the projections.
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if q.is_cuda and dropout == 0.0 and sliding_window is None and bias is None:
        return _attend_nested(q, k, v, packed_layout, scaling)[None], None
    apply: Callable[..., torch.Tensor] = _PackedAttention.apply
    out = apply(q, k, v, *arguments)
    return out[None], None


def _attention_site(module: torch.nn.Module) -> int:
    # Attention through the interface never calls the dropout of the probabilities, so its site number is free to use.
    # Other sites are not free: ModernBERT's layers hold one that acts on their output.
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
    # torch's jagged tensors use variable-length flash attention on CUDA. The filler is a separate record, so every row
    # has finite states.
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

    This is one node instead of a graph over dozens of slices, for each of which autograd would build a full-size zero
    gradient.
    """

    @staticmethod
    def forward(
        ctx: Context,
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
        """Take inputs of shape (N, heads, D) and return the same shape, contiguous."""
        # On a CPU the products are float32. Low-precision libraries generate code for every new shape (see
        # batches.TOKEN_MULTIPLE), which does not pay for a few small products of each shape.
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
        # Autograd keeps the tensors, because it can drop them where layers are recomputed.
        ctx.save_for_backward(*saved)
        ctx.layout = layout
        ctx.scaling, ctx.dropout = scaling, dropout
        return out

    @staticmethod
    def backward(ctx: Context, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of q, k and v; the other inputs have none."""
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
            # qg already includes the scaling.
            _view_group(grad_k, group).copy_(torch.matmul(grad_scores.transpose(2, 3), qg))
            grad_scores *= ctx.scaling
            _view_group(grad_q, group).copy_(torch.matmul(grad_scores, kg))
        return grad_q, grad_k, grad_v, None, None, None, None, None, None


def _view_group(tensor: torch.Tensor, group: LengthGroup) -> torch.Tensor:
    """Return one run's part of (N, heads, D) as a view of shape (count, heads, length, D)."""
    rows = tensor[group.start : group.start + group.count * group.length]
    return rows.view(group.count, group.length, *tensor.shape[1:]).transpose(1, 2)


def _copy_group(tensor: torch.Tensor, group: LengthGroup, dtype: torch.dtype) -> torch.Tensor:
    """Return the same part as a contiguous copy in a dtype, for a batched product."""
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


def _no_mask(*_: object, **__: object) -> None:
    """Make no mask: boundaries come from the layout, and a mask of (N, N) would be huge."""


def register() -> None:
    """Register `IMPLEMENTATION` with transformers; it may be called repeatedly."""
    AttentionInterface.register(IMPLEMENTATION, packed_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)
