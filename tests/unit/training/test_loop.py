from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from submillion.config.run import TrainConfig
from submillion.encoding.batches import Batch, pack
from submillion.encoding.text_encoder import Features
from submillion.errors import ConfigError, RunError
from submillion.training.feed import order_epoch
from submillion.training.gradients import weigh_classes
from submillion.training.loop import train_steps
from submillion.training.optim import MovingAverage, build_optimizer
from submillion.training.step import StepResult
from tests.tiny_classifiers import Tiny, build_tiny_classifier, make_features


@pytest.fixture
def tiny(tiny_bert: Path) -> Tiny:
    return build_tiny_classifier(tiny_bert, head="linear", targets=("query",), dropout=0.0)


def run(
    tiny: Tiny, features: list[Features], average: MovingAverage | None = None, **settings: Any
) -> list[StepResult]:
    config = TrainConfig(**{"batch_size": 4, "warmup_ratio": 0.0, "epochs": 1.0, **settings})
    optimizer = build_optimizer(tiny.classifier.trainable_parameters(), config)
    return list(train_steps(tiny.classifier, features, optimizer, config, seed=0, average=average))


def test_every_epoch_sees_every_record_once_whatever_its_length(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def note_and_pack(items: Sequence[Features]) -> Batch:
        seen.append(tuple(item.id for item in items))
        return pack(items)

    monkeypatch.setattr("submillion.training.feed.pack", note_and_pack)
    features = make_features(tuple(3 + row for row in range(30)))
    results = run(tiny, features, epochs=2.0)
    assert [result.num_records for result in results] == [4, 4, 4, 4, 4, 4, 4, 2] * 2
    assert [result.step for result in results] == list(range(1, 17))
    assert [result.epoch for result in results] == pytest.approx([(k + 1) / 8 for k in range(16)])
    first, second = seen[:8], seen[8:]
    assert sorted(sum(first, ())) == sorted(sum(second, ())) == sorted(item.id for item in features)
    assert first != second
    # A batch of neighbours in length would span 3 tokens or so of the 30.
    lengths = {item.id: len(item) for item in features}
    spans = [max(lengths[i] for i in ids) - min(lengths[i] for i in ids) for ids in first[:7]]
    assert np.mean(spans) > 10


def test_class_weights() -> None:
    labels = [0] * 6 + [1] * 3 + [2] * 1
    assert weigh_classes(labels, 3, TrainConfig()) is None
    balanced = weigh_classes(labels, 3, TrainConfig(class_weights="balanced"))
    assert balanced is not None
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    assert balanced.tolist() == pytest.approx(wanted.tolist())
    given = weigh_classes(labels, 3, TrainConfig(class_weights=(1.0, 2.0, 0.5)))
    assert given is not None
    assert given.tolist() == [1.0, 2.0, 0.5]
    with pytest.raises(ConfigError, match="2 weights for 3 classes"):
        weigh_classes(labels, 3, TrainConfig(class_weights=(1.0, 2.0)))


@pytest.mark.parametrize("weights", ["none", "balanced", (3.0, 1.0, 0.5, 0.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.18])
def test_the_loss_is_torchs(tiny: Tiny, weights: Any, smoothing: float) -> None:
    features = make_features((5, 9, 12, 5, 20, 6))
    batch = pack(features)
    with torch.no_grad():
        logits = tiny.classifier(batch)
    config = TrainConfig(class_weights=weights, label_smoothing=smoothing)
    class_weights = weigh_classes([item.label or 0 for item in features], 4, config)
    wanted = torch.nn.functional.cross_entropy(
        logits, batch.labels, weight=class_weights, label_smoothing=smoothing, reduction="mean"
    )
    right = int((logits.argmax(dim=1) == batch.labels).sum())
    for tokens in (10_000, 16):
        settings = {"class_weights": weights, "label_smoothing": smoothing, "micro_batch_tokens": tokens}
        [result] = run(tiny, features, batch_size=6, learning_rate=1e-12, **settings)
        assert result.loss == pytest.approx(float(wanted), rel=1e-5)
        assert result.num_right == right
        assert (result.num_records, result.num_tokens) == (6, 57)


def test_gradients_are_clipped_to_the_norm_and_reported_before(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    real = torch.optim.AdamW.step

    def note(self: torch.optim.AdamW, closure: Any = None) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None)))
        return real(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    features = make_features((5, 9, 12, 5))
    [free] = run(tiny, features, clip_norm=None, learning_rate=1e-12)
    [clipped] = run(tiny, features, clip_norm=0.01, learning_rate=1e-12)
    assert free.grad_norm is not None
    assert free.grad_norm == pytest.approx(clipped.grad_norm, rel=1e-4)
    assert free.grad_norm > 0.1
    assert norms == pytest.approx([free.grad_norm, 0.01], rel=1e-3)


def test_the_average_is_updated_after_every_step(tiny: Tiny) -> None:
    parameters = tiny.classifier.trainable_parameters()
    average = MovingAverage(parameters, 0.0)
    run(tiny, make_features((5, 9, 12, 5, 7, 7, 8, 8)), average=average)
    assert average.num_updates == 2
    assert all(torch.equal(average.values[name], p) for name, p in parameters.items())


@pytest.fixture(params=[False, True], ids=["at once", "late"])
def reads_late(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Read figures as on a CPU, or as on a GPU: after the gradients of the next step."""
    monkeypatch.setattr("submillion.training.step._reads_late", lambda _: request.param)
    return bool(request.param)


def test_reading_late_changes_nothing(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for late in (False, True):
        monkeypatch.setattr("submillion.training.step._reads_late", lambda _, late=late: late)
        tiny = build_tiny_classifier(tiny_bert, head="linear", targets=("query",), dropout=0.1)
        parameters = tiny.classifier.trainable_parameters()
        average = MovingAverage(parameters, 0.9)
        config = TrainConfig(batch_size=4, epochs=2.0, learning_rate=0.01, micro_batch_tokens=16)
        optimizer = build_optimizer(parameters, config)
        features = make_features((5, 9, 12, 5, 7, 7, 8, 8, 30, 4))
        steps = train_steps(tiny.classifier, features, optimizer, config, seed=0, average=average)
        seen = []
        for step in steps:
            # When a result is yielded, the model is as after that step, and its mode is unchanged.
            values = [value.detach().clone() for value in (*parameters.values(), *average.values.values())]
            seen.append((dataclasses.replace(step, step_s=0.0), values))
            tiny.classifier.eval()
        outcomes.append(seen)
    assert len(outcomes[0]) == 6
    for (step, values), (late_step, late_values) in zip(*outcomes, strict=True):
        assert step == late_step
        assert all(torch.equal(*pair) for pair in zip(values, late_values, strict=True))


@pytest.mark.usefixtures("reads_late")
def test_what_a_pass_raises_comes_after_the_steps_before_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features((5, 9, 12, 5, 7, 7, 8, 8))
    victim = features[order_epoch(8, seed=0, epoch=0)[6]]
    forward = type(tiny.classifier).forward

    def fail(self: Any, batch: Any) -> torch.Tensor:
        if victim.id in batch.ids:
            raise MemoryError("too large")
        return forward(self, batch)

    monkeypatch.setattr(type(tiny.classifier), "forward", fail)
    config = TrainConfig(batch_size=4, epochs=1.0)
    optimizer = build_optimizer(tiny.classifier.trainable_parameters(), config)
    steps = train_steps(tiny.classifier, features, optimizer, config, seed=0)
    assert next(steps).step == 1
    with pytest.raises(MemoryError, match="too large"):
        next(steps)


@pytest.mark.usefixtures("reads_late")
@pytest.mark.parametrize("fault", ["loss", "gradient norm"])
def test_what_is_not_finite_ends_the_run_before_the_step(
    fault: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make_features((5, 9, 12, 5, 7, 7, 8, 8))
    victim = features[order_epoch(8, seed=0, epoch=0)[6]]
    parameters = tiny.classifier.trainable_parameters()
    forward = type(tiny.classifier).forward

    def spoil(self: Any, batch: Any) -> torch.Tensor:
        logits = forward(self, batch)
        if victim.id not in batch.ids:
            return logits
        if fault == "loss":
            return logits * math.inf
        logits.register_hook(lambda gradient: gradient * math.nan)
        return logits

    monkeypatch.setattr(type(tiny.classifier), "forward", spoil)
    before: list[dict[str, torch.Tensor]] = []
    config = TrainConfig(batch_size=4, epochs=1.0, learning_rate=0.1)
    optimizer = build_optimizer(parameters, config)
    steps = train_steps(tiny.classifier, features, optimizer, config, seed=0)
    next(steps)
    before.append({name: p.detach().clone() for name, p in parameters.items()})
    with pytest.raises(RunError, match=f"{fault} of step 2 is (nan|inf)") as caught:
        next(steps)
    assert victim.id in caught.value.message
    assert all(torch.equal(before[0][name], p) for name, p in parameters.items())


def test_resumed_steps_continue_the_order_and_the_schedule(tiny_bert: Path) -> None:
    features = make_features((5, 9, 12, 5, 7, 7, 8, 8))
    config = TrainConfig(batch_size=4, epochs=2.0, learning_rate=1e-12)
    outcomes = []
    for first in (0, 2):
        tiny = build_tiny_classifier(tiny_bert, head="linear", targets=("query",))
        optimizer = build_optimizer(tiny.classifier.trainable_parameters(), config)
        steps = list(train_steps(tiny.classifier, features, optimizer, config, seed=0, first_step=first))
        outcomes.append([(s.step, s.epoch, s.num_tokens, s.learning_rates) for s in steps])
    assert outcomes[0][2:] == outcomes[1]
    assert len(outcomes[0]) == 4


def test_unlabelled_rows_are_a_fault_of_the_caller(tiny: Tiny) -> None:
    features = [*make_features((5, 6)), dataclasses.replace(make_features((7,))[0], label=None)]
    with pytest.raises(AssertionError, match="labelled"):
        run(tiny, features)
