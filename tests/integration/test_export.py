"""Exports of trained runs, read back by the stock libraries alone and by this one."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

import submillion
from submillion.config.run import parse_config
from submillion.errors import ConfigError, ModelError, RunError
from submillion.model import adapter, stock_score
from submillion.model.base_files import read_safetensors
from submillion.pipeline.run import start_run
from submillion.run.folder import RunDir
from submillion.scoring.exports import export_run
from submillion.scoring.run_model import RunModel, load_run
from submillion.storage.files import read_json

TEXTS = (
    "Striker scores twice in the derby",
    "Bank cuts its rate",
    "Probe reaches comet",
    "Ministers sign truce on Monday",
)
NAMES = ("Business", "Sci/Tech", "Sports", "World")
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(
    tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path], tiny_base: Callable[[str], Path]
) -> Train:
    """Return `train(family, **sections) -> run folder`, each trained once and read-only."""
    root = tmp_path_factory.mktemp("exported")
    news_rows(root / "data" / "train.csv", 64)
    news_rows(root / "data" / "test.csv", 16, start=1000)
    runs: dict[str, Path] = {}

    def run(family: str, **sections: Any) -> Path:
        key = json.dumps([family, sections])
        if key not in runs:
            values: dict[str, Any] = {
                "threads": 1,
                "baseline": False,
                "data": {"source": str(root / "data"), "validation_size": 0.25},
                "train": {"max_steps": 6, "batch_size": 8, "learning_rate": 0.02},
                "model": {"base": str(tiny_base(family)), "max_length": 24, **sections.get("model", {})},
                "adapter": {"rank": 2, **sections.get("adapter", {})},
                "export": sections.get("export", ()),
            }
            values["model"]["precision"] = "fp32"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("submillion.pipeline.finish.verify_run", lambda *_: {})
                patch.setattr("submillion.pipeline.finish.write_report", lambda *_: None)
                runs[key] = start_run(parse_config(values, where="test"), root / f"run-{len(runs)}").run
        return runs[key]

    return run


def score(model: RunModel, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
    from submillion.records import Record

    return model.score_records([Record(str(row), (text,)) for row, text in enumerate(texts)]).logits


def score_padded(model: Any, folder: Path) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(list(TEXTS), truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits: np.ndarray = model.eval()(**inputs).logits.numpy()
    return logits


CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("roberta", {"adapter": {"bias": "all"}}),
    ("bert", {"adapter": {"variant": "dora", "targets": ["query", "value"]}}),
    ("bert", {"adapter": {"variant": "pissa"}, "model": {"dropout": 0.3}}),
    ("distilbert", {"adapter": {"variant": "rslora"}}),
)


@pytest.mark.parametrize(("family", "sections"), CASES, ids=str)
def test_a_merged_native_head_is_any_sequence_classifier(
    family: str, sections: dict[str, Any], train: Train, tmp_path: Path
) -> None:
    sections = {**sections, "model": {"head": "native", **sections.get("model", {})}}
    run = train(family, **sections)
    exported = export_run(run, out=tmp_path / "model")
    assert exported.max_logit_difference <= exported.bound < 0.05
    model: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert tuple(model.config.id2label[number] for number in range(4)) == NAMES
    assert model.config.label2id["Sci/Tech"] == 1
    if family == "bert":
        assert model.config.hidden_dropout_prob == 0.1
    assert exported.num_params == sum(p.numel() for p in model.parameters())
    expected = score(load_run(run, threads=1))
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(score_padded(model, tmp_path / "model"), expected, atol=1e-4)
    np.testing.assert_allclose(score(load_run(tmp_path / "model", threads=1)), expected, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").model_max_length == 24
    assert not [name for name in (p.name for p in (tmp_path / "model").iterdir()) if name.endswith((".tmp", ".bin"))]
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1
    config = (tmp_path / "model" / "config.json").read_text()
    assert "submillion_packed" not in config


def test_transformers_own_pipeline_reads_long_texts(train: Train, tmp_path: Path) -> None:
    run = train("roberta", model={"head": "native"}, adapter={"bias": "all"})
    export_run(run, out=tmp_path / "model")
    classify = pipeline("text-classification", model=str(tmp_path / "model"), device="cpu")
    [told] = classify(["word " * 300], truncation=True)
    assert told["label"] in NAMES


@pytest.mark.parametrize("family", ["roberta", "deberta-v2", "bert", "modernbert"])
def test_a_mean_head_is_read_by_submillion_and_never_taken_for_a_stock_head(
    family: str, train: Train, tmp_path: Path
) -> None:
    run = train(family, model={"pooling": "mean"})
    exported = export_run(run, out=tmp_path / "model")
    assert exported.loads_with == "submillion.load(FOLDER)"
    original, model = load_run(run, threads=1), load_run(tmp_path / "model", threads=1)
    np.testing.assert_allclose(score(model), score(original), atol=1e-4)
    assert [p.label for p in model.classify(TEXTS)] == [p.label for p in original.classify(TEXTS)]
    told, expected = model.classify(TEXTS)[0].probabilities, original.classify(TEXTS)[0].probabilities
    assert told == pytest.approx(expected, abs=1e-4)
    assert (model.labels, model.encoder.max_length) == (original.labels, 24)
    # And by hand, as the README in the folder says.
    encoder: Any = AutoModel.from_pretrained(tmp_path / "model").eval()
    head = read_safetensors(tmp_path / "model" / "head.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    with torch.inference_mode():
        states = encoder(**tokenizer(TEXTS[0], truncation=True, return_tensors="pt")).last_hidden_state[0]
        logits = head["head.weight"] @ states.mean(0) + head["head.bias"]
    np.testing.assert_allclose(logits.numpy(), score(original)[0], atol=1e-4)
    readme = (tmp_path / "model" / "README.md").read_text()
    assert "head.safetensors" in readme
    assert "mean of the last states" in readme
    assert "ONNX" in readme
    for options in ({}, {"num_labels": 4}, {"num_labels": 1}):
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", **options)
    with pytest.raises((OSError, ValueError, RuntimeError)):
        pipeline("text-classification", model=str(tmp_path / "model"), device="cpu")


@pytest.mark.parametrize("family", ["roberta", "deberta-v2", "bert", "distilbert", "electra"])
def test_a_first_state_head_becomes_a_stock_head(family: str, train: Train, tmp_path: Path) -> None:
    run = train(family, model={"pooling": "first"})
    exported = export_run(run, out=tmp_path / "model")
    assert exported.loads_with == "AutoModelForSequenceClassification.from_pretrained(FOLDER)"
    original = load_run(run, threads=1)
    model: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(score_padded(model, tmp_path / "model"), score(original), atol=2e-4)
    assert np.ptp(score(original)) > 0.1
    classify = pipeline("text-classification", model=str(tmp_path / "model"), device="cpu")
    expected = score(original)
    for told, row in zip(classify(list(TEXTS)), expected, strict=True):
        assert told["label"] == NAMES[int(row.argmax())]
    np.testing.assert_allclose(score(load_run(tmp_path / "model", threads=1)), expected, atol=2e-4)
    readme = (tmp_path / "model" / "README.md").read_text()
    assert "the first of the last states" in readme


def test_an_adapter_folder_is_pefts(train: Train, tmp_path: Path) -> None:
    run = train("roberta", model={"head": "native"}, adapter={"bias": "all"})
    exported = submillion.export(run, format="adapter", out=tmp_path / "adapter")
    assert exported.format == "adapter"
    assert exported.num_params == read_json(RunDir(run).plan)["trainable_params"]
    base = read_json(RunDir(run).plan)["base"]
    stock = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    with warnings.catch_warnings():
        # PEFT asks transformers by a name that it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.PeftModel.from_pretrained(stock, tmp_path / "adapter")
    expected = score(load_run(run, threads=1))
    np.testing.assert_allclose(score_padded(model, tmp_path / "adapter"), expected, atol=1e-4)
    # An adapter folder has no precision, so the fastest one on this machine is used.
    np.testing.assert_allclose(score(load_run(tmp_path / "adapter", threads=1)), expected, atol=0.1)


def test_an_adapter_with_a_linear_head_holds_both(train: Train, tmp_path: Path) -> None:
    run = train("roberta", model={"pooling": "first"})
    exported = export_run(run, format="adapter", out=tmp_path / "adapter")
    assert exported.num_params == read_json(RunDir(run).plan)["trainable_params"]
    assert "AutoModel" in exported.loads_with
    with pytest.raises(ModelError, match="not have the architecture's native classification head"):
        load_run(tmp_path / "adapter", threads=1)


@pytest.mark.parametrize("format", ["merged", "adapter"])
def test_an_export_that_says_something_else_leaves_nothing(
    format: Any, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train("roberta", model={"pooling": "first"})
    right = stock_score._score
    monkeypatch.setattr(stock_score, "_score", lambda *a, **k: right(*a, **k) + np.float32(0.01))
    with pytest.raises(RunError, match="gives other logits than the run: they differ by 0"):
        export_run(run, format=format, out=tmp_path / "new" / "model")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_merge_that_loses_the_adapter_is_noticed(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train("roberta", model={"pooling": "first"})
    monkeypatch.setattr(adapter, "merge_adapter", lambda wrapped: wrapped.unload())
    with pytest.raises(RunError, match="gives other logits"):
        export_run(run, out=tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_taken_and_runs_that_are_none(train: Train, tmp_path: Path) -> None:
    run = train("roberta", model={"pooling": "first"})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not an empty folder"):
        export_run(run, out=tmp_path / "taken")
    assert (tmp_path / "taken" / "mine.txt").read_text() == "mine"
    with pytest.raises(RunError, match="not a run folder"):
        export_run(tmp_path / "none")
    with pytest.raises(RunError, match="not a run folder"):
        export_run(RunDir(run).adapter)


def test_a_run_exports_itself_at_its_end(train: Train, cli: Callable[..., Any], tmp_path: Path) -> None:
    run = train("roberta", model={"head": "native"}, export=["merged", "adapter"])
    assert sorted(path.name for path in (run / "export").iterdir()) == ["adapter", "merged"]
    told = cli("export", run, "--out", tmp_path / "again", "--json").json
    assert told["folder"] == str(tmp_path / "again")
    assert (told["format"], told["head"], told["num_probes"]) == ("merged", "native", 16)
    assert told["max_logit_difference"] <= told["bound"]
    outcome = cli("export", run, "--format", "merged")
    assert outcome.code == 2
    assert "exists and is not an empty folder" in outcome.err
    outcome = cli("classify", tmp_path / "again", TEXTS[0], "--json")
    assert outcome.json[0]["label"] in NAMES
    shown = cli("export", run, "--format", "adapter", "--out", tmp_path / "shown")
    assert shown.out.strip() == str(tmp_path / "shown")
    assert "PeftModel.from_pretrained" in shown.err
