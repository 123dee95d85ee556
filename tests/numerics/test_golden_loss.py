"""A loss curve that stays, so that order, dropout, initial values, schedule and optimizer do not change unnoticed.

A change that is meant: run the test, look at why the curve moved, and write the new one down with the change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from submillion.config.run import TrainConfig
from submillion.training.loop import train_steps
from submillion.training.optim import build_optimizer
from tests.tiny_classifiers import build_tiny_classifier, make_features

LENGTHS = tuple(3 + (7 * row) % 41 for row in range(36))
CURVE = [1.3771, 1.49543, 1.60016, 1.56714, 1.51987, 1.41592, 1.36297, 1.5864, 1.59698, 1.13092]
CURVE += [1.21473, 1.32867, 1.56561, 1.32498, 1.41704, 1.2756, 1.4366, 1.62676, 1.30635, 1.28173]


def train(base: Path, **model: Any) -> list[float]:
    settings = {"dropout": 0.1, "adapter_dropout": 0.2, "head_dropout": 0.1, **model}
    tiny = build_tiny_classifier(base, head="linear", moved=False, seed=7, **settings)
    config = TrainConfig(
        epochs=4,
        batch_size=8,
        micro_batch_tokens=128,
        learning_rate=0.01,
        head_learning_rate=0.03,
        schedule="cosine",
        warmup_ratio=0.1,
        label_smoothing=0.05,
        max_steps=20,
    )
    optimizer = build_optimizer(tiny.classifier.trainable_parameters(), config)
    features = make_features(LENGTHS, seed=11)
    return [step.loss for step in train_steps(tiny.classifier, features, optimizer, config, seed=7)]


def test_the_loss_curve_stays(tiny_bert: Path) -> None:
    assert train(tiny_bert) == pytest.approx(CURVE, rel=1e-3)


@pytest.mark.parametrize("site", ["dropout", "adapter_dropout", "head_dropout"])
def test_the_curve_shows_every_kind_of_dropout(site: str, tiny_bert: Path) -> None:
    assert train(tiny_bert, **{site: 0.0}) != pytest.approx(CURVE, rel=1e-3)
