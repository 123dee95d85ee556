"""The products that are tried for the peak, and the rates of a profile."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.gemm_speed import Shape, list_products
from benchmarks.peak import _find_rate, _Trial, list_shapes
from benchmarks.profile import profile_products
from submillion.kernels import calls
from submillion.kernels.native import find_kernels
from submillion.model.sources import load_base_config

SHAPE = Shape(64, 32, 96)


def test_all_products_of_a_model_are_tried_forward_and_backward() -> None:
    shapes = list_shapes(load_base_config("minilm-l6"))
    assert shapes == [(384, 384), (384, 1152), (384, 1536), (1152, 384), (1536, 384)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_products_have_the_shape_that_is_counted(precision: str) -> None:
    made = 0
    for make in list_products(precision, "cpu").values():
        try:
            out = make(SHAPE)()
        except (RuntimeError, NotImplementedError, AttributeError):
            continue
        made += 1
        assert out.shape == (64, 96)
    assert made > 0
    assert SHAPE.flops == 2 * 64 * 32 * 96


def test_a_product_that_is_not_there_has_no_rate() -> None:
    def refuse(_: Shape) -> Any:
        raise NotImplementedError("not in this build")

    assert _find_rate(_Trial("none", SHAPE, refuse), "cpu", 0.01) == 0.0
    make = list_products("fp32", "cpu")["mm"]
    assert _find_rate(_Trial("mm", SHAPE, make), "cpu", 0.01) > 0.0


def test_a_profile_finds_the_products_of_torch() -> None:
    x, weight = torch.randn(512, 512), torch.randn(512, 512)

    def run() -> None:
        for _ in range(4):
            x @ weight

    assert profile_products(run, "cpu")["torch"] > 0.0


def test_a_profile_leaves_out_what_is_too_small_or_too_rare() -> None:
    x, small = torch.randn(512, 512), torch.randn(8, 8)

    def run() -> None:
        x @ x
        for _ in range(10):
            small @ small

    assert profile_products(run, "cpu") == {}


@pytest.mark.skipif(bool(find_kernels().reason), reason=f"no kernels: {find_kernels().reason}")
def test_a_profile_sees_the_kernels_and_puts_them_back() -> None:
    from submillion.kernels.weights import pack_weight, quantise_weight

    before = calls.linear
    x = torch.randn(512, 256, dtype=torch.bfloat16)
    packed, rounded = pack_weight(torch.randn(256, 256)), quantise_weight(torch.randn(256, 256))

    def run() -> None:
        for _ in range(4):
            calls.linear(x, packed)
            calls.linear(x, rounded)

    rates = profile_products(run, "cpu")
    assert rates["kernels bf16"] > 0.0
    assert rates["kernels int8"] > 0.0
    with pytest.raises(ZeroDivisionError):
        profile_products(lambda: 1 / 0, "cpu")
    assert calls.linear is before
