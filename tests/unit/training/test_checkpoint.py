from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from submillion.config.run import TrainConfig
from submillion.errors import RunError
from submillion.training import checkpoint
from submillion.training.checkpoint import Position
from submillion.training.optim import MovingAverage, build_optimizer

SHAPES = {"x.lora_A.default.weight": (2, 3), "x.lora_B.default.weight": (4, 2), "head.linear.bias": (4,)}


class State:
    """Parameters, optimizer and average that have made some steps."""

    def __init__(self, *, seed: int, num_steps: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.parameters = {
            name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()
        }
        self.optimizer = build_optimizer(self.parameters, TrainConfig(learning_rate=0.1))
        self.average = MovingAverage(self.parameters, 0.9)
        for _ in range(num_steps):
            for parameter in self.parameters.values():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            self.optimizer.step()
            self.average.update()

    def save(self, folder: Path, step: int, *, best_step: int = 0) -> Position:
        best_value = 0.5 if best_step else None
        position = Position(
            step=step, best_step=best_step, best_value=best_value, elapsed_s=1.5, log_bytes=7, average_updates=step
        )
        checkpoint.save_checkpoint(folder, position, self.parameters, self.optimizer, self.average)
        return position

    def load(self, folder: Path) -> Position:
        position = checkpoint.read_position(folder)
        checkpoint.load_parameters(folder, self.parameters)
        checkpoint.load_optimizer(folder, self.parameters, self.optimizer)
        checkpoint.load_average(folder, self.average, position.average_updates)
        return position


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    saved = State(seed=1, num_steps=3)
    position = saved.save(tmp_path, 3)
    folder = checkpoint.find_checkpoint(tmp_path, "last")
    assert folder == tmp_path / "step-3"
    loaded = State(seed=2, num_steps=0)
    assert loaded.load(folder) == position
    assert loaded.average.num_updates == 3
    # The next step from either is the same to the last bit: moments and step counts came back too.
    for state in (saved, loaded):
        for parameter in state.parameters.values():
            parameter.grad = torch.full(parameter.shape, 0.25)
        state.optimizer.step()
        state.average.update()
    for name, parameter in saved.parameters.items():
        assert torch.equal(loaded.parameters[name], parameter)
        assert torch.equal(loaded.average.values[name], saved.average.values[name])


def test_averages_can_be_loaded_as_parameters(tmp_path: Path) -> None:
    saved = State(seed=1, num_steps=3)
    saved.save(tmp_path, 3)
    loaded = State(seed=2, num_steps=0)
    checkpoint.load_parameters(tmp_path / "step-3", loaded.parameters, averaged=True)
    for name, value in saved.average.values.items():
        assert torch.equal(loaded.parameters[name], value)
        assert not torch.equal(saved.parameters[name], value)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    State(seed=1, num_steps=1).save(tmp_path, 4)
    again = State(seed=5, num_steps=1)
    again.save(tmp_path, 4)
    tensors = load_file(tmp_path / "step-4" / "parameters.safetensors")
    assert all(torch.equal(tensors[name], p) for name, p in again.parameters.items())


def list_steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "step-" in path.name)


@pytest.mark.parametrize(
    ("keep", "best", "kept"),
    [(1, 4, ["step-4", "step-8"]), (2, 2, ["step-2", "step-6", "step-8"]), (2, 8, ["step-6", "step-8"])],
)
def test_the_newest_and_the_best_are_kept(keep: int, best: int, kept: list[str], tmp_path: Path) -> None:
    state = State(seed=1, num_steps=1)
    for step in (2, 4, 6, 8):
        state.save(tmp_path, step)
    (tmp_path / ".step-9.tmp").mkdir()
    (tmp_path / "step-notes").mkdir()
    checkpoint.delete_old_checkpoints(tmp_path, keep=keep, last_step=8, best_step=best)
    assert list_steps(tmp_path) == [*kept, "step-notes"]


def test_a_checkpoint_from_beyond_a_kill_displaces_none(tmp_path: Path) -> None:
    state = State(seed=1, num_steps=1)
    for step in (8, 4, 6):
        state.save(tmp_path, step)
    checkpoint.delete_old_checkpoints(tmp_path, keep=1, last_step=6, best_step=4)
    assert list_steps(tmp_path) == ["step-4", "step-6"]
    assert checkpoint.find_checkpoint(tmp_path, "last") == tmp_path / "step-6"


def test_a_checkpoint_that_cannot_be_finished_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(seed=1, num_steps=1)
    state.save(tmp_path, 2)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("submillion.training.checkpoint.os.rename", fail)
    with pytest.raises(RunError, match="No space left"):
        state.save(tmp_path, 4)
    assert sorted(os.listdir(tmp_path)) == ["last", "step-2"]
    assert checkpoint.find_checkpoint(tmp_path, "last") == tmp_path / "step-2"


def test_no_pointer_is_no_checkpoint_and_a_dangling_one_an_error(tmp_path: Path) -> None:
    assert checkpoint.find_checkpoint(tmp_path, "last") is None
    State(seed=1, num_steps=1).save(tmp_path, 2)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "state.json").write_text("{}")
    (tmp_path / "step-9").symlink_to("step-2")
    paths = (f"{tmp_path}/step-2", "../step-2", "step-2/../step-2", "elsewhere")
    for text in ("step-7\n", "", "\x00", "\ufffe", "step-02", *paths, "step-9", "step-2\nstep-2", "step-" + "9" * 5000):
        (tmp_path / "last").write_text(text)
        with pytest.raises(RunError) as caught:
            checkpoint.find_checkpoint(tmp_path, "last")
        assert caught.value.where == str(tmp_path / "last")
    (tmp_path / "last").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="UTF-8"):
        checkpoint.find_checkpoint(tmp_path, "last")


