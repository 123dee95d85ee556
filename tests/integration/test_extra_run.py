"""Whole small runs with synthetic rows, which are counted wherever a run reports its data and are equal on resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from submillion.cli.training import _split_weight
from submillion.data.read import read_records
from submillion.data.synthetic import SyntheticRow, describe_origin, write_rows
from submillion.errors import RunError
from submillion.metrics.baseline import train_baseline
from submillion.pipeline.resolve import resolve_config
from submillion.pipeline.run import resume_run, start_run
from submillion.run.folder import RunDir
from submillion.storage.files import read_json, read_log
from tests.tiny_classifiers import build_wide_base

SMALL = {
    "train.max_steps": 3,
    "train.batch_size": 32,
    "model.max_length": 48,
    "data.validation_size": 0.2,
    "adapter.rank": 2,
    "threads": 1,
}


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("news")
    news_rows(folder / "train.csv", 64)
    news_rows(folder / "test.csv", 20, start=1000)
    return folder


def write_extra(path: Path, news: Path, word: str = "curious") -> Path:
    """Write a row made from each training row: some of those will be in validation."""
    rows = [
        SyntheticRow(
            f"x-{record.id}",
            f"{word} {number} words about thing {number * 7} and place {number * 13} with a colour of its own",
            "Sports",
            describe_origin("test", {}, seed=0, source=record),
        )
        for number, record in enumerate(read_records(str(news / "train.csv")))
    ]
    write_rows(path, rows)
    return path


def test_synthetic_rows_are_counted_and_kept(
    news: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submillion.pipeline.finish.verify_run", lambda *_: {})
    given: list[tuple[int, list[float]]] = []

    def note_weights(texts: list[str], *arguments: Any, weights: list[float], **settings: Any) -> Any:
        given.append((len(texts), weights))
        return train_baseline(texts, *arguments, weights=weights, **settings)

    monkeypatch.setattr("submillion.pipeline.finish.train_baseline", note_weights)
    base = build_wide_base(tiny_bert, tmp_path / "wide")  # of sizes that run on the CPU kernels, where there are any
    extra = write_extra(tmp_path / "extra.jsonl", news)

    def train(name: str, *files: str) -> RunDir:
        given = [_split_weight(file) for file in files]
        config = resolve_config("agnews-minilm", base=str(base), data=str(news), extra=given, settings=SMALL).config
        return RunDir(start_run(config, tmp_path / name).run)

    run = train("run", f"{extra}:0.25")
    data = read_json(run.data)
    [entry] = data["extra"]
    assert (data["num_train"], data["num_validation"], data["num_test"]) == (51, 13, 20)
    assert (entry["num_records"], entry["num_used"], entry["weight"]) == (64, 51, 0.25)
    assert entry["num_dropped"] == {"exact": 0, "near": 0, "source": 13}
    sentence = f"51 synthetic rows (test) of {extra} trained on with weight 0.25; 13 left out"
    assert sentence in run.report.read_text()
    assert sentence.replace("_", "\\_").replace("(", "\\(").replace(")", "\\)") in run.card.read_text()
    assert entry["sha256"] in run.report.read_text()
    assert entry["sha256"] in run.card.read_text()
    steps = [entry for entry in read_log(run.log) if entry["kind"] == "step"]
    assert [step["epoch"] for step in steps] == pytest.approx([0.25, 0.5, 0.75])  # 102 rows in batches of 32
    # The weight steers training; the baseline has rows and weights, too.
    other = train("other", str(extra))
    losses = [next(entry["loss"] for entry in read_log(r.log) if entry["kind"] == "step") for r in (run, other)]
    assert losses[0] != losses[1]
    assert given == [(102, [1.0] * 51 + [0.25] * 51), (102, [1.0] * 102)]

    resume_run(run.path)
    write_extra(extra, news, "other")
    with pytest.raises(RunError, match="train_sha256, extra"):
        resume_run(run.path)


def test_a_weight_follows_a_colon(tmp_path: Path) -> None:
    odd = tmp_path / "rows:2"
    odd.touch()
    assert _split_weight("rows.jsonl") == ("rows.jsonl", 1.0)
    assert _split_weight("rows.jsonl:0.5") == ("rows.jsonl", 0.5)
    assert _split_weight("C:rows.jsonl") == ("C:rows.jsonl", 1.0)
    assert _split_weight(str(odd)) == (str(odd), 1.0)
    assert _split_weight(f"{odd}:3") == (str(odd), 3.0)


def test_files_replace_those_of_a_recipe() -> None:
    recipe = {"data": {"source": "x", "extra": [{"data": "a", "weight": 2}]}}
    assert [e.data for e in resolve_config(recipe).config.data.extra] == ["a"]
    extra = resolve_config(recipe, extra=["b", ("c", 0.5)]).config.data.extra
    assert [(e.data, e.weight) for e in extra] == [("b", 1.0), ("c", 0.5)]
    extra = resolve_config(recipe, settings={"data.extra": [{"data": "d", "weight": 3}]}).config.data.extra
    assert [(e.data, e.weight) for e in extra] == [("d", 3.0)]
