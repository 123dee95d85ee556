"""The fused LoRA linear layer: y = x W^T + b + scaling * dropout(x) A^T B^T.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685), section 4.1. The frozen matrix
gets no gradient, its input is stored once and not copied to float32, and the update is added in place. A and B are
float32 parameters; products run in the frozen matrix's dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from submillion.model.dropout import drop
from submillion.model.untyped import Context


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        mask: torch.Tensor | None,
        dropout: float,
    ) -> torch.Tensor:
        """Take the inputs of `lora_linear`, with x flattened to (N, in)."""
        dtype = weight.dtype
        a_low, b_low = a.to(dtype), (b * scaling).to(dtype)
        y = torch.nn.functional.linear(x, weight, None if bias is None else bias.to(dtype))
        adapter_input = x if mask is None else drop(x, mask, dropout)
        low = torch.nn.functional.linear(adapter_input, a_low)
        y.addmm_(low, b_low.t())
        ctx.save_for_backward(x, weight, a_low, b_low, low, mask)
        ctx.scaling, ctx.dropout = scaling, dropout
        return y

    @staticmethod
    def backward(ctx: Context, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of x, b, A and B; the frozen matrix has none."""
        (grad,) = gradients
        x, weight, a_low, b_low, low, mask = ctx.saved_tensors
        grad_low = grad @ b_low
        grad_a = grad_b = grad_x = grad_bias = None
        if ctx.needs_input_grad[3]:
            adapter_input = x if mask is None else drop(x, mask, ctx.dropout)
            grad_a = (grad_low.t() @ adapter_input).float()
        if ctx.needs_input_grad[4]:
            grad_b = (grad.t() @ low).float() * ctx.scaling
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0, dtype=torch.float32)
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            if mask is None:
                grad_x.addmm_(grad_low, a_low)
            else:
                grad_x += drop(grad_low @ a_low, mask, ctx.dropout)
        return grad_x, None, grad_bias, grad_a, grad_b, None, None, None


def lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    scaling: float,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Apply a frozen linear layer with a low-rank update.

    Args:
        x: Shape (..., in), in the frozen weight's dtype.
        weight: Shape (out, in), frozen; float32 or bfloat16.
        bias: Shape (out,), or None.
        a: Shape (R, in), float32.
        b: Shape (out, R), float32.
        scaling: Factor on the update.
        mask: Keep mask of the adapter's input, shape (..., in), or None for no dropout.
        dropout: Share of elements that the mask drops.

    Returns:
        Shape (..., out), in the weight's dtype.
    """
    flat = x.reshape(-1, x.shape[-1])
    flat_mask = None if mask is None else mask.reshape(flat.shape)
    apply: Callable[..., torch.Tensor] = _LoraLinear.apply
    y: torch.Tensor = apply(flat, weight, bias, a, b, scaling, flat_mask, dropout)
    return y.view(*x.shape[:-1], weight.shape[0])
