from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from submillion.config.run import Schedule, TrainConfig
from submillion.training.optim import (
    MovingAverage,
    build_optimizer,
    count_warmup_steps,
    find_group,
    schedule_factor,
    set_learning_rates,
    step_where_finite,
)

# ------------------------------------------------------------------------------------------------------- schedules


def draw(schedule: Schedule, num_steps: int, warmup_steps: int = 0, num_cycles: int = 1) -> list[float]:
    return [
        schedule_factor(step, num_steps=num_steps, warmup_steps=warmup_steps, schedule=schedule, num_cycles=num_cycles)
        for step in range(num_steps)
    ]


def test_linear() -> None:
    assert draw("linear", 4) == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert draw("linear", 6, warmup_steps=2) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_cosine() -> None:
    # (1 + cos(pi * k / 6)) / 2 for k = 0, 2, 3, 4.
    values = draw("cosine", 6)
    assert [values[0], *values[2:5]] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert values[1] == pytest.approx((2 + math.sqrt(3)) / 4)


def test_cosine_with_restarts() -> None:
    one = draw("cosine", 4)
    assert one == pytest.approx([1.0, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4])
    assert draw("cosine_restarts", 12, num_cycles=3) == pytest.approx(one * 3)
    assert draw("cosine_restarts", 10, warmup_steps=2, num_cycles=2) == pytest.approx([0.5, 1.0, *one, *one])
    assert draw("cosine_restarts", 6) == pytest.approx(draw("cosine", 6))


def test_constant_and_warmup() -> None:
    assert draw("constant", 5, warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert draw("linear", 3, warmup_steps=3) == pytest.approx([1 / 3, 2 / 3, 1.0])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "cosine_restarts", "constant"])
def test_no_step_is_wasted_and_none_exceeds_the_peak(schedule: Schedule) -> None:
    for num_steps in (1, 2, 7):
        for warmup in range(num_steps + 1):
            values = draw(schedule, num_steps, warmup, 2)
            assert all(0 < value <= 1 for value in values), (num_steps, warmup, values)


def test_warmup_is_a_rounded_up_share_or_a_number() -> None:
    assert count_warmup_steps(TrainConfig(warmup_ratio=0.06), 100) == 6
    assert count_warmup_steps(TrainConfig(warmup_ratio=0.06), 101) == 7
    assert count_warmup_steps(TrainConfig(warmup_ratio=0.0), 100) == 0
    assert count_warmup_steps(TrainConfig(warmup_ratio=0.5, warmup_steps=3), 100) == 3
    assert count_warmup_steps(TrainConfig(warmup_steps=500), 100) == 100


# ------------------------------------------------------------------------------------------------- parameter groups

ROOT = "wrapped.base_model.model.roberta.layer.0"
NAMES = {
    f"{ROOT}.query.lora_A.default.weight": ("adapter_a", (4, 8)),
    f"{ROOT}.query.lora_B.default.weight": ("adapter_b", (8, 4)),
    f"{ROOT}.query.lora_magnitude_vector.default.weight": ("adapter_b", (8,)),
    f"{ROOT}.query.base_layer.bias": ("bias", (8,)),
    f"{ROOT}.LayerNorm.bias": ("bias", (8,)),
    "wrapped.base_model.model.classifier.modules_to_save.default.dense.weight": ("head", (8, 8)),
    "wrapped.base_model.model.classifier.modules_to_save.default.dense.bias": ("head", (8,)),
    "head.linear.weight": ("head", (2, 8)),
    "head.linear.bias": ("head", (2,)),
}


def make_parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, (_, shape) in NAMES.items()}


@pytest.mark.parametrize(("name", "group"), [(name, group) for name, (group, _) in NAMES.items()])
def test_groups_by_name(name: str, group: str) -> None:
    assert find_group(name) == group


