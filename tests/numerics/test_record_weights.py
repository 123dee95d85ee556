"""Records with weights: the weighted mean of plain cross-entropies, however a step is divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from submillion.config.run import TrainConfig
from submillion.encoding.batches import pack, split_micro_batches
from submillion.encoding.text_encoder import Features
from submillion.metrics.baseline import train_baseline
from submillion.training.feed import StepInput, deal_records
from submillion.training.gradients import accumulate_gradients, weigh_classes, weigh_records
from submillion.training.loop import train_steps
from submillion.training.optim import build_optimizer
from tests.tiny_classifiers import build_tiny_classifier, make_features

LENGTHS = (5, 9, 33, 9, 3, 17, 60, 9, 12, 21, 4)
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"class_weights": (2.0, 1.0, 0.5, 0.1), "label_smoothing": 0.2})


def make_weighted(weights: Sequence[float] = (1.0, 0.25, 3.0)) -> list[Features]:
    return [replace(item, weight=weights[row % len(weights)]) for row, item in enumerate(make_features(LENGTHS))]


def accumulate(
    classifier: Any, items: list[Features], shares: Sequence[list[Features]], max_tokens: int, **settings: Any
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients of one step whose records several shares divide, as processes do."""
    config = TrainConfig(**settings)
    weights = weigh_classes([item.label or 0 for item in items], 4, config, [item.weight for item in items])
    classifier.train().zero_grad()
    loss = 0.0
    for share in shares:
        batches = tuple(pack(part) for part in split_micro_batches(share, max_tokens))
        sums = accumulate_gradients(
            classifier,
            StepInput(0, tuple(items), batches),
            weights=weights,
            total_weight=weigh_records(items, weights),
            label_smoothing=config.label_smoothing,
            seed=3,
        )
        assert sums.failure is None
        loss += float(sums.losses.sum())
    return loss, {name: p.grad.clone() for name, p in classifier.trainable_parameters().items()}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("num_shares", [1, 3])
@pytest.mark.parametrize("max_tokens", [10_000, 40])
def test_a_step_is_the_weighted_mean_of_its_records(
    tiny_bert: Path, settings: dict[str, Any], num_shares: int, max_tokens: int
) -> None:
    tiny = build_tiny_classifier(tiny_bert, head="linear", dropout=0.0)
    items = make_weighted()
    loss, gradients = accumulate(tiny.classifier, items, deal_records(items, num_shares), max_tokens, **settings)
    # The reference: one record at a time, cross-entropy spelled out in float64.
    of_labels = np.array(settings.get("class_weights", (1.0,) * 4))
    smoothing = settings.get("label_smoothing", 0.0)
    tiny.classifier.zero_grad()
    total, divisor = torch.zeros((), dtype=torch.float64), 0.0
    for item in items:
        assert item.label is not None
        batch = pack([item])
        tiny.classifier.dropout_state.set_step(batch, seed=3, step=0)
        surprises = -torch.log_softmax(tiny.classifier(batch)[0].double(), 0) * torch.tensor(of_labels)
        own = (1 - smoothing) * surprises[item.label] + smoothing * surprises.mean()
        total = total + item.weight * own
        divisor += item.weight * of_labels[item.label]
    (total / divisor).backward()
    assert loss == pytest.approx(float(total.detach()) / divisor, rel=1e-5)
    for name, parameter in tiny.classifier.trainable_parameters().items():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name], parameter.grad, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("settings", [{}, {"class_weights": "balanced", "label_smoothing": 0.1}], ids=str)
def test_weights_of_one_change_no_bit(tiny_bert: Path, settings: dict[str, Any], monkeypatch: Any) -> None:
    config = TrainConfig(batch_size=4, epochs=1.0, micro_batch_tokens=64, learning_rate=0.01, **settings)

    def train() -> tuple[list[float], list[bytes]]:
        tiny = build_tiny_classifier(tiny_bert, head="linear", dropout=0.1)
        parameters = tiny.classifier.trainable_parameters()
        steps = train_steps(
            tiny.classifier, make_features(LENGTHS), build_optimizer(parameters, config), config, seed=0
        )
        losses = [step.loss for step in steps]
        return losses, [value.detach().numpy().tobytes() for value in parameters.values()]

    assert pack(make_features(LENGTHS)).weights is None
    ours = train()
    # As it was before records had weights.
    monkeypatch.setattr("submillion.training.loop.weigh_records", _weigh_by_labels)
    monkeypatch.setattr("submillion.training.gradients.weigh_classes", _weigh_classes_by_count)
    assert train() == ours


def _weigh_by_labels(items: Sequence[Features], weights: torch.Tensor | None) -> float:
    if weights is None:
        return float(len(items))
    return float(weights[torch.tensor([item.label for item in items])].sum())


def _weigh_classes_by_count(labels: list[int], num_labels: int, config: TrainConfig, _: object) -> torch.Tensor | None:
    if config.class_weights == "none":
        return None
    counts = np.maximum(np.bincount(labels, minlength=num_labels), 1)
    return torch.tensor(len(labels) / (num_labels * counts), dtype=torch.float32)


def test_a_loss_is_told_as_the_weighted_mean(tiny_bert: Path) -> None:
    config = TrainConfig(batch_size=len(LENGTHS), epochs=1.0, learning_rate=1e-12, warmup_ratio=0.0)
    losses = []
    for weights in ((1.0, 0.25, 3.0), (4.0, 1.0, 12.0), (1.0,)):
        tiny = build_tiny_classifier(tiny_bert, head="linear", dropout=0.0)
        optimizer = build_optimizer(tiny.classifier.trainable_parameters(), config)
        [step] = train_steps(tiny.classifier, make_weighted(weights), optimizer, config, seed=0)
        losses.append(step.loss)
    # Only the weights' ratios count.
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


def test_balanced_classes_count_records_by_their_weights() -> None:
    config = TrainConfig(class_weights="balanced")
    weights = weigh_classes([0, 0, 1, 3], 4, config, [0.5, 0.5, 2.0, 1.0])
    assert weights is not None
    assert weights.tolist() == pytest.approx([1.0, 0.5, 4 / 4, 1.0])


def test_the_baseline_heeds_weights() -> None:
    texts = ["red apple", "red apple", "green pear", "green pear", "red apple"]
    labels = [0, 0, 1, 1, 1]
    plain = train_baseline(texts, labels, seed=0)
    assert train_baseline(texts, labels, seed=0, weights=[1.0] * 5).score(texts).tolist() == plain.score(texts).tolist()
    assert plain.predict(["red apple"]).tolist() == [0]
    assert train_baseline(texts, labels, seed=0, weights=[1, 1, 1, 1, 50]).predict(["red apple"]).tolist() == [1]
