"""Runs that begin with the trained weights of others, and weights that would mean something else and are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from submillion.config.run import RunConfig, parse_config
from submillion.errors import ConfigError, ModelError, RunError, SubmillionError
from submillion.pipeline.fit import Fitting
from submillion.pipeline.run import resume_run, start_run
from submillion.progress import Silent
from submillion.run.folder import RunDir
from submillion.storage.files import read_json, read_log

Make = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes seconds and is looked at elsewhere: the proof in a fresh process, the report."""
    monkeypatch.setattr("submillion.pipeline.finish.verify_run", lambda *_: {})
    monkeypatch.setattr("submillion.pipeline.finish.write_report", lambda *_: None)


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("news")
    news_rows(folder / "train.csv", 64)
    news_rows(folder / "test.csv", 16, start=1000)
    return folder


@pytest.fixture
def make(news: Path, tiny_bert: Path) -> Make:
    def build(**sections: Any) -> RunConfig:
        train = {"max_steps": 4, "batch_size": 8, "evaluate_every": 2, "interval_unit": "steps", "learning_rate": 0.01}
        values: dict[str, Any] = {
            "threads": 1,
            "baseline": False,
            "data": {"source": str(news), "validation_size": 0.25, **sections.pop("data", {})},
            "model": {"base": str(tiny_bert), "max_length": 48, "precision": "fp32", **sections.pop("model", {})},
            "adapter": {"rank": 2, "targets": ["query"], **sections.pop("adapter", {})},
            "train": {**train, **sections.pop("train", {})},
            **sections,
        }
        return parse_config(values, where="test")

    return build


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Collect the parameters that each run begins to fit with."""
    seen: list[dict[str, torch.Tensor]] = []
    fit = Fitting.fit

    def note(self: Fitting, *sets: Any) -> Any:
        seen.append({name: value.detach().clone() for name, value in self.parameters.items()})
        return fit(self, *sets)

    monkeypatch.setattr(Fitting, "fit", note)
    return seen


def read_weights(run: Path, step: int, file: str = "parameters") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step}" / f"{file}.safetensors")


def is_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("head", ["linear", "native"])
def test_a_run_begins_with_the_weights_of_another(
    head: str, make: Make, begun: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    first = start_run(make(model={"head": head}, train={"ema_decay": 0.5}), tmp_path / "first").run
    manifest = read_json(RunDir(first).manifest)
    best = manifest["best_step"]
    averages = read_weights(first, best, "average")
    assert not is_same(begun[0], averages)
    # The schedule, the optimizer and the number of steps are the new run's own.
    settings: dict[str, Any] = {"model": {"head": head}, "train": {"learning_rate": 0.002, "max_steps": 2}}
    origins = {
        "run": (first, averages, best),
        "checkpoint": (first / "checkpoints" / "step-2", read_weights(first, 2, "average"), 2),
        "adapter": (first / "adapter", averages, None),
    }
    for kind, (path, weights, step) in origins.items():
        second = start_run(make(start_from=str(path), **settings), tmp_path / kind).run
        assert is_same(begun[-1], weights), kind
        told = read_json(RunDir(second).manifest)["started_from"]
        assert (told["kind"], told["path"], told["step"]) == (kind, str(path.resolve()), step)
        assert all(len(digest) == 64 for digest in told["sha256"].values())
        assert told.get("created") == (None if kind == "adapter" else manifest["created"])
        steps = [entry for entry in read_log(RunDir(second).log) if entry["kind"] == "step"]
        assert [entry["step"] for entry in steps] == [1, 2]
        assert max(entry["learning_rate"] for entry in steps) <= 0.002


def test_what_is_resumed_goes_on_from_its_own_checkpoint(
    make: Make, begun: list[dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start_run(make(), tmp_path / "first").run
    config = make(start_from=str(first), train={"max_steps": 4})
    whole = start_run(config, tmp_path / "whole").run
    save = Fitting._save

    def stop_after_saving(self: Fitting) -> None:
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "_save", stop_after_saving)
        with pytest.raises(KeyboardInterrupt):
            start_run(config, tmp_path / "stopped")
    shutil.rmtree(first)
    resumed = resume_run(tmp_path / "stopped").run
    assert is_same(begun[-1], read_weights(resumed, 2))
    assert is_same(read_weights(whole, 4), read_weights(resumed, 4))


def test_an_unfinished_run_gives_its_last_checkpoint(
    make: Make, begun: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    first = start_run(make(), tmp_path / "first").run
    manifest = read_json(RunDir(first).manifest)
    del manifest["temperature"]
    RunDir(first).manifest.write_text(json.dumps(manifest))
    second = start_run(make(start_from=str(first)), tmp_path / "second").run
    assert is_same(begun[-1], read_weights(first, 4))
    assert read_json(RunDir(second).manifest)["started_from"]["kind"] == "checkpoint"
    shutil.rmtree(first / "checkpoints")
    with pytest.raises(RunError, match="no trained weights yet"):
        start_run(make(start_from=str(first)), tmp_path / "third")


REFUSALS: tuple[tuple[dict[str, Any], type[SubmillionError], str], ...] = (
    ({"adapter": {"rank": 3}}, ModelError, "has rank 2 there and 3 here"),
    ({"adapter": {"alpha": 1}}, ModelError, "has scaling 2.0 there and 0.5 here"),
    ({"adapter": {"targets": ["value"]}}, ModelError, "has an adapter only there"),
    ({"adapter": {"targets": ["query", "value"]}}, ModelError, "value has an adapter only here"),
    ({"adapter": {"bias": "all"}}, ModelError, "bias is none there and all here"),
    ({"adapter": {"variant": "dora"}}, ModelError, "variant is lora there and dora here"),
    ({"model": {"head": "native"}}, ModelError, "head is linear there and native here"),
    ({"model": {"pooling": "first"}}, ConfigError, "trained on the mean state"),
    ({"data": {"labels": ["Sports", "World", "Business", "Sci/Tech"]}}, ConfigError, "head knows the classes"),
)


def test_weights_that_would_mean_something_else_are_refused(make: Make, tmp_path: Path, build_tiny_base: Any) -> None:
    first = start_run(make(), tmp_path / "first").run
    for number, (sections, kind, message) in enumerate(REFUSALS):
        with pytest.raises(kind, match=message):
            start_run(make(start_from=str(first), **sections), tmp_path / f"refused-{number}")
        assert not (tmp_path / f"refused-{number}").exists()
    other = build_tiny_base("bert", tmp_path / "base")
    weights = load_file(other / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += 1.0
    from safetensors.torch import save_file

    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="were trained on"):
        start_run(make(start_from=str(first), model={"base": str(other)}), tmp_path / "other")


@pytest.mark.parametrize("what", ["absent", "empty"])
def test_a_place_without_weights_is_a_config_error(what: str, make: Make, tmp_path: Path) -> None:
    place = tmp_path / what
    if what == "empty":
        place.mkdir()
    notes: list[str] = []

    class Noting(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    with pytest.raises(ConfigError, match="no such folder" if what == "absent" else "is no run"):
        start_run(make(start_from=str(place)), tmp_path / "run", progress=Noting())
    # It would read as if a run of an earlier version had been found.
    assert not any("nothing is known" in note for note in notes)