def describe(config: TrainConfig) -> dict[str, tuple[float, float]]:
    """Return (learning rate, weight decay) by parameter name."""
    parameters = make_parameters()
    names = {id(parameter): name for name, parameter in parameters.items()}
    groups = build_optimizer(parameters, config).param_groups
    rows = [(names[id(p)], (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(rows) == len(parameters)
    return dict(rows)


def test_groups_have_learning_rates_of_their_own_and_only_matrices_decay() -> None:
    rates = {"learning_rate": 1e-4, "learning_rate_b": 2e-4, "head_learning_rate": 3e-4, "bias_learning_rate": 4e-4}
    wanted = {"adapter_a": 1e-4, "adapter_b": 2e-4, "head": 3e-4, "bias": 4e-4}
    for name, (rate, decay) in describe(TrainConfig(**rates, weight_decay=0.1)).items():
        group, shape = NAMES[name]
        assert rate == wanted[group], name
        assert decay == (0.1 if len(shape) == 2 else 0.0), name


def test_rates_that_are_not_given_are_as_a() -> None:
    assert {rate for rate, _ in describe(TrainConfig(learning_rate=7e-4)).values()} == {7e-4}


def test_the_schedule_scales_each_groups_own_peak() -> None:
    config = TrainConfig(learning_rate=1e-4, learning_rate_b=2e-4, head_learning_rate=3e-4, bias_learning_rate=4e-4)
    optimizer = build_optimizer(make_parameters(), config)
    for factor in (0.5, 0.1):
        rates = set_learning_rates(optimizer, factor)
        wanted = {"adapter_a": 1e-4, "adapter_b": 2e-4, "head": 3e-4, "bias": 4e-4}
        assert rates == pytest.approx({name: factor * rate for name, rate in wanted.items()})
        for group in optimizer.param_groups:
            assert group["lr"] == rates[group["name"]]


def test_a_step_is_adamws() -> None:
    # One step from zero moments: decay, then minus rate * g / (|g| + epsilon), since both moments are debiased.
    settings: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 0.5, "betas": (0.8, 0.9), "epsilon": 0.25}
    parameter = nn.Parameter(torch.tensor([[2.0, -4.0]]))
    optimizer = build_optimizer({"head.linear.weight": parameter}, TrainConfig(**settings))
    parameter.grad = torch.tensor([[3.0, -0.5]])
    optimizer.step()
    moved = [2.0 * (1 - 0.05) - 0.1 * 3.0 / 3.25, -4.0 * (1 - 0.05) + 0.1 * 0.5 / 0.75]
    assert parameter.tolist()[0] == pytest.approx(moved)


# --------------------------------------------------------------------------------------------------- moving average


def test_the_moving_average_follows_its_formula() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = MovingAverage({"p": parameter}, 0.3)
    expected = 1.0
    # (1 + t) / (10 + t) is 0.1, 2/11, 0.25, 4/13 and then above the decay of 0.3.
    for decay, value in ((0.1, 2.0), (2 / 11, 5.0), (0.25, -3.0), (0.3, 4.0), (0.3, 4.0)):
        with torch.no_grad():
            parameter.fill_(value)
        average.update()
        expected = decay * expected + (1 - decay) * value
        assert float(average.values["p"]) == pytest.approx(expected, rel=1e-6)
    assert average.num_updates == 5


def test_the_average_stands_in_only_inside_the_block() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = MovingAverage({"p": parameter}, 0.9)
    with torch.no_grad():
        parameter.fill_(11.0)
    average.update()

    def fail_inside() -> None:
        with average.applied():
            assert parameter.item() == pytest.approx(10.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert parameter.item() == 11.0


def test_a_step_that_the_flag_forbids_leaves_everything_as_it_was() -> None:
    outcomes = []
    for flags in ((True, True), (True, False, True)):
        parameter = nn.Parameter(torch.tensor([[1.0, -2.0]]))
        optimizer = build_optimizer({"x.lora_A.default.weight": parameter}, TrainConfig(learning_rate=0.1))
        for flag in flags:
            parameter.grad = torch.tensor([[0.5, 0.25 if flag else math.nan]])
            step_where_finite(optimizer, torch.tensor(flag))
        state = {name: value.clone() for name, value in optimizer.state[parameter].items()}
        outcomes.append((parameter.detach().clone(), state))
    (value, state), (other_value, other_state) = outcomes
    assert torch.equal(value, other_value)
    assert state.keys() == other_state.keys()
    assert all(torch.equal(state[name], other_state[name]) for name in state)