def test_checkpoints_without_their_pointer_are_an_error_and_a_first_one_is_not(tmp_path: Path) -> None:
    state = State(seed=1, num_steps=1)
    state.save(tmp_path, 2)
    (tmp_path / "last").unlink()
    assert checkpoint.find_checkpoint(tmp_path, "last") is None
    state.save(tmp_path, 4)
    (tmp_path / "last").unlink()
    with pytest.raises(RunError, match="is missing, though there are checkpoints"):
        checkpoint.find_checkpoint(tmp_path, "last")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", 0),
        ("step", 3),
        ("step", 2.0),
        ("step", True),
        ("step", "2"),
        ("best_step", 3),
        ("best_step", -1),
        ("best_value", "high"),
        ("best_value", None),
        ("stopped", 0),
        ("elapsed_s", -1.0),
        ("log_bytes", -1),
        ("log_bytes", 1 << 63),
        ("average_updates", None),
        ("loss_scale", 0),
        ("validations_since_best", []),
        ("mood", "good"),
    ],
)
def test_a_state_that_cannot_be_is_refused(key: str, value: object, tmp_path: Path) -> None:
    state = State(seed=1, num_steps=1)
    state.save(tmp_path, 2, best_step=1)
    path = tmp_path / "step-2" / "state.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, key: value}))
    with pytest.raises(RunError, match="is damaged") as caught:
        checkpoint.read_position(tmp_path / "step-2")
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "{", "\x00" * 40, "[" * 100_000, '{"step": NaN}', '{"step": 1e999}']
)
def test_a_state_of_nothing_is_refused(text: str, tmp_path: Path) -> None:
    State(seed=1, num_steps=1).save(tmp_path, 2)
    (tmp_path / "step-2" / "state.json").write_text(text)
    with pytest.raises(RunError, match="is damaged"):
        checkpoint.read_position(tmp_path / "step-2")


@pytest.mark.parametrize("file", ["parameters", "optimizer", "average"])
@pytest.mark.parametrize("change", ["nan", "inf", "dtype"])
def test_tensors_that_cannot_be_are_refused(file: str, change: str, tmp_path: Path) -> None:
    state = State(seed=1, num_steps=1)
    state.save(tmp_path, 2)
    path = tmp_path / "step-2" / f"{file}.safetensors"
    tensors = load_file(path)
    chosen = next(key for key in sorted(tensors) if tensors[key].dim() == 2)
    if change == "dtype":
        tensors[chosen] = tensors[chosen].to(torch.float16)
    else:
        tensors[chosen][0, 0] = float(change)
    save_file(tensors, path)
    with pytest.raises(RunError) as caught:
        state.load(tmp_path / "step-2")
    assert caught.value.where == str(path)


@pytest.mark.parametrize("moment", ["exp_avg_sq", "step"])
def test_moments_below_what_they_can_be_are_refused(moment: str, tmp_path: Path) -> None:
    state = State(seed=1, num_steps=1)
    state.save(tmp_path, 2)
    path = tmp_path / "step-2" / "optimizer.safetensors"
    tensors = load_file(path)
    chosen = next(key for key in sorted(tensors) if key.endswith(f"/{moment}"))
    tensors[chosen] -= 100
    save_file(tensors, path)
    with pytest.raises(RunError, match="below"):
        state.load(tmp_path / "step-2")


@pytest.mark.parametrize(
    "file", ["state.json", "parameters.safetensors", "optimizer.safetensors", "average.safetensors"]
)
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "garbage"])
def test_a_damaged_file_is_a_run_error(file: str, damage: str, tmp_path: Path) -> None:
    state = State(seed=1, num_steps=1)
    state.save(tmp_path, 2)
    path = tmp_path / "step-2" / file
    content = path.read_bytes()
    damaged = {"truncated": content[:-5], "empty": b"", "garbage": b"\xff" * len(content)}
    path.unlink()
    if damage in damaged:
        path.write_bytes(damaged[damage])
    with pytest.raises(RunError, match="missing" if damage == "missing" else "damaged") as caught:
        state.load(tmp_path / "step-2")
    assert caught.value.where == str(path)


@pytest.mark.parametrize("file", ["parameters", "optimizer", "average"])
@pytest.mark.parametrize("change", ["lacking", "surplus", "shape"])
def test_tensors_of_another_model_are_refused(file: str, change: str, tmp_path: Path) -> None:
    state = State(seed=1, num_steps=1)
    state.save(tmp_path, 2)
    path = tmp_path / "step-2" / f"{file}.safetensors"
    tensors = load_file(path)
    chosen = next(key for key in sorted(tensors) if tensors[key].dim() == 2)
    if change == "lacking":
        owner = chosen.partition("/")[0]
        tensors = {key: value for key, value in tensors.items() if key.partition("/")[0] != owner}
    elif change == "surplus":
        tensors["other.weight/exp_avg"] = torch.zeros(2, 2)
    else:
        tensors[chosen] = tensors[chosen].t().contiguous()
    save_file(tensors, path)
    with pytest.raises(RunError, match="another model"):
        state.load(tmp_path / "step-2")


def test_states_of_other_versions_are_refused(tmp_path: Path) -> None:
    State(seed=1, num_steps=1).save(tmp_path, 3)
    path = tmp_path / "step-3" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mood": "good"}))
    with pytest.raises(RunError, match="mood"):
        checkpoint.read_position(tmp_path / "step-3")
