"""The CPU kernels against the stock modules: the same logits and gradients as float32 within bfloat16's rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from submillion.budget.families import FAMILIES
from submillion.encoding.batches import Batch, pack
from submillion.encoding.text_encoder import Features
from submillion.kernels.native import find_kernels
from submillion.model.encoder import Classifier
from tests.tiny_classifiers import build_tiny_classifier, build_wide_base, make_features

needs_kernels = pytest.mark.skipif(
    find_kernels().library is None, reason=f"the CPU kernels do not run here: {find_kernels().reason}"
)
pytestmark = needs_kernels

LONG = (1, 2, 5, 9, 40, 9, 3, 17, 64, 9, 33, 63, 48, 16, 32)
Wide = Callable[[str], Path]


@pytest.fixture(scope="module")
def wide_base(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Wide:
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in built:
            built[family] = build_wide_base(tiny_base(family), tmp_path_factory.mktemp("wide") / family)
        return built[family]

    return get


def run(classifier: Classifier, batch: Batch, *, training: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    classifier.train(training)
    classifier.zero_grad(set_to_none=True)
    classifier.dropout_state.set_step(batch, seed=5, step=3)
    logits = classifier(batch)
    torch.nn.functional.cross_entropy(logits, batch.labels).backward()
    return logits.detach(), {
        name: parameter.grad.clone()
        for name, parameter in classifier.trainable_parameters().items()
        if parameter.grad is not None
    }


def compare(base: Path, features: list[Features], *, training: bool = True, **settings: Any) -> None:
    """Check that the kernels are about as close as the stock modules in bfloat16 to the same model in float32."""
    batch = pack(features)
    exact_logits, exact = run(build_tiny_classifier(base, **settings).classifier, batch, training=training)
    stock = build_tiny_classifier(base, dtype=torch.bfloat16, **settings).classifier
    stock.stock_reason = "compared with"
    stock_logits, stock_gradients = run(stock, batch, training=training)
    fused = build_tiny_classifier(base, dtype=torch.bfloat16, **settings).classifier
    assert fused.stock_reason == ""
    logits, gradients = run(fused, batch, training=training)
    assert gradients.keys() == exact.keys()
    scale = exact_logits.norm()
    assert (logits - exact_logits).norm() / scale <= 1.2 * (stock_logits - exact_logits).norm() / scale + 2e-3
    # The key's bias moves no softmax: its gradient is rounding alone.
    least = 1e-2 * max(float(gradient.norm()) for gradient in exact.values())
    for name, wanted in exact.items():
        norm = wanted.norm().clamp_min(least)
        error, allowed = (gradients[name] - wanted).norm() / norm, (stock_gradients[name] - wanted).norm() / norm
        assert gradients[name].shape == wanted.shape
        # The stock attention computes in float32; the kernels' products take bfloat16 weights and score gradients.
        assert error <= 2.5 * allowed + 1e-2, f"{name}: {error:.4f}, stock {allowed:.4f}"


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.kernels])
@pytest.mark.parametrize("head", ["native", "linear"])
def test_every_family_agrees(wide_base: Wide, family: str, head: str) -> None:
    compare(wide_base(family), make_features(LONG), head=head, dropout=0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"targets": ("query", "value"), "rank": 8},
        {"targets": ("value",), "rank": 3},
        {"targets": ("query", "key", "value"), "rank": 24},
        {"targets": ("ffn_in", "ffn_out"), "rank": 5},
        {"targets": ("all",), "rank": 2, "ranks": {"query": 17, "ffn_out": 1}},
        {"targets": ("query",), "rank": 4, "layers": (1,)},
        {"targets": ("all",), "variant": "rslora"},
        {"targets": ("all",), "variant": "pissa"},
        {"targets": ("attention_output",), "rank": 16, "bias": "all"},
        {"targets": ("key", "ffn_in"), "bias": "lora_only"},
    ],
    ids=str,
)
def test_every_adapter_agrees(wide_base: Wide, settings: dict[str, Any]) -> None:
    compare(wide_base("bert"), make_features(LONG), head="linear", dropout=0.0, **settings)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_dropout_draws_the_masks_of_the_stock_modules(wide_base: Wide, family: str) -> None:
    compare(wide_base(family), make_features(LONG), head="linear", dropout=0.2)


def test_adapter_dropout_draws_the_masks_of_the_stock_modules(wide_base: Wide) -> None:
    compare(wide_base("bert"), make_features(LONG), head="linear", dropout=0.0, adapter_dropout=0.3)


def test_evaluation_ignores_dropout(wide_base: Wide) -> None:
    compare(wide_base("bert"), make_features(LONG), training=False, head="linear", dropout=0.5, adapter_dropout=0.5)


def test_one_record_does_not_move_its_neighbours(wide_base: Wide) -> None:
    classifier = build_tiny_classifier(wide_base("bert"), dtype=torch.bfloat16, head="linear").classifier
    features = make_features(LONG)
    other = make_features(LONG, seed=1)
    changed = [other[8] if row == 8 else item for row, item in enumerate(features)]
    with torch.inference_mode():
        first, second = pack(features), pack(changed)
        before, after = classifier(first), classifier(second)
    moved = (before - after).abs().amax(dim=1) > 0
    assert moved.sum() == 1
    assert first.order[int(moved.nonzero())] == 8


def test_records_longer_than_a_pass_of_queries_agree(wide_base: Wide, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(wide_base("bert"))
    config.max_position_embeddings = 256
    torch.manual_seed(3)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((wide_base("bert") / name).read_bytes())
    compare(tmp_path, make_features((65, 128, 130, 200, 256, 7)), head="linear", dropout=0.1)


def test_results_are_the_same_bytes_in_every_run(wide_base: Wide) -> None:
    classifier = build_tiny_classifier(wide_base("bert"), dtype=torch.bfloat16, head="linear", dropout=0.1).classifier
    batch = pack(make_features(LONG))
    first_logits, first = run(classifier, batch, training=True)
    for _ in range(3):
        logits, gradients = run(classifier, batch, training=True)
        assert torch.equal(logits, first_logits)
        assert all(torch.equal(gradients[name], first[name]) for name in first)


def test_an_architecture_without_kernels_says_why(tiny_base: Callable[[str], Path]) -> None:
    classifier = build_tiny_classifier(tiny_base("bert"), dtype=torch.bfloat16).classifier
    assert "multiples of 32" in classifier.stock_reason
    assert "bf16" in build_tiny_classifier(tiny_base("bert")).classifier.stock_reason
