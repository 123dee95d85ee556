"""Whole small runs in this process: every published recipe, a run folder's contents, and data without influence."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from submillion.config.run import parse_config
from submillion.data.read import read_records
from submillion.errors import ConfigError, DataError, RunError
from submillion.metrics import stats
from submillion.pipeline.finish import RunSummary
from submillion.pipeline.proof import sum_saved_params, verify_run
from submillion.pipeline.resolve import resolve_config
from submillion.pipeline.run import start_run
from submillion.run.folder import RunDir
from submillion.run.reader import read_config
from submillion.scoring.evaluate_run import evaluate_run
from submillion.scoring.run_model import load_run
from submillion.storage.files import read_json, read_log

RECIPES = {
    "agnews-qk-r10": ({"query", "key"}, {10}, 2.8, 0),
    "agnews-qv-r10": ({"query", "value"}, {10}, 6.4, 0),
    "agnews-mixed-r12": (None, {12}, 32 / 12, 0),
    "agnews-qkv-r4-bias": ({"query", "key", "value"}, {4}, 8.0, 1),
    "agnews-qkv-r4": ({"query", "key", "value"}, {4}, 1.0, 0),
}
SMALL = {
    "train.max_steps": 4,
    "train.batch_size": 8,
    "train.evaluate_every": 2,
    "train.interval_unit": "steps",
    "model.max_length": 48,
    "data.validation_size": 0.2,
    "threads": 1,
}
EVALUATION_KEYS = {
    "accuracy",
    "accuracy_interval",
    "macro_f1",
    "macro_f1_interval",
    "per_class",
    "confusion",
    "ece",
    "ece_raw",
    "brier",
    "num_records",
    "num_truncated",
    "split",
    "temperature",
    "loss",
    "predictions_sha256",
}


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("news")
    news_rows(folder / "train.csv", 64)
    # Of unlike lengths, or all would be cut to one and packed as they come.
    path = news_rows(folder / "test.csv", 20, start=1000)
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [header, *([*row[:2], row[2][: 7 * number % 40]] for number, row in enumerate(rows))]
        )
    return folder


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes seconds and is looked at in the whole run: the proof in a fresh process, the report."""
    monkeypatch.setattr("submillion.pipeline.finish.verify_run", lambda *_: {})
    monkeypatch.setattr("submillion.pipeline.finish.write_report", lambda *_: None)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_published_recipe_runs(recipe: str, news: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    kinds, ranks, scaling, has_biases = RECIPES[recipe]
    settings = {**SMALL, "baseline": False}
    config = resolve_config(recipe, base=str(tiny_roberta), data=str(news), settings=settings).config
    summary = start_run(config, tmp_path / "run")
    run, plan = RunDir(summary.run), summary.plan
    assert kinds is None or {module.kind for module in plan.modules} == kinds
    assert {module.rank for module in plan.modules} == ranks
    assert [module.scaling for module in plan.modules] == pytest.approx([scaling] * len(plan.modules))
    assert (plan.bias_params > 0) == has_biases
    # The stock head of hidden size 32 and four classes.
    assert plan.head_params == 32 * 33 + 4 * 33
    assert sum_saved_params(run) == plan.trainable_params
    assert not run.head.exists()
    manifest = read_json(run.manifest)
    assert manifest["state"] == "complete"
    assert any("fp16" in note for note in manifest["notes"]) == (config.model.precision == "fp16")
    steps = [entry for entry in read_log(run.log) if entry["kind"] == "step"]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    moved = [
        name
        for name, value in load_file(run.adapter / "adapter_model.safetensors").items()
        if ".lora_B" in name and value.any()
    ]
    assert len(moved) == len(plan.modules)

    # The saved model gives the run's results on the test rows.
    model = load_run(run.path, threads=1)
    records = read_records(str(news / "test.csv"), labels=model.labels)
    said = pq.read_table(run.predictions("test")).to_pylist()
    predictions = list(model.predict(records))
    assert [p.id for p in predictions] == [row["id"] for row in said] == [record.id for record in records]
    for prediction, row in zip(predictions, said, strict=True):
        assert prediction.probabilities == pytest.approx([row[f"probability_{c}"] for c in range(4)], abs=0.02)


@pytest.fixture(scope="module")
def whole(news: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A run with everything: proof, report, baseline, and watched sets with labels in their file and beside it."""
    root = tmp_path_factory.mktemp("whole")
    far = (news / "test.csv").read_text()
    (root / "far.csv").write_text(far)
    settings = {
        **SMALL,
        "train.learning_rate": 0.01,
        "train.head_learning_rate": 0.05,
        "adapter.rank": 2,
        "train.metric": "accuracy",
        "model.precision": "fp32",
        "watch": [{"name": "far", "data": root / "far.csv"}],
    }
    config = resolve_config("agnews-minilm", base=str(tiny_bert), data=str(news), settings=settings).config
    return start_run(config, root / "run")


def test_the_folder_holds_what_it_should(whole: RunSummary) -> None:
    names = {str(path.relative_to(whole.run)) for path in whole.run.rglob("*") if path.is_file()}
    evaluations = {
        f"evaluation/{split}{end}"
        for split in ("validation", "test", "far")
        for end in (".json", ".baseline.json", ".predictions.parquet")
    }
    assert names >= evaluations
    assert names >= {"config.yaml", "plan.json", "data.json", "manifest.json", "log.jsonl", "report.html"}
    assert names >= {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "head.safetensors"}
    assert names >= {
        "tokenizer/tokenizer.json",
        "checkpoints/last",
        "checkpoints/best",
        "checkpoints/step-4/state.json",
    }
    assert not [name for name in names if name.endswith(".tmp") or "probe" in name]
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert read_config(RunDir(whole.run)).train.max_steps == 4


def test_training_rows_are_scored_at_the_end_but_are_no_evaluated_set(whole: RunSummary) -> None:
    sample = read_json(whole.run / "evaluation/train.sample.json")
    assert (sample["num_records"], sample["num_train"], sample["seed"]) == (51, 51, 0)
    assert sample["accuracy"] * 51 == pytest.approx(round(sample["accuracy"] * 51))
    assert sample["accuracy_interval"] == list(stats.wilson_interval(round(sample["accuracy"] * 51), 51))
    assert set(whole.evaluations) == {"validation", "test", "far"}
    assert "On all its 51 training rows, the finished model is right on" in (whole.run / "report.html").read_text()


def test_the_manifest_holds_the_proof(whole: RunSummary) -> None:
    run = RunDir(whole.run)
    manifest = read_json(run.manifest)
    assert manifest["state"] == "complete"
    assert manifest["proof"]["trainable_params_in_files"] == whole.plan.trainable_params == sum_saved_params(run)
    assert 0 <= manifest["proof"]["max_logit_difference"] < 0.05
    assert manifest["num_test_evaluations"] == 1
    weights = Path(read_config(run).model.base) / "model.safetensors"
    assert manifest["base"]["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (manifest["threads"], manifest["seed"], manifest["num_steps"]) == (1, 0, 4)
    assert manifest["rows_per_s"] > 0
    data = read_json(run.data)
    assert (data["num_train"], data["num_validation"], data["num_test"], data["watched"]) == (51, 13, 20, {"far": 20})


@pytest.mark.parametrize("split", ["validation", "test", "far"])
def test_evaluations_and_predictions_agree(split: str, whole: RunSummary, news: Path) -> None:
    run = RunDir(whole.run)
    figures = read_json(run.evaluation(split))
    assert figures == whole.evaluations[split]
    assert figures.keys() >= EVALUATION_KEYS
    table = pq.read_table(run.predictions(split))
    assert table.column_names == [
        *("id", "label", "label_id", "predicted_id", "predicted"),
        *(f"probability_{c}" for c in range(4)),
        *("text", "source"),
    ]
    rows = table.to_pylist()
    assert figures["num_records"] == len(rows)
    assert figures["accuracy"] == pytest.approx(np.mean([row["label_id"] == row["predicted_id"] for row in rows]))
    assert figures["predictions_sha256"] == hashlib.sha256(run.predictions(split).read_bytes()).hexdigest()
    if split == "test":
        assert [row["id"] for row in rows] == [record.id for record in read_records(str(news / "test.csv"))]
    baseline = read_json(run.evaluation(f"{split}.baseline"))
    assert baseline == whole.baselines[split]
    assert baseline["comparison"]["num_records"] == len(rows)
    assert baseline["comparison"]["difference"] == pytest.approx(figures["accuracy"] - baseline["accuracy"])


def test_every_prediction_is_that_of_its_own_record(whole: RunSummary, news: Path) -> None:
    model = load_run(whole.run, threads=1)
    rows = pq.read_table(RunDir(whole.run).predictions("test")).to_pylist()
    probabilities = np.array([[row[f"probability_{c}"] for c in range(4)] for row in rows])
    assert probabilities.std(axis=0).max() > 1e-3
    # A record that is alone cannot be confused with another.
    alone = [next(iter(model.predict([r]))) for r in read_records(str(news / "test.csv"), labels=model.labels)]
    np.testing.assert_allclose([prediction.probabilities for prediction in alone], probabilities, atol=1e-5)


def test_the_best_validation_of_the_log_is_the_one_that_is_reported(whole: RunSummary) -> None:
    run = RunDir(whole.run)
    logged = [entry for entry in read_log(run.log) if entry["kind"] == "evaluation" and entry["split"] == "validation"]
    best = [entry for entry in logged if entry["best"]][-1]
    figures = read_json(run.evaluation("validation"))
    assert figures["accuracy"] == best["accuracy"] == max(entry["accuracy"] for entry in logged)
    assert figures["loss"] == pytest.approx(best["loss"], abs=0.02)
    assert read_json(run.manifest)["best_step"] == best["step"]


def test_evaluating_the_runs_own_test_rows_is_counted(whole: RunSummary, news: Path) -> None:
    model = load_run(whole.run, threads=1)
    run = RunDir(whole.run)
    records = read_records(str(news / "test.csv"), labels=model.labels)
    before = read_json(run.manifest)["num_test_evaluations"]
    evaluation = evaluate_run(model, records)
    assert evaluation.accuracy == read_json(run.evaluation("test"))["accuracy"]
    assert read_json(run.manifest)["num_test_evaluations"] == before + 1
    evaluate_run(model, records[:-1])
    assert read_json(run.manifest)["num_test_evaluations"] == before + 1


def test_a_proof_that_fails_ends_the_run(whole: RunSummary) -> None:
    model = load_run(whole.run, threads=1)
    run = RunDir(whole.run)
    probes = read_records(read_json(run.data)["source"] + "/test.csv", labels=model.labels)[:2]
    logits = model.score_records(probes).logits
    with pytest.raises(RunError, match="other logits"):
        verify_run(run, probes, logits + 0.2)


@pytest.mark.usefixtures("bare")
def test_watched_sets_steer_nothing(whole: RunSummary, tmp_path: Path) -> None:
    config = read_config(RunDir(whole.run)).model_copy(update={"watch": (), "baseline": False})
    summary = start_run(config, tmp_path / "run")
    for name in ("adapter/adapter_model.safetensors", "head.safetensors"):
        assert (summary.run / name).read_bytes() == (whole.run / name).read_bytes()
    manifests = [read_json(RunDir(folder).manifest) for folder in (summary.run, whole.run)]
    assert manifests[0]["temperature"] == manifests[1]["temperature"]
    assert set(summary.evaluations) == {"validation", "test"}
    assert summary.baselines == {}


# ------------------------------------------------------------------------------------------- runs that cannot begin


def make_settings(base: Path, source: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"data": {"source": str(source)}, "model": {"base": str(base), "max_length": 48}}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return values


Refusal = tuple[dict[str, Any], type[Exception], str]
REFUSALS: tuple[Refusal, ...] = (
    ({"model": {"max_length": 65}}, ConfigError, "65 tokens are more than the 64 positions"),
    ({"train": {"class_weights": [1.0, 2.0]}}, ConfigError, "2 weights for 4 classes"),
    ({"data": {"validation_size": 0.5, "test_size": 0.5}}, ConfigError, "leave no rows to train on"),
    ({"data": {"leaks": "refuse"}}, DataError, "training rows appear in validation or test"),
    ({"data": {"leaks": "drop"}}, DataError, "all 20 training rows appear in"),
)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: str(refusal[0]))
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    refusal: Refusal, news: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    sections, kind, message = refusal
    source = news / "train.csv"
    if "leaks" in sections.get("data", {}):
        source = tmp_path / "leaking"
        source.mkdir()
        for name in ("train", "validation", "test"):
            (source / f"{name}.csv").write_text((news / "test.csv").read_text())
    config = parse_config(make_settings(tiny_bert, source, **sections), where="test")
    with pytest.raises(kind, match=message):
        start_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("bare")
def test_the_longest_length_is_the_number_of_positions(news: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    data = tmp_path / "long"
    data.mkdir()
    for name in ("train.csv", "test.csv"):
        header, *lines = (news / name).read_text().splitlines()
        (data / name).write_text("\n".join([header, *(line.replace(",", f",{'word ' * 90}", 1) for line in lines)]))
    sections = {"model": {"max_length": 64}, "train": {"max_steps": 1}, "adapter": {"rank": 2}}
    values = {**make_settings(tiny_roberta, data, **sections), "baseline": False}
    summary = start_run(parse_config(values, where="test"), tmp_path / "run")
    assert summary.evaluations["test"]["num_truncated"] == 20


def test_a_folder_that_is_in_use_is_refused(whole: RunSummary) -> None:
    config = read_config(RunDir(whole.run))
    before = json.loads(RunDir(whole.run).manifest.read_text())
    with pytest.raises(ConfigError, match="not an empty folder"):
        start_run(config, whole.run)
    assert json.loads(RunDir(whole.run).manifest.read_text()) == before
