"""Whole small runs on texts that are longer than the model reads at once, and on texts that it cannot read."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from submillion.config.run import LongTexts, RunConfig, parse_config
from submillion.data.legibility import explain_unread
from submillion.pipeline.fit import Fitting
from submillion.pipeline.run import resume_run, start_run
from submillion.run.folder import RunDir
from submillion.run.reader import read_config
from submillion.scoring.exports import export_run
from submillion.scoring.run_model import load_run
from submillion.storage.files import read_json

Cli = Callable[..., Any]

FILLING = "the river council met at dawn to settle the quarrel over northern bridge and said that it would"
SIGNALS = {"sport": "striker scored lap coach", "space": "telescope planet star water"}
RULES: tuple[LongTexts, ...] = ("head", "head_tail", "chunks")
KEPT = ("adapter/adapter_model.safetensors", "head.safetensors", "checkpoints/last")


def write_documents(path: Path, num_rows: int, *, num_words: int, seed: int = 0) -> Path:
    """Write documents of about `num_words` words that say their class in the last four alone."""
    draw = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label"])
        for row in range(num_rows):
            label = ("sport", "space")[row % 2]
            end = draw.sample(SIGNALS[label].split(), 4)
            words = [*draw.choices(FILLING.split(), k=num_words + draw.randrange(9)), *end]
            writer.writerow([f"d{row}", " ".join(words), label])
    return path


def make_config(base: Path, data: Path, rule: LongTexts, **train: Any) -> RunConfig:
    values = {
        "name": "long",
        "threads": 1,
        "baseline": False,
        "data": {"source": str(data), "leaks": "keep", "validation_size": 0.2, "test_size": 0.3},
        "model": {"base": str(base), "max_length": 16, "precision": "fp32", "dropout": 0.0, "long_texts": rule},
        "adapter": {"rank": 4},
        "train": {"batch_size": 16, "epochs": 10, "evaluate_every": 5, "learning_rate": 0.01, **train},
        "final": {"report": False, "proof": False},
    }
    return parse_config(values, where="test")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("documents") / "long.csv", 400, num_words=30)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, documents: Path) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {rule: start_run(make_config(tiny_bert, documents, rule), root / rule).run for rule in RULES}


def test_what_stands_at_the_end_is_learnt_by_those_who_read_it(runs: dict[str, Path]) -> None:
    accuracy = {rule: read_json(RunDir(run).evaluation("test"))["accuracy"] for rule, run in runs.items()}
    assert accuracy["head"] < 0.75
    assert accuracy["head_tail"] > 0.9
    assert accuracy["chunks"] > 0.9


def test_a_run_says_how_much_it_did_not_read(runs: dict[str, Path]) -> None:
    for rule, run in runs.items():
        data, figures = read_json(RunDir(run).data), read_json(RunDir(run).evaluation("test"))
        legibility = figures["legibility"]
        assert legibility["num_records"] == legibility["num_long"] == figures["num_records"]
        assert sum(part["num_records"] for part in legibility["classes"].values()) == figures["num_records"]
        is_cut = rule != "chunks"
        assert (figures["num_truncated"] > 0) == (legibility["num_cut"] > 0) == is_cut
        assert (legibility["cut_tokens_share"] > 0.6) == is_cut
        assert ("are cut off" in explain_unread(data)) == is_cut


@pytest.mark.parametrize("rule", RULES)
def test_every_way_of_scoring_gives_the_figures_of_the_run(
    runs: dict[str, Path], rule: LongTexts, documents: Path, cli: Cli, tmp_path: Path
) -> None:
    run = RunDir(runs[rule])
    known = pq.read_table(run.predictions("test")).to_pydict()
    rows = tmp_path / "test.csv"
    with rows.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label"])
        writer.writerows(zip(known["id"], known["text"], known["label"], strict=True))
    evaluated = cli("evaluate", run.path, rows, "--json").json
    assert evaluated["accuracy"] == read_json(run.evaluation("test"))["accuracy"]
    assert evaluated["legibility"] == read_json(run.evaluation("test"))["legibility"]
    outcome = cli("predict", run.path, rows, "--out", tmp_path / "out.csv", "--labels", "names")
    assert outcome.code == 0
    assert ("are cut to" in outcome.err) == (rule != "chunks")
    assert ("are read in chunks" in outcome.err) == (rule == "chunks")
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        predicted = list(csv.reader(file))[1:]
    assert [row[0] for row in predicted] == known["id"]
    assert [row[1] for row in predicted] == known["predicted"]
    told = cli("classify", run.path, known["text"][0], "--json").json
    assert told[0]["label"] == known["predicted"][0]


def test_chunks_resume_to_the_same_bytes(
    runs: dict[str, Path], tiny_bert: Path, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Fitting._log_step

    def fail_at_last(self: Fitting, result: Any) -> None:
        if result.step == 23:
            raise KeyboardInterrupt
        real(self, result)

    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "_log_step", fail_at_last)
        with pytest.raises(KeyboardInterrupt):
            start_run(make_config(tiny_bert, documents, "chunks"), tmp_path / "run")
    resume_run(tmp_path / "run")
    for name in KEPT:
        assert (tmp_path / "run" / name).read_bytes() == (runs["chunks"] / name).read_bytes(), name


def test_rules_are_the_same_to_the_byte_where_no_text_is_long(tiny_bert: Path, tmp_path: Path) -> None:
    data = write_documents(tmp_path / "short.csv", 40, num_words=1)
    heads = set()
    for rule in RULES:
        config = make_config(tiny_bert, data, rule, epochs=2)
        run = start_run(config, tmp_path / rule).run
        assert read_config(RunDir(run)).model.long_texts == rule
        heads.add(tuple((run / name).read_bytes() for name in KEPT))
        evaluated = read_json(RunDir(run).evaluation("test"))
        assert evaluated["legibility"]["num_long"] == 0
    assert len(heads) == 1


def test_a_limit_by_a_rule_goes_with_chunks(tiny_bert: Path, documents: Path, tmp_path: Path) -> None:
    values = make_config(tiny_bert, documents, "chunks", epochs=1).model_dump(mode="json")
    values["model"]["max_length"] = "p50"
    run = start_run(parse_config(values, where="test"), tmp_path / "run").run
    chosen = read_json(RunDir(run).manifest)["max_length"]
    assert chosen["long_texts"] == "chunks"
    assert chosen["num_cut"] > 0
    assert read_json(RunDir(run).evaluation("test"))["legibility"]["num_cut"] == 0
    assert load_run(run).encoder.long_texts == "chunks"


@pytest.mark.parametrize("rule", ["head_tail", "chunks"])
@pytest.mark.parametrize("format", ["merged", "adapter"])
def test_exports_say_the_rule_and_a_merged_one_keeps_it(
    runs: dict[str, Path], rule: LongTexts, format: Any, tmp_path: Path
) -> None:
    exported = export_run(runs[rule], format=format, out=tmp_path / "export")
    assert exported.max_logit_difference <= exported.bound
    assert f"`long_texts: {rule}`" in (exported.folder / "README.md").read_text(encoding="utf-8")
    if format == "merged":
        known = pq.read_table(RunDir(runs[rule]).predictions("test")).to_pydict()
        predicted = load_run(exported.folder).classify(known["text"])
        assert [prediction.label for prediction in predicted] == known["predicted"]


def test_texts_of_another_script_are_told_before_training_and_by_check(
    tiny_bert: Path, tmp_path: Path, cli: Cli
) -> None:
    data = tmp_path / "scripts.csv"
    draw = random.Random(3)
    with data.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(20):
            writer.writerow(["".join(draw.sample("天地玄黄宇宙洪荒日月盈昃", 8)), "old"])
            writer.writerow([" ".join(draw.sample(FILLING.split(), 8)), "new"])
    room = ("--set", "model.max_length=64")
    assert cli("check", data, "--base", tiny_bert).code == 2  # longer than the base has positions for
    figures = cli("check", data, "--base", tiny_bert, *room, "--json").json
    assert figures["legibility"]["classes"]["old"]["unknown_share"] == 1.0
    assert figures["legibility"]["classes"]["new"]["unknown_share"] == 0.0
    told = cli("check", data, "--base", tiny_bert, *room)
    assert "warning: 50.00% of the tokens of texts (160 of 320) are unknown" in told.out
    assert "old 100.0%, new 0.0%" in told.out
    assert cli("check", data, "--base", tiny_bert, *room, "--strict").code == 3
    outcome = cli(
        *("train", "minilm", "--data", data, "--base", tiny_bert, "--out", tmp_path / "run"),
        *("--set", "train.max_steps=1", "--set", "threads=1", "--set", "model.precision=fp32", *room),
        *("--set", "baseline=false", "--set", "final.proof=false", "--set", "final.report=false"),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.err.index("of the tokens of training texts") < outcome.err.index("train:")
    assert "unknown to its base" in explain_unread(read_json(RunDir(tmp_path / "run").data))
