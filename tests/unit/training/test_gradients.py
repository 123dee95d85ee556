from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from submillion.config.run import TrainConfig
from submillion.training.gradients import Figures
from submillion.training.loop import train_steps
from submillion.training.optim import MovingAverage, build_optimizer
from tests.tiny_classifiers import build_tiny_classifier, make_features

# Operations whose result, or whose size, the host must wait for where a GPU computes them.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal"}


class Questions(TorchDispatchMode):
    """Notes the operations that would ask a GPU something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.asked: list[str] = []
        self.num_calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.num_calls += 1
        name = func.overloadpacket.__name__
        masks = [i for i in args[1] if i is not None and i.dtype == torch.bool] if name == "index" else []
        sizeless = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in WAITING or masks or sizeless:
            self.asked.append(name)
        return func(*args, **kwargs)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_step_asks_the_device_for_nothing(pooling: str, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("submillion.training.step._reads_late", lambda _: True)
    # Its labels and weights never lie on the device.
    monkeypatch.setattr("submillion.training.loop.weigh_records", lambda *_: 4.0)
    tiny = build_tiny_classifier(
        tiny_bert, head="linear", pooling=pooling, dropout=0.1, adapter_dropout=0.1, head_dropout=0.1
    )
    parameters = tiny.classifier.trainable_parameters()
    config = TrainConfig(
        batch_size=4, epochs=1.0, micro_batch_tokens=16, class_weights="balanced", label_smoothing=0.1, clip_norm=1.0
    )
    optimizer = build_optimizer(parameters, config)
    features = make_features((5, 9, 12, 5, 7, 7, 8, 8, 30, 4))
    steps = train_steps(tiny.classifier, features, optimizer, config, seed=0, average=MovingAverage(parameters, 0.9))
    with Questions() as questions:
        assert len(list(steps)) == 3
    assert questions.num_calls > 1000
    assert questions.asked == []


@pytest.mark.parametrize("ask", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool((x > 0).all())])
def test_questions_are_noticed(ask: Callable[[torch.Tensor], object]) -> None:
    with Questions() as questions:
        ask(torch.ones(3))
    assert questions.asked


def test_figures_come_home_exactly() -> None:
    values = [torch.tensor([0.1, 1e-30]), torch.tensor(2**53 - 1), torch.zeros(0), torch.tensor([[0.3, float("inf")]])]
    assert Figures(*values).read() == [values[0].tolist(), [2**53 - 1], [], [float(values[3][0, 0]), float("inf")]]
