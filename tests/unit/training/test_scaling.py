"""Loss scaling: torch's rule, steps left out where gradients overflow, and nothing changed where none do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from submillion.config.run import RunConfig, TrainConfig
from submillion.errors import RunError
from submillion.pipeline.fit import Fitting
from submillion.progress import Silent
from submillion.run.folder import RunDir
from submillion.storage.files import read_log
from submillion.training import checkpoint
from submillion.training.loop import train_steps
from submillion.training.optim import build_optimizer
from submillion.training.scaling import LossScaler, ScalerState
from submillion.training.step import StepResult
from tests.tiny_classifiers import Tiny, build_tiny_classifier, make_features

CPU = torch.device("cpu")


def test_the_scale_moves_as_that_of_torchs_scaler() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    theirs = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    ours = LossScaler(CPU, ScalerState(scale=1024.0), growth_interval=3)
    rng = torch.Generator().manual_seed(1)
    scales = []
    for _ in range(40):
        overflows = bool(torch.rand((), generator=rng) < 0.35)
        theirs.scale(parameter.sum() * (float("inf") if overflows else 1.0)).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        ours.update(torch.tensor(not overflows))
        state = theirs.state_dict()
        assert ours.state == ScalerState(state["scale"], state["_growth_tracker"])
        scales.append(ours.state.scale)
    assert min(scales) < 1024.0 < max(scales)


def build(base: Path, **settings: Any) -> Tiny:
    return build_tiny_classifier(base, head="linear", targets=("query",), dropout=0.1, moved=False, **settings)


def run(tiny: Tiny, scaler: LossScaler | None) -> tuple[list[StepResult], dict[str, torch.Tensor]]:
    config = TrainConfig(batch_size=3, epochs=2.0, learning_rate=0.01, micro_batch_tokens=32, warmup_ratio=0.0)
    parameters = tiny.classifier.trainable_parameters()
    steps = train_steps(
        tiny.classifier, make_features(), build_optimizer(parameters, config), config, seed=0, scaler=scaler
    )
    results = [dataclasses.replace(step, step_s=0.0) for step in steps]
    return results, {name: value.detach().clone() for name, value in parameters.items()}


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_a_scale_that_is_a_power_of_two_changes_no_bit(
    late: bool, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submillion.training.step._reads_late", lambda _: late)
    plain, expected = run(build(tiny_bert), None)
    scaled, values = run(build(tiny_bert), LossScaler(CPU))
    assert [step.loss_scale for step in scaled] == [65536.0] * 6
    assert [dataclasses.replace(step, loss_scale=None) for step in scaled] == plain
    assert all(torch.equal(values[name], value) for name, value in expected.items())


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_a_step_whose_gradients_overflow_is_left_out(
    late: bool, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submillion.training.step._reads_late", lambda _: late)
    tiny = build(tiny_bert)
    parameters = tiny.classifier.trainable_parameters()
    config = TrainConfig(batch_size=3, epochs=2.0, learning_rate=0.01, warmup_ratio=0.0)
    optimizer = build_optimizer(parameters, config)
    scaler = LossScaler(CPU)
    victim = next(iter(parameters.values()))
    # The gradient overflows at large factors of the loss, as in the range of fp16.
    victim.register_hook(lambda gradient: gradient if float(scaler.scale) <= 2.0**14 else gradient * float("inf"))
    before = [value.detach().clone() for value in parameters.values()]
    seen = []
    for step in train_steps(tiny.classifier, make_features(), optimizer, config, seed=0, scaler=scaler):
        moved = any(not torch.equal(value, old) for value, old in zip(parameters.values(), before, strict=True))
        seen.append((step.loss_scale, step.grad_norm is None, moved))
        before = [value.detach().clone() for value in parameters.values()]
    left_out, made = (2.0**16, True, False), (2.0**14, False, True)
    assert seen == [left_out, (2.0**15, True, False), made, made, made, made]
    assert {int(state["step"]) for state in optimizer.state.values()} == {4}
    assert scaler.state == ScalerState(2.0**14, 4)


@pytest.mark.parametrize("fault", ["gradients", "loss"])
def test_what_no_scale_can_help_ends_the_run(fault: str, tiny_bert: Path) -> None:
    tiny = build(tiny_bert)
    parameters = tiny.classifier.trainable_parameters()
    if fault == "gradients":
        next(iter(parameters.values())).register_hook(lambda gradient: gradient * float("inf"))
        scaler = LossScaler(CPU, ScalerState(scale=4.0))
    else:
        assert tiny.classifier.head is not None
        with torch.no_grad():
            tiny.classifier.head.linear.bias.fill_(float("nan"))
        scaler = LossScaler(CPU)
    config = TrainConfig(batch_size=1, epochs=1.0)
    results = []
    with pytest.raises(RunError, match="gradient norm of step 3" if fault == "gradients" else "loss of step 1"):
        results += list(
            train_steps(
                tiny.classifier, make_features(), build_optimizer(parameters, config), config, seed=0, scaler=scaler
            )
        )


@pytest.mark.filterwarnings("ignore")
def test_fp16_weights_bring_a_scaler_and_checkpoints_keep_its_state(tiny_bert: Path, tmp_path: Path) -> None:
    outcomes = []
    for name, stops in (("whole", (4,)), ("resumed", (2, 4))):
        folder = tmp_path / name
        folder.mkdir()
        for stop in stops:
            # The schedule is constant, so that a shorter run is the beginning of the longer one.
            train = {"batch_size": 3, "max_steps": stop, "evaluate_every": 2, "interval_unit": "steps"}
            config = RunConfig.model_validate({"train": {**train, "schedule": "constant", "warmup_ratio": 0.0}})
            tiny = build(tiny_bert, dtype=torch.float16)
            fitting = Fitting(tiny.classifier, config, RunDir(folder), Silent())
            assert fitting.scaler is not None
            if stop == stops[0]:
                fitting.scaler.scale.fill_(2.0**10)
            fitting.fit(make_features(), make_features(), {})
        state = checkpoint.read_position(folder / "checkpoints" / "step-4")
        assert (state.loss_scale, state.num_good_steps) == (2.0**10, 4)
        entries = [entry for entry in read_log(folder / "log.jsonl") if entry["kind"] == "step"]
        assert [entry["loss_scale"] for entry in entries] == [2.0**10] * 4
        outcomes.append([(entry["loss"], entry["grad_norm"]) for entry in entries])
    assert outcomes[0] == outcomes[1]


def test_other_weights_bring_none(tiny_bert: Path, tmp_path: Path) -> None:
    fitting = Fitting(build(tiny_bert).classifier, RunConfig(), RunDir(tmp_path), Silent())
    assert fitting.log is not None
    fitting.log.close()
    assert fitting.scaler is None
