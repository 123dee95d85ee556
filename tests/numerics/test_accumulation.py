"""A step in several forward passes is the step of one large batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from submillion.config.run import TrainConfig
from submillion.encoding.batches import pack, split_micro_batches
from submillion.encoding.text_encoder import Features
from submillion.training.feed import StepInput, order_epoch
from submillion.training.gradients import accumulate_gradients, weigh_classes, weigh_records
from submillion.training.loop import train_steps
from submillion.training.optim import build_optimizer
from tests.tiny_classifiers import build_tiny_classifier, make_features

Base = Callable[[str], Path]

LENGTHS = (5, 9, 33, 9, 3, 17, 60, 9, 12, 21, 4)


def accumulate(
    classifier: Any, items: list[Features], max_tokens: int, **settings: Any
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and the gradients of one step."""
    config = TrainConfig(micro_batch_tokens=max_tokens, **settings)
    weights = weigh_classes([item.label or 0 for item in items], 4, config)
    classifier.train().zero_grad()
    batches = tuple(pack(part) for part in split_micro_batches(items, max_tokens))
    sums = accumulate_gradients(
        classifier,
        StepInput(2, tuple(items), batches),
        weights=weights,
        total_weight=weigh_records(items, weights),
        label_smoothing=config.label_smoothing,
        seed=3,
    )
    assert sums.failure is None
    return float(sums.losses.sum()), {name: p.grad.clone() for name, p in classifier.trainable_parameters().items()}


@pytest.mark.parametrize("family", ["roberta", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("settings", [{}, {"class_weights": (2.0, 1.0, 0.5, 0.1), "label_smoothing": 0.2}], ids=str)
def test_accumulation_is_one_large_batch(family: str, settings: dict[str, Any], tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base(family), dropout=0.2, adapter_dropout=0.3, bias="all")
    items = make_features(LENGTHS)
    whole_loss, whole = accumulate(tiny.classifier, items, 10_000, **settings)
    for max_tokens, num_passes in ((100, 2), (40, 5)):
        parts = split_micro_batches(items, max_tokens)
        assert len(parts) >= num_passes
        # Passes have different numbers of records, so a mean of their means would be wrong.
        assert len({len(part) for part in parts}) > 1
        loss, gradients = accumulate(tiny.classifier, items, max_tokens, **settings)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        for name, gradient in whole.items():
            scale = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(gradients[name], gradient, atol=1e-5 * scale, rtol=0, msg=name)


def test_one_pass_is_plain_cross_entropy(tiny_bert: Path) -> None:
    tiny = build_tiny_classifier(tiny_bert, head="linear")
    items = make_features(LENGTHS)
    loss, gradients = accumulate(tiny.classifier, items, 30)
    batch = pack(items)
    tiny.classifier.zero_grad()
    tiny.classifier.dropout_state.set_step(batch, seed=3, step=2)
    plain = torch.nn.functional.cross_entropy(tiny.classifier(batch), batch.labels)
    plain.backward()
    assert loss == pytest.approx(float(plain.detach()), rel=1e-5)
    for name, parameter in tiny.classifier.trainable_parameters().items():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name], parameter.grad, atol=2e-5, rtol=1e-4, msg=name)


def test_the_last_step_of_an_epoch_is_the_mean_of_its_own_records(tiny_bert: Path) -> None:
    items = make_features(LENGTHS)
    tiny = build_tiny_classifier(tiny_bert, head="linear", dropout=0.0)
    config = TrainConfig(batch_size=8, epochs=1.0, learning_rate=1e-12, warmup_ratio=0.0, micro_batch_tokens=16)
    optimizer = build_optimizer(tiny.classifier.trainable_parameters(), config)
    steps = list(train_steps(tiny.classifier, items, optimizer, config, seed=0))
    assert [step.num_records for step in steps] == [8, 3]
    order = order_epoch(len(items), seed=0, epoch=0)
    for step, rows in zip(steps, (order[:8], order[8:]), strict=True):
        batch = pack([items[row] for row in rows])
        with torch.no_grad():
            mean = torch.nn.functional.cross_entropy(tiny.classifier.eval()(batch), batch.labels)
        assert step.loss == pytest.approx(float(mean), rel=1e-5)
