from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score

from submillion.config.run import RunConfig, TrainConfig, parse_config
from submillion.errors import ConfigError, RunError
from submillion.metrics.direction import is_better
from submillion.metrics.stats import bin_reliability, measure_calibration_error
from submillion.pipeline.fit import FitResult, Fitting, RunLog, list_events
from submillion.progress import Silent
from submillion.records import LabelSet
from submillion.run.folder import RunDir
from submillion.scoring.score import score
from submillion.scoring.validation_figures import find_metric_class, measure
from submillion.storage.files import read_log
from submillion.training.checkpoint import Position
from tests.tiny_classifiers import build_tiny_classifier, make_features


@pytest.mark.parametrize(
    ("interval", "unit", "per_epoch", "num_steps", "expected"),
    [
        (1.0, "epochs", 4, 12, {4, 8, 12}),
        (0.5, "epochs", 4, 8, {2, 4, 6, 8}),
        (0.3, "epochs", 5, 6, {2, 3, 4, 6}),
        (0.01, "epochs", 4, 3, {1, 2, 3}),
        (5, "steps", 4, 12, {5, 10, 12}),
        (5, "epochs", 4, 12, {12}),
        (100, "steps", 4, 12, {12}),
        (1, "steps", 4, 3, {1, 2, 3}),
    ],
)
def test_events(interval: float, unit: str, per_epoch: int, num_steps: int, expected: set[int]) -> None:
    assert list_events(interval, unit, per_epoch, num_steps) == expected


def test_the_earliest_of_equals_is_the_best() -> None:
    less = {"loss", "brier_raw", "ece_raw"}
    more = {"accuracy", "macro_precision", "macro_recall", "macro_f1", "f1:Sports"}
    for metric in more | less:
        assert is_better(metric, 0.5, None)
        assert not is_better(metric, 0.5, 0.5)
        assert is_better(metric, 0.6, 0.5) == (metric in more)
        assert is_better(metric, 0.4, 0.5) == (metric in less)


