"""A GPU computes the same as a CPU, and nothing inside a step waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from submillion.config.run import TrainConfig
from submillion.training.loop import train_steps
from submillion.training.optim import MovingAverage, build_optimizer
from tests.tiny_classifiers import build_tiny_classifier, make_features

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

LENGTHS = [3 + (7 * row) % 41 for row in range(32)]


def start(base: Path, device: str, dtype: torch.dtype, num_steps: int) -> Any:
    tiny = build_tiny_classifier(
        base, head="linear", dropout=0.1, adapter_dropout=0.1, head_dropout=0.1, dtype=dtype, moved=False
    )
    tiny.classifier.to(device)
    parameters = tiny.classifier.trainable_parameters()
    config = TrainConfig(
        batch_size=16, max_steps=num_steps, micro_batch_tokens=256, learning_rate=0.01, class_weights="balanced"
    )
    optimizer = build_optimizer(parameters, config)
    average = MovingAverage(parameters, 0.9)
    return train_steps(tiny.classifier, make_features(LENGTHS), optimizer, config, seed=5, average=average)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fifty_steps_on_a_gpu_are_those_on_a_cpu(dtype: torch.dtype, tiny_bert: Path) -> None:
    curves = [[step.loss for step in start(tiny_bert, device, dtype, 50)] for device in ("cpu", "cuda")]
    exact = [step.loss for step in start(tiny_bert, "cpu", torch.float32, 50)]
    assert len(curves[0]) == 50
    assert exact[0] - exact[-1] > 0.4, "a curve that does not move shows nothing"
    # The bfloat16 curve on a CPU strays from the float32 one by as much as rounding costs.
    noise = max(float(np.abs(np.subtract(curves[0], exact)).max()), 1e-3)
    assert np.abs(np.subtract(curves[0], curves[1])).max() < 3 * noise


def test_nothing_inside_of_a_step_waits_for_the_gpu(tiny_bert: Path) -> None:
    steps = start(tiny_bert, "cuda", torch.bfloat16, 8)
    # First uses of kernels and allocations may wait.
    for _ in range(3):
        next(steps)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert [step.step for step in steps] == [4, 5, 6, 7, 8]
    finally:
        torch.cuda.set_sync_debug_mode(before)
