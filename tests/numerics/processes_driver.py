"""Scenes that several processes carry out together; ``python processes_driver.py REQUESTS FOLDER``.

The requests are a JSON list of {scene, count, arguments}. Importing takes seconds, so one process imports everything
and forks the processes of each scene with the variables that torchrun would set. What each says goes to
``FOLDER/<number>-<rank>.json``: {"result"} or {"error", "message"}. A scene that takes longer than two minutes is
ended, and its processes say nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from accelerate.state import PartialState

import submillion.pipeline.finish
import submillion.pipeline.fit
import submillion.pipeline.run
import submillion.training.step
from submillion.config.run import TrainConfig, parse_config
from submillion.errors import DataError, RunError
from submillion.scoring.score import score
from submillion.training.collective import open_processes
from submillion.training.feed import order_epoch
from submillion.training.loop import train_steps
from submillion.training.optim import MovingAverage, build_optimizer
from tests.tiny_classifiers import build_tiny_classifier, make_features

PATIENCE_S = 120.0


def play_curve(
    base: str, lengths: list[int], *, late: bool = False, record_weights: tuple[float, ...] = (1.0,), **train: Any
) -> dict[str, Any]:
    """Train a tiny classifier, and return its steps and a digest of the result."""
    if late:
        submillion.training.step._reads_late = lambda device: True
    processes = open_processes()
    classifier = build_tiny_classifier(
        Path(base), head="linear", dropout=0.1, adapter_dropout=0.2, head_dropout=0.1, moved=False
    ).classifier
    config = TrainConfig(**train)
    parameters = classifier.trainable_parameters()
    average = MovingAverage(parameters, 0.9)
    optimizer = build_optimizer(parameters, config)
    weights = itertools.cycle(record_weights)
    features = [replace(item, weight=weight) for item, weight in zip(make_features(lengths), weights, strict=False)]
    steps = train_steps(classifier, features, optimizer, config, seed=3, average=average, processes=processes)
    keys = ("loss", "grad_norm", "num_right", "num_records", "num_tokens", "epoch")
    rows = [{key: getattr(step, key) for key in keys} for step in steps]
    return {
        "steps": rows,
        "parameters": {name: p.detach().flatten().tolist() for name, p in parameters.items()},
        "digest": digest(list(parameters.values()) + list(average.values.values())),
    }


def digest(tensors: list[Any]) -> str:
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()


def play_spoilt_step(base: str, how: str, *, late: bool = False) -> None:
    """Train until one process meets something in its share of step 2."""
    if late:
        submillion.training.step._reads_late = lambda device: True
    processes = open_processes()
    classifier = build_tiny_classifier(Path(base), head="linear", targets=("query",)).classifier
    config = TrainConfig(batch_size=4, epochs=1.0, learning_rate=0.1, warmup_ratio=0.0, micro_batch_tokens=16)
    parameters = classifier.trainable_parameters()
    optimizer = build_optimizer(parameters, config)
    features = make_features([5, 9, 12, 5, 7, 7, 8, 8])
    steps = train_steps(classifier, features, optimizer, config, seed=0, processes=processes)
    forward = type(classifier).forward
    victims = {features[row].id for row in order_epoch(8, seed=0, epoch=0)[4:]}
    made: list[str] = []

    def spoil(self: Any, batch: Any) -> torch.Tensor:
        logits = forward(self, batch)
        if processes.rank == 1 and victims & set(batch.ids):
            if how == "exit":
                os._exit(9)
            if how == "memory":
                raise MemoryError("no memory for this")
            if how == "gradient":
                logits.register_hook(lambda gradient: gradient * float("nan"))
            else:
                return logits * float("inf")
        return logits

    patch.object(type(classifier), "forward", spoil).start()
    try:
        made.extend(digest(list(parameters.values())) for _ in steps)
    except Exception as error:
        assert len(made) == 1
        assert digest(list(parameters.values())) == made[0], "the step was made"
        error.args = (f"{error} [after {made[0][:8]}]",)
        raise


def play_score(base: str, lengths: list[int]) -> list[Any]:
    """Score rows of these lengths."""
    classifier = build_tiny_classifier(Path(base), head="linear").classifier
    done: list[int] = []
    features = make_features(lengths)
    processes = open_processes()
    logits = score(classifier, features, max_tokens=64, on_progress=done.append, processes=processes)
    assert not processes.is_first or done[-1] == len(features)
    rows: list[Any] = logits.tolist()
    return rows


def play_score_of_diverged(base: str) -> None:
    """Score with a model that is broken in one process."""
    processes = open_processes()
    classifier = build_tiny_classifier(Path(base), head="linear").classifier
    if processes.rank == 1:
        with torch.no_grad():
            head: Any = classifier.head
            head.linear.weight.fill_(float("inf"))
    score(classifier, make_features([5, 6, 7, 8]), max_tokens=64, processes=processes)


def play_words() -> dict[str, Any]:
    """Tell each other things."""
    processes = open_processes()
    rank = processes.rank
    told = processes.exchange({"rank": rank, "text": "ä" * (1 + 5 * rank), "number": 0.1})
    shared = processes.share([1, None, "x"] if processes.is_first else "not this")
    gathered = processes.gather(torch.full((2, 2), float(rank))).tolist()
    total = processes.add_up(torch.tensor([1.0, rank])).tolist()
    messages = []
    for what in ("data", "bug", "other files"):
        try:
            with processes.acting_together():
                if what == "data" and rank == 1:
                    raise DataError("is empty", where="rows.csv", hint="Fill it.")
                if what == "bug" and rank == 1:
                    raise KeyError("column")
            processes.require_same({"digest": rank if what == "other files" else 7}, "Copy them.")
        except (DataError, RunError, KeyError) as error:
            messages.append([type(error).__name__, str(error)])
    with processes.acting_together():
        pass
    time.sleep(1.2 * rank)
    folder = submillion.pipeline.run.choose_folder(parse_config({"name": "named"}, where="driver"))
    return {"told": told, "shared": shared, "gathered": gathered, "total": total, "messages": messages} | {
        "folder": str(folder),
        "processes": [processes.rank, processes.count, processes.local_count, str(processes.device)],
    }


def play_plain_accelerator() -> None:
    """Open the processes where a plain state, as of `Accelerator()`, has been made before."""
    PartialState()
    open_processes()


def play_run(config: dict[str, Any], folder: str, *, stop_after: int | None = None, resume: bool = False) -> Any:
    """Carry out a run or continue it; the last process gets a SIGTERM after a step."""
    patch.multiple(submillion.pipeline.finish, verify_run=lambda *_: {}, write_report=lambda *_: None).start()
    processes = open_processes()
    real = submillion.pipeline.fit.Fitting._log_step

    def log_and_signal(self: Any, result: Any) -> None:
        real(self, result)
        if result.step == stop_after and processes.rank == processes.count - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.object(submillion.pipeline.fit.Fitting, "_log_step", log_and_signal).start()
    try:
        if resume:
            summary = submillion.pipeline.run.resume_run(Path(folder))
        else:
            summary = submillion.pipeline.run.start_run(parse_config(config, where="driver"), Path(folder))
    except submillion.pipeline.fit.Interrupted as interrupted:
        return {"interrupted": interrupted.folder}
    return {"run": str(summary.run), "evaluations": summary.evaluations, "threads": torch.get_num_threads()}


def play(scene: str, arguments: dict[str, Any], path: Path) -> None:
    functions: dict[str, Callable[..., Any]] = {
        name.removeprefix("play_"): value for name, value in globals().items() if name.startswith("play_")
    }
    try:
        said: dict[str, Any] = {"result": functions[scene](**arguments)}
    except Exception as error:
        said = {"error": type(error).__name__, "message": str(error)}
    path.with_suffix(".tmp").write_text(json.dumps(said))
    path.with_suffix(".tmp").rename(path)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def find_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def stage(number: int, request: dict[str, Any], folder: Path) -> None:
    count = request["count"]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_port())}
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            if count > 1:
                ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                os.environ.update(address | {name: str(value) for name, value in ranks.items()})
            try:
                play(request["scene"], request["arguments"], folder / f"{number}-{rank}.json")
            finally:
                os._exit(0)
        children.append(child)
    end = time.monotonic() + PATIENCE_S
    while children and time.monotonic() < end:
        children = [child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0]
        time.sleep(0.01)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main() -> None:
    torch.set_num_threads(1)
    for number, request in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        stage(number, request, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
