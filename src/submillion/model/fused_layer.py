"""One encoder layer of the BERT kind on the CPU kernels: its forward pass and its backward pass, by hand.

h1 = norm(drop(attention(h) Wo + bo) + h) and h2 = norm(drop(gelu(h1 Wi + bi) Wf + bf) + h1)
(Devlin et al., "BERT", arXiv 1810.04805; Vaswani et al., arXiv 1706.03762, section 3: norms after the residuals).
Only tensors that the backward pass needs are kept: bfloat16 states, and two numbers per query instead of the attention
weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from submillion.kernels import calls
from submillion.kernels.attention import AttentionCall, DistanceTable, attend, attend_backward
from submillion.kernels.calls import Mask, Norm, NormResult
from submillion.model.dropout import HEAD_STRIDE, DropoutState, KeyedDropout, column_keys
from submillion.model.fused_linear import FusedLinear, LowPass, find_term, make_mask
from submillion.model.untyped import Context


@dataclass(frozen=True, eq=False)
class FusedNorm:
    """A LayerNorm whose weight is frozen; its bias may train."""

    weight: torch.Tensor
    bias: torch.Tensor
    epsilon: float

    def read(self) -> Norm:
        """Return weight, bias and epsilon as float32."""
        return Norm(self.weight.detach().float(), self.bias.detach().float(), self.epsilon)


@dataclass(frozen=True, eq=False)
class AttentionSite:
    """Dropout of attention weights.

    Attributes:
        dropout: Dropout module, which gives probability, state and mode; None for no dropout.
        site: Number of the site.
    """

    dropout: KeyedDropout | None
    site: int

    def make_mask(self, num_heads: int, longest: int) -> Mask | None:
        """Return the masks for records of up to `longest` tokens, or None if nothing is dropped."""
        if self.dropout is None or not self.dropout.training or self.dropout.p == 0.0:
            return None
        keys = self.dropout.state.token_keys
        if keys is None:
            raise RuntimeError("a training forward pass needs DropoutState.set_step first")
        heads = torch.arange(num_heads, dtype=torch.int32) * HEAD_STRIDE
        pairs = heads[:, None] + torch.arange((longest + 1) // 2, dtype=torch.int32)[None, :]
        return Mask(keys, column_keys(pairs, self.site), self.dropout.p)


@dataclass(frozen=True, eq=False)
class FusedLayer:
    """A layer's weights.

    Attributes:
        qkv: Query, key and value, joined.
        attention_output: Wo.
        ffn_in: Wi.
        ffn_out: Wf.
        attention_norm: Norm after the first residual.
        ffn_norm: Norm after the second residual.
        num_heads: Number of attention heads.
        attention_site: Dropout of attention weights.
        attention_output_dropout: Dropout of Wo's result; None for no dropout.
        ffn_output_dropout: Dropout of Wf's result; None for no dropout.
        bias: Bias added to the attention scores; None for no bias.
    """

    qkv: FusedLinear
    attention_output: FusedLinear
    ffn_in: FusedLinear
    ffn_out: FusedLinear
    attention_norm: FusedNorm
    ffn_norm: FusedNorm
    num_heads: int
    attention_site: AttentionSite
    attention_output_dropout: KeyedDropout | None
    ffn_output_dropout: KeyedDropout | None
    bias: DistanceTable | None = None

    def list_trained(self) -> list[torch.Tensor]:
        """Return the parameters that train, in the order in which the backward pass returns their gradients."""
        trained = []
        for linear in (self.qkv, self.attention_output, self.ffn_in, self.ffn_out):
            trained += linear.list_trained()
        return trained + [norm.bias for norm in (self.attention_norm, self.ffn_norm) if norm.bias.requires_grad]

    def __call__(
        self, hidden: torch.Tensor, offsets: torch.Tensor, longest: int, replayed: DropoutState | None = None
    ) -> torch.Tensor:
        """Return the layer's states.

        Args:
            hidden: Shape (N, H), bfloat16.
            offsets: Shape (B + 1,), int64; the record boundaries, in ascending order of length.
            longest: Number of tokens of the longest record.
            replayed: State that masks are drawn from, given if the backward pass computes the layer again instead of
                keeping its states.
        """
        trained = self.list_trained()
        is_kept = torch.is_grad_enabled() and (hidden.requires_grad or bool(trained))
        if not is_kept:
            return _run_forward(self, hidden, offsets, longest, is_kept=False).ffn.out
        apply: Callable[..., torch.Tensor] = _LayerFunction.apply
        result: torch.Tensor = apply(hidden, self, offsets, longest, replayed, *trained)
        return result


@dataclass(eq=False)
class _Kept:
    """Tensors that a forward pass keeps for the backward pass."""

    hidden: torch.Tensor
    qkv_low: LowPass | None
    attention: AttentionCall
    context: torch.Tensor
    output_low: LowPass | None
    output_mask: Mask | None
    norms: tuple[Norm, Norm]
    first: NormResult
    in_low: LowPass | None
    slope: torch.Tensor | None
    activated: torch.Tensor | None  # where the second matrix has an adapter
    out_low: LowPass | None
    out_mask: Mask | None
    ffn: NormResult = field(repr=False)


def _run_forward(
    layer: FusedLayer, hidden: torch.Tensor, offsets: torch.Tensor, longest: int, *, is_kept: bool
) -> _Kept:
    num_heads = layer.num_heads
    qkv_low = layer.qkv.start(hidden)
    qkv = calls.linear(hidden, layer.qkv.packed, bias=layer.qkv.bias, low_rank=find_term(qkv_low))
    head_size = qkv.shape[1] // (3 * num_heads)
    sums = torch.empty(2, num_heads, len(hidden)) if is_kept else (None, None)
    mask = layer.attention_site.make_mask(num_heads, longest)
    attention = AttentionCall(qkv, num_heads, head_size**-0.5, offsets, mask, sums[0], sums[1], layer.bias)
    context = attend(attention)
    output_low = layer.attention_output.start(context)
    output_mask = make_mask(layer.attention_output_dropout, hidden.shape[1])
    norms = (layer.attention_norm.read(), layer.ffn_norm.read())
    first = calls.linear_norm(
        context,
        layer.attention_output.packed,
        bias=layer.attention_output.bias,
        residual=hidden,
        norm=norms[0],
        low_rank=find_term(output_low),
        mask=output_mask,
        keep_normalised=is_kept,
    )
    ffn = _run_ffn(layer, first.out, norms[1], is_kept=is_kept)
    return _Kept(hidden, qkv_low, attention, context, output_low, output_mask, norms, first, *ffn)


def _run_ffn(
    layer: FusedLayer, hidden: torch.Tensor, norm: Norm, *, is_kept: bool
) -> tuple[LowPass | None, torch.Tensor | None, torch.Tensor | None, LowPass | None, Mask | None, NormResult]:
    """Return the last fields of `_Kept`, from `in_low` on."""
    in_low = layer.ffn_in.start(hidden)
    out_mask = make_mask(layer.ffn_output_dropout, hidden.shape[1])
    if not layer.ffn_out.adapters:
        ffn, slope = calls.ffn_norm(
            hidden,
            layer.ffn_in.packed,
            layer.ffn_out.packed,
            bias_in=layer.ffn_in.bias,
            bias_out=layer.ffn_out.bias,
            norm=norm,
            low_rank_in=find_term(in_low),
            mask=out_mask,
            is_kept=is_kept,
        )
        return in_low, slope, None, None, out_mask, ffn
    activated, slope = calls.linear_gelu(
        hidden, layer.ffn_in.packed, layer.ffn_in.bias, find_term(in_low), keep_slope=is_kept
    )
    out_low = layer.ffn_out.start(activated)
    ffn = calls.linear_norm(
        activated,
        layer.ffn_out.packed,
        bias=layer.ffn_out.bias,
        residual=hidden,
        norm=norm,
        low_rank=find_term(out_low),
        mask=out_mask,
        keep_normalised=is_kept,
    )
    return in_low, slope, activated, out_low, out_mask, ffn


class _LayerFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context,
        hidden: torch.Tensor,
        layer: FusedLayer,
        offsets: torch.Tensor,
        longest: int,
        replayed: DropoutState | None,
        *_: torch.Tensor,
    ) -> torch.Tensor:
        num_calls = {} if replayed is None else dict(replayed.num_calls)
        # `is_kept` changes the rounding, so the first pass sets it as the second one does.
        kept = _run_forward(layer, hidden, offsets, longest, is_kept=True)
        out: torch.Tensor = kept.ffn.out
        ctx.layer = layer
        ctx.kept = kept if replayed is None else None
        ctx.again = None if replayed is None else (hidden, offsets, longest, replayed, num_calls)
        return out

    @staticmethod
    def backward(ctx: Context, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = gradients
        layer, kept = ctx.layer, ctx.kept
        if kept is None:
            hidden, offsets, longest, replayed, num_calls = ctx.again
            with replayed.replaying(num_calls):
                kept = _run_forward(layer, hidden, offsets, longest, is_kept=True)
        ctx.kept = ctx.again = None
        grad_hidden, trained = _run_backward(layer, kept, grad.contiguous(), needs_input=ctx.needs_input_grad[0])
        return grad_hidden, None, None, None, None, *trained


def _run_backward(
    layer: FusedLayer, kept: _Kept, grad: torch.Tensor, *, needs_input: bool
) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    assert kept.slope is not None
    grad_first, grad_out = calls.norm_backward(grad, kept.ffn, kept.norms[1], kept.out_mask)
    if layer.ffn_in.list_trained() or layer.ffn_out.adapters:
        grad_first, for_ffn = _run_ffn_backward(layer, kept, grad_out, grad_first)
    else:
        for_ffn = layer.ffn_out.find_bias_gradients(grad_out)
        weights = (layer.ffn_out.packed_transpose, layer.ffn_in.packed_transpose)
        grad_first = calls.ffn_backward(grad_out, weights[0], kept.slope, weights[1], grad_first)

    for_ffn_norm = [_sum_rows(grad)] if layer.ffn_norm.bias.requires_grad else []
    for_norm = [_sum_rows(grad_first)] if layer.attention_norm.bias.requires_grad else []
    grad_hidden, grad_output = calls.norm_backward(grad_first, kept.first, kept.norms[0], kept.output_mask)
    low = layer.attention_output.start_backward(grad_output)
    grad_context = _propagate(layer.attention_output, grad_output, low, kept.output_low, None)
    for_output = layer.attention_output.find_gradients(kept.context, grad_output, kept.output_low, low)

    grad_qkv = attend_backward(kept.attention, kept.context, grad_context)
    low = layer.qkv.start_backward(grad_qkv)
    for_qkv = layer.qkv.find_gradients(kept.hidden, grad_qkv, kept.qkv_low, low)
    result = _propagate(layer.qkv, grad_qkv, low, kept.qkv_low, grad_hidden) if needs_input else None
    return result, [*for_qkv, *for_output, *for_ffn, *for_norm, *for_ffn_norm]


def _run_ffn_backward(
    layer: FusedLayer, kept: _Kept, grad_out: torch.Tensor, grad_residual: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the gradients of the feed-forward part's input and of its trained parameters."""
    assert kept.slope is not None
    low = layer.ffn_out.start_backward(grad_out)
    term = layer.ffn_out.make_backward_term(low, kept.out_low)
    if kept.out_low is not None and kept.out_low.is_dropped:
        grad_before = calls.linear(grad_out, layer.ffn_out.packed_transpose)
        layer.ffn_out.add_dropped_terms(grad_before, low, kept.out_low)
        grad_before *= kept.slope
    else:
        grad_before = calls.linear_times(grad_out, layer.ffn_out.packed_transpose, term, kept.slope)
    for_out = layer.ffn_out.find_gradients(kept.activated, grad_out, kept.out_low, low)
    low = layer.ffn_in.start_backward(grad_before)
    grad_first = _propagate(layer.ffn_in, grad_before, low, kept.in_low, grad_residual)
    for_in = layer.ffn_in.find_gradients(kept.first.out, grad_before, kept.in_low, low)
    return grad_first, [*for_in, *for_out]


def _propagate(
    linear: FusedLinear,
    grad: torch.Tensor,
    low: torch.Tensor | None,
    forward: LowPass | None,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """Return the gradient of a layer's input plus the gradient through the residual."""
    term = linear.make_backward_term(low, forward)
    result = calls.linear(grad, linear.packed_transpose, low_rank=term, added=residual)
    linear.add_dropped_terms(result, low, forward)
    return result


def _sum_rows(grad: torch.Tensor) -> torch.Tensor:
    return grad.sum(0, dtype=torch.float32)
