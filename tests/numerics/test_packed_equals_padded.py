"""Packed execution gives the results of the stock models, and no record sees another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from submillion.budget.families import FAMILIES
from submillion.budget.plan import make_plan
from submillion.encoding.batches import LengthGroup, pack
from submillion.encoding.text_encoder import Features
from submillion.errors import ModelError
from submillion.model.distance_bias import DistanceBias
from submillion.model.dropout import DropoutState, attention_keep_mask
from submillion.model.packed_attention import PackedLayout, _PackedAttention, packed_attention
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

HEADS = (("native", "first"), ("linear", "mean"), ("linear", "first"))

Base = Callable[[str], Path]


def score_all(tiny: Tiny, features: list[Features], max_tokens: int = 10_000) -> torch.Tensor:
    return torch.from_numpy(score(tiny.classifier, features, max_tokens=max_tokens))


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize(("head", "pooling"), HEADS)
def test_packed_logits_are_the_stock_models(
    family: str, head: str, pooling: str, tiny_base: Base, tmp_path: Path
) -> None:
    tiny = build_tiny_classifier(tiny_base(family), head=head, pooling=pooling)
    features = make_features()
    ours = score_all(tiny, features)
    theirs = score_stock(load_stock(tiny, save_run_files(tiny, tmp_path).adapter), tiny, features, pooling=pooling)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    # Records must be distinguishable, or any mix of them would pass.
    assert ours.std(dim=0).min() > 0.01


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_record_does_not_move_its_neighbours(family: str, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base(family), head="linear")
    features = make_features()
    other = make_features(seed=1)
    for row in (1, 6):
        changed = [*features[:row], other[row], *features[row + 1 :]]
        moves = (score_all(tiny, changed) - score_all(tiny, features)).abs().amax(dim=1)
        assert moves[row] > 1e-2
        assert moves[torch.arange(len(features)) != row].max() < 1e-6


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_logits_do_not_depend_on_the_batch(family: str, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base(family))
    features = make_features()
    whole = score_all(tiny, features)
    for max_tokens in (1, 50, 130):
        torch.testing.assert_close(score_all(tiny, features, max_tokens), whole, atol=1e-5, rtol=1e-5)
    turned = score_all(tiny, features[::-1]).flip(0)
    torch.testing.assert_close(turned, whole, atol=1e-5, rtol=1e-5)


def test_modernberts_window_is_kept_in_records_longer_than_it(tiny_base: Base, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(tiny_base("modernbert"), head="linear", pooling="first")
    features = make_features((60,))
    stock = load_stock(tiny, save_run_files(tiny, tmp_path).adapter)
    right = score_stock(stock, tiny, features, pooling="first")
    torch.testing.assert_close(score_all(tiny, features), right, atol=1e-4, rtol=1e-4)
    windows: list[Any] = [module for module in tiny.classifier.modules() if getattr(module, "sliding_window", None)]
    assert len(windows) == 1
    for wrong in (windows[0].sliding_window - 1, windows[0].sliding_window + 1, None):
        kept, windows[0].sliding_window = windows[0].sliding_window, wrong
        assert (score_all(tiny, features) - right).abs().max() > 1e-3
        windows[0].sliding_window = kept


def test_families_without_boundaries_take_the_padded_path(tiny_base: Base) -> None:
    padded = {family for family in FAMILIES if not build_tiny_classifier(tiny_base(family)).classifier.is_packed}
    assert padded == {"albert", "deberta-v2"}


def test_an_unknown_family_is_refused(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import tiny_classifiers

    monkeypatch.setattr(
        tiny_classifiers, "make_plan", lambda *a, **k: dataclasses.replace(make_plan(*a, **k), family="reformer")
    )
    with pytest.raises(ModelError, match="reformer"):
        build_tiny_classifier(tiny_base("roberta"))


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.is_packed])
def test_a_layer_that_loses_the_boundaries_ends_in_an_error(family: str, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base(family))
    with pytest.raises(ModelError, match="boundaries"):
        tiny.classifier.encoder(input_ids=torch.full((1, 7), 9))


# ------------------------------------------------------------------------------------------ the attention function

HEADS_COUNT, WIDTH, SITE = 3, 5, 8
GROUPS = (LengthGroup(0, 3, 2), LengthGroup(6, 1, 4), LengthGroup(10, 2, 7))
NUM_TOKENS, FILLED = 24, 29


def make_attention_case(seed: int = 0) -> tuple[PackedLayout, list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (FILLED, HEADS_COUNT, WIDTH)
    tensors = [torch.randn(shape, generator=generator, requires_grad=True) for _ in range(3)]
    keys = torch.randint(-(2**31), 2**31 - 1, (FILLED,), generator=generator, dtype=torch.int32)
    offsets = torch.tensor([0, 2, 4, 6, 10, 17, NUM_TOKENS, FILLED])
    layout = PackedLayout(GROUPS, NUM_TOKENS, DropoutState(token_keys=keys), offsets)
    return layout, tensors, torch.randn(shape, generator=generator)


def attend_plainly(
    layout: PackedLayout,
    tensors: list[torch.Tensor],
    scaling: float,
    *,
    dropout: float = 0.0,
    window: int | None = None,
    bias: DistanceBias | None = None,
) -> torch.Tensor:
    """Attention record by record, by autograd; filler rows are zero."""
    out = torch.zeros(FILLED, HEADS_COUNT, WIDTH)
    keys = layout.state.token_keys
    assert keys is not None
    for group in layout.groups:
        for number in range(group.count):
            start = group.start + number * group.length
            rows = slice(start, start + group.length)
            q, k, v = (tensor[rows].transpose(0, 1) for tensor in tensors)
            scores = q @ k.transpose(1, 2) * scaling
            if bias is not None:
                # By its definition: one entry for each distance of key and query.
                places = torch.arange(group.length)
                scores = scores + bias.entries[:, bias.reach - 1 + places[None, :] - places[:, None]]
            if window is not None:
                place = torch.arange(group.length)
                scores = scores.masked_fill((place[:, None] - place[None]).abs() >= window, -torch.inf)
            weights = scores.softmax(-1)
            if dropout:
                kept = attention_keep_mask(keys[rows][None], HEADS_COUNT, SITE, dropout)[0]
                weights = weights * kept / (1 - dropout)
            out = out.index_put((torch.arange(start, start + group.length),), (weights @ v).transpose(0, 1))
    return out


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("is_biased", [False, True])
def test_attention_and_its_gradients_are_autograds(dropout: float, window: int | None, is_biased: bool) -> None:
    layout, tensors, weights = make_attention_case()
    generator = torch.Generator().manual_seed(1)
    bias = DistanceBias(2.0 * torch.randn(HEADS_COUNT, 19, generator=generator), 10) if is_biased else None
    apply: Any = _PackedAttention.apply
    ours = apply(*tensors, layout, 0.7, dropout, SITE, window, bias)
    plain = attend_plainly(layout, tensors, 0.7, dropout=dropout, window=window, bias=bias)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    # Filler rows of the weights are not zero, and their gradient must still be dropped.
    got = torch.autograd.grad(ours, tensors, weights)
    want = torch.autograd.grad(plain, tensors, weights)
    for name, ours_grad, plain_grad in zip("qkv", got, want, strict=True):
        torch.testing.assert_close(ours_grad, plain_grad, atol=1e-5, rtol=1e-5, msg=f"gradient of {name}")
        assert not ours_grad[NUM_TOKENS:].any()


def test_attention_scales_by_the_root_of_the_width_by_default() -> None:
    layout, tensors, _ = make_attention_case()
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in tensors)
    out, weights = packed_attention(torch.nn.Identity(), q, k, v, None, packed_layout=layout)
    assert weights is None
    torch.testing.assert_close(out[0], attend_plainly(layout, tensors, WIDTH**-0.5))


def test_attention_without_a_layout_is_an_error() -> None:
    _, tensors, _ = make_attention_case()
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in tensors)
    with pytest.raises(ModelError, match="boundaries"):
        packed_attention(torch.nn.Identity(), q, k, v, None)


@pytest.mark.parametrize("family", ["roberta", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("head", ["native", "linear"])
def test_filler_changes_neither_logits_nor_gradients(family: str, head: str, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base(family), head=head, bias="all")
    batch = pack(make_features((5, 9, 9, 30)))
    assert len(batch.input_ids) > batch.num_tokens
    outcomes = []
    for token, position in ((0, 0), (7, 11)):
        ids, positions = batch.input_ids.clone(), batch.positions.clone()
        ids[batch.num_tokens :], positions[batch.num_tokens :] = token, position
        tiny.classifier.zero_grad()
        logits = tiny.classifier(dataclasses.replace(batch, input_ids=ids, positions=positions))
        torch.nn.functional.cross_entropy(logits, batch.labels).backward()
        parameters = tiny.classifier.trainable_parameters()
        gradients = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
        assert gradients.keys() == parameters.keys()
        outcomes.append((logits.detach(), gradients))
    (logits, gradients), (other_logits, other_gradients) = outcomes
    torch.testing.assert_close(other_logits, logits, atol=1e-6, rtol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, atol=1e-6, rtol=1e-5, msg=name)
    assert np.isfinite(float(sum(gradient.abs().sum() for gradient in gradients.values())))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_the_attention_of_gpus_is_that_of_cpus() -> None:
    from submillion.model.packed_attention import _attend_nested

    layout, tensors, grad = make_attention_case()
    grad[NUM_TOKENS:] = 0.0
    q, k, v = tensors
    out = _attend_nested(q, k, v, layout, 0.4)
    wanted = attend_plainly(layout, tensors, 0.4)
    torch.testing.assert_close(out[:NUM_TOKENS], wanted[:NUM_TOKENS], rtol=0, atol=2e-6)
    assert torch.isfinite(out).all()
    ours, plain = torch.autograd.grad(out, tensors, grad), torch.autograd.grad(wanted, tensors, grad)
    for first, second in zip(ours, plain, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=5e-6)
