"""The fused LoRA layer against plain autograd, and every variant against PEFT's own forward pass and merge."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear as PeftLoraLinear
from torch.nn.functional import linear

from submillion.model.adapter import FusedLoraLinear
from submillion.model.lora import lora_linear
from submillion.scoring.score import score
from tests.tiny_classifiers import (
    Tiny,
    build_tiny_classifier,
    load_stock,
    make_features,
    save_run_files,
    score_stock,
)

# PEFT still asks transformers by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

VARIANTS = ("lora", "rslora", "dora", "pissa")

Base = Callable[[str], Path]


def make_case(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    case = {"x": draw(3, 7, 12), "weight": draw(10, 12), "bias": draw(10), "a": draw(4, 12), "b": draw(10, 4)}
    case |= {name: case[name].to(dtype) for name in ("x", "weight")}
    for name in ("x", "bias", "a", "b"):
        case[name].requires_grad_()
    return case


def reference_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, **how: Any
) -> torch.Tensor:
    """Equation 3 of the LoRA paper, with dropout on the adapter's input, by autograd."""
    adapter_input = x if how.get("mask") is None else x * how["mask"] / (1 - how["dropout"])
    low_rank: torch.Tensor = how["scaling"] * linear(linear(adapter_input, a), b)
    return linear(x, weight, bias) + low_rank


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_are_the_references(masked: bool, with_bias: bool) -> None:
    case = make_case()
    mask = torch.rand(case["x"].shape, generator=torch.Generator().manual_seed(1)) > 0.3 if masked else None
    how: dict[str, Any] = {"scaling": 1.75, "mask": mask, "dropout": 0.3 if masked else 0.0}
    bias = case["bias"] if with_bias else None
    arguments = (case["x"], case["weight"], bias, case["a"], case["b"])
    ours, wanted = lora_linear(*arguments, **how), reference_linear(*arguments, **how)
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)
    names = ("x", "a", "b", "bias") if with_bias else ("x", "a", "b")
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    inputs = [case[name] for name in names]
    got = torch.autograd.grad(ours, inputs, weights)
    for name, ours_grad, want in zip(names, got, torch.autograd.grad(wanted, inputs, weights), strict=True):
        torch.testing.assert_close(ours_grad, want, atol=1e-4, rtol=1e-4, msg=f"gradient of {name}")


def test_only_what_asks_for_a_gradient_gets_one() -> None:
    case = make_case()
    case["weight"].requires_grad_()
    frozen = case["bias"].detach()
    lora_linear(case["x"].detach(), case["weight"], frozen, case["a"], case["b"], scaling=2.0).sum().backward()
    assert case["weight"].grad is None
    assert frozen.grad is None
    assert case["a"].grad is not None


def test_low_precision_gives_low_precision_outputs_and_float32_gradients() -> None:
    case, full = make_case(torch.bfloat16), make_case()
    order = ("x", "weight", "bias", "a", "b")
    ours = lora_linear(*(case[name] for name in order), scaling=1.5)
    wanted = reference_linear(*(full[name] for name in order), scaling=1.5)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), wanted, atol=0.25, rtol=0.03)
    ours.float().square().mean().backward()
    wanted.square().mean().backward()
    for name in ("a", "b", "bias"):
        gradient, want = case[name].grad, full[name].grad
        assert gradient is not None
        assert want is not None
        assert gradient.dtype == torch.float32
        assert (gradient - want).norm() < 0.03 * want.norm()


def list_layers(tiny: Tiny) -> list[PeftLoraLinear]:
    return [module for module in tiny.classifier.modules() if isinstance(module, PeftLoraLinear)]


@pytest.mark.parametrize("variant", ["lora", "rslora", "pissa"])
@pytest.mark.parametrize("bias", ["none", "lora_only"])
def test_fused_layers_compute_what_pefts_own_do(variant: str, bias: str, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base("bert"), variant=variant, bias=bias)
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    layers = [layer for layer in list_layers(tiny) if layer.in_features == 32]
    assert layers
    for layer in layers:
        assert type(layer) is FusedLoraLinear
        outcomes = []
        for kind in (FusedLoraLinear, PeftLoraLinear):
            own = copy.deepcopy(layer)
            own.__class__ = kind  # type: ignore[assignment]  # PEFT's class is the base of ours
            y = own(x)
            trained = [p for p in own.parameters() if p.requires_grad]
            outcomes.append((y, *torch.autograd.grad(y.square().sum(), trained)))
        for ours, theirs in zip(*outcomes, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_scalings() -> None:
    case = make_case()
    order = [case[name] for name in ("x", "weight", "bias", "a", "b")]
    none, one, three = (lora_linear(*order, scaling=scaling) for scaling in (0.0, 1.0, 3.0))
    torch.testing.assert_close(three - none, 3 * (one - none), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("variant", "scaling"), [("lora", 24 / 9), ("rslora", 24 / 3), ("dora", 24 / 9)])
def test_scaling_is_alpha_over_rank_or_its_root(variant: str, scaling: float, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base("bert"), variant=variant, rank=9, alpha=24)
    for realised in ([layer.scaling["default"] for layer in list_layers(tiny)], [m.scaling for m in tiny.plan.modules]):
        assert realised == pytest.approx([scaling] * 12)


@pytest.mark.parametrize("family", ["roberta", "deberta-v2"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fresh_adapter_leaves_the_base_as_it_is(variant: str, family: str, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base(family), head="linear", variant=variant, moved=False)
    features = make_features()
    ours = torch.from_numpy(score(tiny.classifier, features, max_tokens=500))
    assert ours.std(dim=0).min() > 1e-3
    torch.testing.assert_close(ours, score_stock(load_stock(tiny, None), tiny, features), atol=1e-5, rtol=1e-5)


def test_pissa_moves_the_main_directions_out_of_the_frozen_matrix(tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base("bert"), head="linear", variant="pissa", moved=False)
    stock = load_stock(tiny, None)
    for name, layer in zip([m.name for m in tiny.plan.modules], list_layers(tiny), strict=True):
        whole = torch.linalg.svdvals(stock.get_submodule(name).weight)
        rest = torch.linalg.svdvals(layer.base_layer.weight)
        torch.testing.assert_close(rest[: len(whole) - 4], whole[4:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_is_unmerged(variant: str, family: str, tiny_base: Base, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(tiny_base(family), variant=variant, bias="all", ranks={"ffn_in": 7})
    features = make_features((5, 30, 12))
    unmerged = torch.from_numpy(score(tiny.classifier, features, max_tokens=500))
    merged = load_stock(tiny, save_run_files(tiny, tmp_path).adapter).merge_and_unload()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(score_stock(merged, tiny, features), unmerged, atol=1e-4, rtol=1e-4)
