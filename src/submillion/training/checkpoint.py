"""Checkpoints: everything that a run needs to continue with the same bytes, as safetensors and JSON, never pickle.

A checkpoint is a new folder ``step-N`` that appears complete through a rename. ``last`` and ``best`` are small files
that name a checkpoint and are replaced atomically. Data order and dropout masks are functions of (seed, step), so there
is no generator state to keep.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from submillion.errors import RunError
from submillion.storage.files import (
    full_disk_is_run_error,
    read_json,
    read_plain,
    read_plain_text,
    sync_folder,
    write_text,
)
from submillion.storage.json_shapes import ANY_NUMBER, COUNT, Maybe, Number, Shape, check_shape
from submillion.training.optim import MovingAverage

STATE_NAME = "state.json"
_NAME = re.compile(r"step-(0|[1-9][0-9]{0,17})")
_NEW_START = "The checkpoints folder is damaged; start the run again in a new folder."
_STATE: Shape = {
    "step": Number(1, 1 << 62, is_whole=True),
    "best_step": COUNT,
    "best_value": Maybe(ANY_NUMBER),
    "validations_since_best": COUNT,
    "stopped": bool,
    "elapsed_s": Number(0),
    "log_bytes": COUNT,
    "average_updates": COUNT,
    # Runs of earlier versions have none.
    "loss_scale?": Maybe(Number(0, is_above=True)),
    "num_good_steps?": COUNT,
}
_PARAMETERS = "parameters.safetensors"
_MOMENTS = "optimizer.safetensors"
_AVERAGE = "average.safetensors"
_MOMENTS_OF_ADAM = ("step", "exp_avg", "exp_avg_sq")
_MAX_TENSOR_BYTES = 1 << 30
"""Size limit for files of tensors; a million parameters have eight million bytes of moments."""


@dataclass(frozen=True)
class Position:
    """The state of a run, besides its tensors.

    Attributes:
        step: Number of optimizer steps made.
        best_step: Step of the best validation so far, 0 before the first.
        best_value: Figure of the best validation, or None.
        validations_since_best: Number of validations since the best one, for early stopping.
        stopped: Whether early stopping has ended the run.
        elapsed_s: Seconds of training so far, over all attempts.
        log_bytes: Length of log.jsonl when the checkpoint was made.
        average_updates: Number of updates of the moving average.
        loss_scale: Factor on the losses of the next step; None without loss scaling.
        num_good_steps: Number of steps without an overflow since the scale last changed.
    """

    step: int = 0
    best_step: int = 0
    best_value: float | None = None
    validations_since_best: int = 0
    stopped: bool = False
    elapsed_s: float = 0.0
    log_bytes: int = 0
    average_updates: int = 0
    loss_scale: float | None = None
    num_good_steps: int = 0


def save_checkpoint(
    folder: Path,
    position: Position,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None,
) -> None:
    """Write ``step-N`` and let ``last`` point to it.

    Args:
        folder: The run's checkpoints folder.
        position: State of the run.
        parameters: Trained parameters by name.
        optimizer: Optimizer, whose moments are saved by parameter name.
        average: Moving average, if the run has one.

    Raises:
        RunError: The disk is full. Earlier checkpoints are still valid.
    """
    files = {
        STATE_NAME: (json.dumps(asdict(position), indent=2) + "\n").encode(),
        _PARAMETERS: save({name: p.detach().cpu().contiguous() for name, p in parameters.items()}),
        _MOMENTS: save(_collect_moments(parameters, optimizer)),
    }
    if average is not None:
        files[_AVERAGE] = save({name: value.cpu().contiguous() for name, value in average.values.items()})
    name = f"step-{position.step}"
    final = folder / name
    temporary = folder / f".{name}.tmp"
    with full_disk_is_run_error(final):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for file_name, content in files.items():
                _write_synced(temporary / file_name, content)
            sync_folder(temporary)
            # A checkpoint of the same step can exist if the process was killed between this rename and the pointer.
            shutil.rmtree(final, ignore_errors=True)
            os.rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(folder)
    point_to(folder, "last", position.step)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _collect_moments(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    moments = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            moments[f"{name}/{key}"] = value.detach().cpu().contiguous()
    return moments


def point_to(folder: Path, pointer: str, step: int) -> None:
    """Let ``last`` or ``best`` name the checkpoint of a step, atomically."""
    write_text(folder / pointer, f"step-{step}\n")


def find_checkpoint(folder: Path, pointer: str) -> Path | None:
    """Return the checkpoint that ``last`` or ``best`` names, or None before the first one.

    Raises:
        RunError: The pointer is damaged, is missing beside checkpoints, or does not name a checkpoint in this folder.
    """
    path = folder / pointer
    try:
        name = read_plain_text(path, max_bytes=4096).strip()
    except FileNotFoundError:
        steps = list(_list_steps(folder))
        # The first checkpoint can lack its pointer if the process was killed between the two.
        if len(steps) > 1 or (pointer == "last" and (folder / "best").exists()):
            raise RunError("is missing, though there are checkpoints", where=str(path), hint=_NEW_START) from None
        return None
    if not _NAME.fullmatch(name):
        raise RunError(f"names {name[:60]!r}, which is not a checkpoint", where=str(path), hint=_NEW_START)
    target = folder / name
    if target.is_symlink() or not (target / STATE_NAME).exists():
        raise RunError(f"names {name!r}, which does not exist", where=str(path), hint=_NEW_START)
    return target


def read_position(checkpoint: Path) -> Position:
    """Read the state of a run from a checkpoint.

    Raises:
        RunError: The state file is damaged or belongs to another step.
    """
    path = checkpoint / STATE_NAME
    values = read_json(path)
    check_shape(values, _STATE, path)
    unknown = values.keys() - {field.name for field in fields(Position)}
    if unknown:
        raise RunError(f"is damaged: {sorted(unknown)[0]!r:.60} is an unknown entry", where=str(path), hint=_NEW_START)
    position = Position(**values)
    problem = _find_contradiction(position, checkpoint.name)
    if problem:
        raise RunError(f"is damaged: {problem}", where=str(path), hint=_NEW_START)
    return position


def _find_contradiction(position: Position, name: str) -> str:
    if name != f"step-{position.step}":
        return f"step is {position.step}, but its folder is {name}"
    if position.best_step > position.step:
        return f"best_step is {position.best_step}, after step {position.step}"
    if (position.best_step > 0) != (position.best_value is not None):
        return f"best_step is {position.best_step}, and best_value {position.best_value}"
    return ""


def load_parameters(checkpoint: Path, parameters: Mapping[str, nn.Parameter], *, averaged: bool = False) -> None:
    """Copy a checkpoint's parameters, or their moving averages, into a model.

    Raises:
        RunError: The file is damaged or belongs to another model.
    """
    path = checkpoint / (_AVERAGE if averaged else _PARAMETERS)
    _copy_tensors(_read_tensors(path, parameters), parameters)


def has_average(checkpoint: Path) -> bool:
    """Return whether a checkpoint holds moving averages beside its parameters."""
    return (checkpoint / _AVERAGE).exists()


def find_weights(checkpoint: Path) -> Path:
    """Return the file with the weights that are evaluated: the moving averages, if the checkpoint has them."""
    return checkpoint / (_AVERAGE if has_average(checkpoint) else _PARAMETERS)


def load_optimizer(checkpoint: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Restore an optimizer's moments.

    Raises:
        RunError: The file is damaged or belongs to another model.
    """
    path = checkpoint / _MOMENTS
    tensors = _read_file(path)
    wanted = {f"{name}/{moment}" for name in parameters for moment in _MOMENTS_OF_ADAM}
    if tensors.keys() != wanted:
        raise RunError(
            "belongs to another model: it holds the moments of other parameters", where=str(path), hint=_NEW_START
        )
    for key, value in tensors.items():
        name, _, moment = key.rpartition("/")
        parameter = parameters[name]
        shape = torch.Size([]) if moment == "step" else parameter.shape
        dtype = torch.float32 if moment == "step" else parameter.dtype
        if value.shape != shape or value.dtype != dtype:
            raise RunError(
                f"belongs to another model: {key} is {value.dtype} of shape {tuple(value.shape)}",
                where=str(path),
                hint=_NEW_START,
            )
        if moment != "exp_avg" and bool((value < 0).any()):
            raise RunError(f"is damaged: {key} is below its smallest possible value", where=str(path), hint=_NEW_START)
        # This includes step counts: the fused optimizer keeps them on the device.
        optimizer.state[parameter][moment] = value.to(parameter.device)


