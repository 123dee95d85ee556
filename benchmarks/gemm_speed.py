"""All matrix products x W^T of torch and this package, by precision, ready to be timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Shape:
    """Shapes (N, K) of x and (O, K) of W.

    Attributes:
        num_tokens: Number of tokens N.
        inner: Inner length K.
        columns: Number of columns O.
    """

    num_tokens: int
    inner: int
    columns: int

    @property
    def flops(self) -> float:
        """Number of operations of one product."""
        return 2.0 * self.num_tokens * self.inner * self.columns


Call = Callable[[], Any]


def list_products(precision: str, device: str) -> Mapping[str, Callable[[Shape], Call]]:
    """Return functions by name that make each product of a precision: they prepare operands and return the call.

    Making or calling a product raises RuntimeError, NotImplementedError or AttributeError if this machine or this build
    of torch does not have it.

    Args:
        precision: ``bf16``, ``fp16``, ``fp32`` or ``int8``.
        device: ``cpu`` or ``cuda``.
    """
    if precision == "int8":
        return {"_int_mm": _int_mm, "onednn qlinear": _qlinear, "kernels": _int8}
    dtype = _DTYPES[precision]

    def make_operands(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(shape.num_tokens, shape.inner, device=device, dtype=dtype)
        return x, torch.randn(shape.columns, shape.inner, device=device, dtype=dtype)

    def make_linear(shape: Shape) -> Call:
        x, weight = make_operands(shape)
        return lambda: functional.linear(x, weight)

    def make_mm(shape: Shape) -> Call:
        x, weight = make_operands(shape)
        transposed = weight.t().contiguous()
        return lambda: torch.mm(x, transposed)

    def make_prepacked(shape: Shape) -> Call:
        x, weight = make_operands(shape)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, shape.num_tokens)
        return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")

    products = {"F.linear": make_linear, "mm": make_mm}
    if device == "cpu":
        products["mkldnn prepacked"] = make_prepacked
        if precision == "bf16":
            products["kernels"] = lambda shape: _kernels(*make_operands(shape))
    return products


def _require_kernels() -> None:
    from submillion.kernels.native import find_kernels

    if find_kernels().reason:
        raise NotImplementedError(find_kernels().reason)


def _kernels(x: torch.Tensor, weight: torch.Tensor) -> Call:
    _require_kernels()
    from submillion.kernels.calls import linear
    from submillion.kernels.weights import pack_weight

    packed = pack_weight(weight)
    return lambda: linear(x, packed)


def _int8(shape: Shape) -> Call:
    _require_kernels()
    from submillion.kernels.calls import linear
    from submillion.kernels.weights import quantise_weight

    x = torch.randn(shape.num_tokens, shape.inner, dtype=torch.bfloat16)
    packed = quantise_weight(torch.randn(shape.columns, shape.inner))
    return lambda: linear(x, packed)


def _int_mm(shape: Shape) -> Call:
    x = torch.randint(-127, 128, (shape.num_tokens, shape.inner), dtype=torch.int8)
    weight = torch.randint(-127, 128, (shape.columns, shape.inner), dtype=torch.int8).t()
    return lambda: torch._int_mm(x, weight)


def _qlinear(shape: Shape) -> Call:
    # Only unsigned activations are used: signed ones run in a reference kernel that takes minutes.
    x = torch.randint(0, 256, (shape.num_tokens, shape.inner), dtype=torch.uint8)
    weight = torch.randint(-127, 128, (shape.columns, shape.inner), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, [shape.num_tokens, shape.inner])
    scales, zeros = torch.ones(shape.columns), torch.zeros(shape.columns, dtype=torch.int32)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        x, 0.1, 128, packed, scales, zeros, None, 1.0, 0, torch.bfloat16, "none", [], ""
    )