@pytest.mark.parametrize("metric", ["f1", "F1:Sports", "f1:", "accuracy ", "ece", "true"])
def test_metrics_that_are_not_known_are_refused(metric: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.metric"):
        parse_config({"train": {"metric": metric}}, where="test")


def test_a_metrics_class_is_found_among_the_labels() -> None:
    labels = LabelSet(("World", "Sci/Tech"))
    assert find_metric_class("f1:Sci/Tech", labels) == 1
    assert find_metric_class("macro_f1", labels) is None
    with pytest.raises(ConfigError, match="no class 'sports'") as caught:
        find_metric_class("f1:sports", labels)
    assert "'World', 'Sci/Tech'" in caught.value.hint


def test_measure_is_sklearns(tiny_bert: Path) -> None:
    tiny = build_tiny_classifier(tiny_bert, head="linear", targets=("query",))
    features = make_features(tuple(range(4, 40)))
    config = TrainConfig(metric="f1:b")
    figures = measure(tiny.classifier, features, config, on_progress=lambda _: None, label_id=1)
    logits = score(tiny.classifier, features, max_tokens=10_000)
    labels = np.array([item.label for item in features])
    predicted = logits.argmax(axis=1)
    assert len(set(predicted.tolist())) > 1
    probabilities = torch.from_numpy(logits).double().softmax(1).numpy()
    how: dict[str, Any] = {"average": "macro", "zero_division": 0}
    assert figures == pytest.approx(
        {
            "loss": log_loss(labels, probabilities),
            "brier_raw": ((probabilities - np.eye(4)[labels]) ** 2).sum(axis=1).mean(),
            "ece_raw": measure_calibration_error(bin_reliability(probabilities.max(axis=1), predicted == labels)),
            "f1:b": f1_score(labels, predicted, labels=[1], average="macro"),
            "accuracy": float((predicted == labels).mean()),
            "macro_precision": precision_score(labels, predicted, **how),
            "macro_recall": recall_score(labels, predicted, **how),
            "macro_f1": f1_score(labels, predicted, **how),
        },
        rel=1e-5,
    )


def test_the_log_is_cut_back_before_it_goes_on(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    log = RunLog(run, Position())
    log.write({"kind": "step", "step": 1})
    length = log.sync()
    log.write({"kind": "step", "step": 2})
    log.close()
    assert length == len('{"kind": "step", "step": 1}\n')
    with run.log.open("ab") as file:
        file.write(b'{"kind": "st')
    log = RunLog(run, Position(step=1, log_bytes=length))
    log.write({"kind": "step", "step": 7})
    assert log.sync() == 2 * length
    log.close()
    assert [entry["step"] for entry in read_log(run.log)] == [1, 7]


@pytest.mark.parametrize(
    "content",
    [None, b"", b'{"kind": "step"', b'{"kind": "step", "step": 2}\n', b"\x00" * 28, b"[]" * 14, b'{"step": NaN}' * 3],
)
def test_a_log_that_is_not_the_checkpoints_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes | None) -> None:
    run = RunDir(tmp_path)
    if content is not None:
        run.log.write_bytes(content)
    with pytest.raises(RunError) as caught:
        RunLog(run, Position(step=1, log_bytes=28))
    assert caught.value.where.startswith(str(run.log))
    assert (run.log.read_bytes() if run.log.exists() else None) == content


@pytest.mark.parametrize("make", [os.link, os.symlink])
def test_a_log_that_lies_elsewhere_too_is_not_cut(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    (tmp_path / "precious").write_text("text")
    make(tmp_path / "precious", run.log)
    with pytest.raises(RunError):
        RunLog(run, Position())
    assert (tmp_path / "precious").read_text() == "text"


# ------------------------------------------------------------------------------------- validation, patience, the best


@pytest.fixture
def run_fit(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FitResult]:
    """Return `run(values, **train)`: fit with one step an epoch, each validated, with these validation figures."""

    def run(values: list[float], **train: Any) -> FitResult:
        given = iter(values)

        def measure_as_given(*_: Any, **__: Any) -> dict[str, float]:
            value = next(given)
            return dict.fromkeys(("loss", "accuracy", "macro_f1", "brier_raw", "f1:c"), value)

        monkeypatch.setattr("submillion.pipeline.fit.measure", measure_as_given)
        settings = {"batch_size": 8, "epochs": len(values), "learning_rate": 0.01, "warmup_ratio": 0.0, **train}
        config = RunConfig.model_validate({"train": settings})
        tiny = build_tiny_classifier(tiny_bert, head="linear", targets=("query",))
        features = make_features((5, 6, 7, 8, 9, 5, 5, 5))
        labels = LabelSet(("a", "b", "c", "d"))
        fitting = Fitting(tiny.classifier, config, RunDir(tmp_path), Silent(), labels=labels)
        result = fitting.fit(features, features, {})
        # The classifier must have the best step's parameters from its checkpoint.
        saved = load_file(tmp_path / "checkpoints" / f"step-{result.best_step}" / "parameters.safetensors")
        assert all(torch.equal(saved[name], p) for name, p in tiny.classifier.trainable_parameters().items())
        assert (tmp_path / "checkpoints" / "best").read_text() == f"step-{result.best_step}\n"
        return result

    return run


@pytest.mark.parametrize(
    ("train", "values", "best", "num_steps"),
    [
        ({}, [0.5, 0.7, 0.6, 0.7], 2, 4),
        ({"patience": 2}, [0.5, 0.7, 0.6, 0.7, 0.9], 2, 4),
        ({"patience": 2}, [0.5, 0.4, 0.6, 0.5, 0.6], 3, 5),
        ({"patience": 1}, [0.5, 0.5, 0.6], 1, 2),
        ({"patience": 2, "metric": "loss"}, [0.5, 0.7, 0.4, 0.4, 0.6, 0.1], 3, 5),
        ({"metric": "macro_f1", "keep_checkpoints": 1}, [0.9, 0.1, 0.2, 0.3], 1, 4),
        ({"metric": "brier_raw"}, [0.5, 0.1, 0.2, 0.3], 2, 4),
        ({"metric": "f1:c"}, [0.5, 0.1, 0.8, 0.3], 3, 4),
    ],
)
def test_early_stopping_and_the_best(
    train: dict[str, Any],
    values: list[float],
    best: int,
    num_steps: int,
    request: pytest.FixtureRequest,
) -> None:
    folder: Path = request.getfixturevalue("tmp_path")
    result = request.getfixturevalue("run_fit")(values, **train)
    assert (result.best_step, result.best_value, result.num_steps) == (best, values[best - 1], num_steps)
    entries = read_log(folder / "log.jsonl")
    assert [entry["step"] for entry in entries if entry["kind"] == "step"] == list(range(1, num_steps + 1))
    validations = [entry for entry in entries if entry["kind"] == "evaluation"]
    assert [entry["step"] for entry in validations] == list(range(1, num_steps + 1))
    bests = [entry["step"] for entry in validations if entry["best"]]
    assert bests[-1] == best
    state = json.loads((folder / "checkpoints" / f"step-{num_steps}" / "state.json").read_text())
    assert state["stopped"] == (num_steps - best >= train.get("patience", 100))


def test_watched_sets_are_logged_and_move_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    outcomes = []
    for name, watched in (("without", {}), ("with", {"far": make_features((9, 9, 30), seed=5)})):
        folder = tmp_path / name
        folder.mkdir()
        settings = {"batch_size": 4, "epochs": 2, "learning_rate": 0.01, "ema_decay": 0.5}
        config = RunConfig.model_validate({"train": settings})
        tiny = build_tiny_classifier(tiny_bert, head="linear", targets=("query",), dropout=0.2)
        features = make_features((5, 6, 7, 8, 9, 5, 5, 5))
        Fitting(tiny.classifier, config, RunDir(folder), Silent()).fit(features, features, watched)
        outcomes.append({key: value.detach() for key, value in tiny.classifier.trainable_parameters().items()})
        logged = {entry["split"] for entry in read_log(folder / "log.jsonl") if entry["kind"] == "evaluation"}
        assert logged == {"validation", *watched}
    assert all(torch.equal(outcomes[0][name], value) for name, value in outcomes[1].items())


def test_averages_are_what_is_validated_and_kept(tiny_bert: Path, tmp_path: Path) -> None:
    settings = {"batch_size": 4, "epochs": 2, "learning_rate": 0.05, "ema_decay": 0.9}
    tiny = build_tiny_classifier(tiny_bert, head="linear", targets=("query",))
    features = make_features((5, 6, 7, 8, 9, 5, 5, 5))
    fitting = Fitting(tiny.classifier, RunConfig.model_validate({"train": settings}), RunDir(tmp_path), Silent())
    result = fitting.fit(features, features, {})
    folder = tmp_path / "checkpoints" / f"step-{result.best_step}"
    averages, parameters = (load_file(folder / f"{name}.safetensors") for name in ("average", "parameters"))
    for name, parameter in tiny.classifier.trainable_parameters().items():
        assert torch.equal(parameter, averages[name])
        assert not torch.equal(parameter, parameters[name])
    logged = [entry for entry in read_log(tmp_path / "log.jsonl") if entry["kind"] == "evaluation" and entry["best"]]
    assert logged[-1]["loss"] == pytest.approx(
        measure(tiny.classifier, features, TrainConfig(), on_progress=lambda _: None)["loss"], rel=1e-5
    )