def load_average(checkpoint: Path, average: MovingAverage, num_updates: int) -> None:
    """Restore a moving average.

    Raises:
        RunError: The file is damaged or belongs to another model.
    """
    tensors = _read_tensors(checkpoint / _AVERAGE, average.values)
    average.num_updates = num_updates
    _copy_tensors(tensors, average.values)


def _copy_tensors(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


def _read_tensors(path: Path, wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tensors = _read_file(path)
    there = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    if there != {name: (tensor.shape, tensor.dtype) for name, tensor in wanted.items()}:
        raise RunError("belongs to another model: its tensors differ from the plan's", where=str(path), hint=_NEW_START)
    return tensors


def _read_file(path: Path) -> dict[str, torch.Tensor]:
    try:
        # The bytes are read, not mapped: if a mapped file is truncated, the process ends.
        tensors = load(read_plain(path, _MAX_TENSOR_BYTES))
    except FileNotFoundError:
        raise RunError("is missing", where=str(path), hint=_NEW_START) from None
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"is damaged: {error}", where=str(path), hint=_NEW_START) from None
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RunError(f"is damaged: {name} holds numbers that are not finite", where=str(path), hint=_NEW_START)
    return tensors


def delete_old_checkpoints(folder: Path, *, keep: int, last_step: int, best_step: int) -> None:
    """Delete all checkpoints but the newest and the best, and unfinished or unnamed ones that a kill left behind.

    Args:
        folder: The run's checkpoints folder.
        keep: Number of newest checkpoints to keep, at least 1.
        last_step: Step of the newest checkpoint. Later ones remain from a kill before their pointer was written, and
            the run has gone back to this step.
        best_step: Step of the best checkpoint, which is kept as well.
    """
    steps = sorted(_list_steps(folder), reverse=True)
    kept = {best_step, *[step for step in steps if step <= last_step][:keep]}
    for step in steps:
        if step not in kept:
            shutil.rmtree(folder / f"step-{step}")
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover)


def _list_steps(folder: Path) -> Iterable[int]:
    for path in folder.glob("step-*"):
        if found := _NAME.fullmatch(path.name):
            yield int(found[1])
