"""A whole run on the CPU kernels, and scoring in 8 bits, as commands."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from submillion.kernels.native import find_kernels
from tests.tiny_classifiers import build_wide_base

Cli = Callable[..., Any]
needs_kernels = pytest.mark.skipif(
    find_kernels().library is None, reason=f"the CPU kernels do not run here: {find_kernels().reason}"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path]) -> Path:
    return news_rows(tmp_path_factory.mktemp("data") / "news.csv", 160)


@pytest.fixture(scope="module")
def wide_run(
    tiny_bert: Path,
    data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    submillion_process: Callable[..., Any],
) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    base = build_wide_base(tiny_bert, folder / "base")
    settings = (
        "model.max_length=48",
        "model.precision=bf16",
        "model.dropout=0",
        "adapter.rank=4",
        "adapter.layers=[1]",
        "train.epochs=2",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    process = submillion_process("train", "demo", "--data", data, "--base", base, "--out", folder / "run", *words)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "the first layer does not train" in errors, errors
    return folder / "run"


@needs_kernels
def test_a_run_says_what_computed_it_and_evaluates_to_its_own_figures(cli: Cli, wide_run: Path, data: Path) -> None:
    manifest = json.loads((wide_run / "manifest.json").read_text())
    assert manifest["modules"] == "the CPU kernels"
    assert manifest["proof"]["max_logit_difference"] < 0.05
    own = json.loads((wide_run / "evaluation" / "test.json").read_text())
    ids = {row["id"] for row in _read_predictions(wide_run)}
    outcome = cli("evaluate", wide_run, data, "--json")
    assert outcome.code == 0
    assert outcome.json["num_records"] > own["num_records"] == len(ids)


def _read_predictions(run: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(run / "evaluation" / "test.predictions.parquet").to_pylist()
    return rows


@needs_kernels
def test_later_commands_give_the_run_s_own_predictions(cli: Cli, wide_run: Path, tmp_path: Path) -> None:
    rows = _read_predictions(wide_run)
    again = tmp_path / "test.csv"
    with again.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([row["id"], row["text"]] for row in rows)
    outcome = cli("predict", wide_run, again, "--out", tmp_path / "labels.csv", "--text", "text", "--id", "id")
    assert outcome.code == 0, outcome.err
    with (tmp_path / "labels.csv").open() as file:
        predicted = [row["Label"] for row in csv.DictReader(file)]
    assert predicted == [row["predicted"] for row in rows]


@needs_kernels
def test_8_bits_give_nearly_the_same_probabilities(cli: Cli, wide_run: Path) -> None:
    text = "The champions stay top of the league"
    exact = cli("classify", wide_run, text, "--json").json[0]["probabilities"]
    rounded = cli("classify", wide_run, text, "--json", "--precision", "int8").json[0]["probabilities"]
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=0.05)


def test_8_bits_are_refused_with_a_reason_where_no_kernel_runs(cli: Cli, trained: Any) -> None:
    outcome = cli("classify", trained.folder, "a text", "--precision", "int8")
    assert outcome.code == 2
    assert "int8" in outcome.err


@needs_kernels
def test_classify_imports_only_what_scores(wide_run: Path) -> None:
    code = (
        "import sys; from submillion.cli import main; code = main(['classify', sys.argv[1], 'a derby']); "
        "sys.stderr.write(' '.join(sys.modules)); sys.exit(code)"
    )
    process = subprocess.run([sys.executable, "-c", code, str(wide_run)], check=True, capture_output=True, text=True)
    loaded = process.stderr.split()
    assert "submillion.scoring.run_model" in loaded
    unused = ("transformers", "peft", "accelerate", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib")
    assert [name for name in (*unused, "torch._dynamo", "sympy") if name in loaded] == []
