from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from submillion.errors import RunError
from submillion.metrics.stats import wilson_interval
from submillion.report import write_report
from submillion.report.curves import list_curves
from submillion.report.trainer_state import load_trainer_state, open_run
from submillion.report.write import write_pages
from submillion.run.history import Validation
from tests.unit.report.run_folders import write_run
from tests.unit.report.test_report_page import Page, read_page

Write = Callable[..., Path]


def make_rows(number: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    rows = []
    for label in random.integers(0, 3, number).tolist():
        ids = [label + 2, *random.integers(5, 40, 5).tolist()]
        rows.append({"input_ids": ids, "attention_mask": [1] * 6, "labels": label})
    return rows


def measure(predicted: Any) -> dict[str, float]:
    right = predicted.predictions.argmax(1) == predicted.label_ids
    return {"accuracy": float(right.mean()), "f1": float(right.mean()) / 2}


@pytest.fixture(scope="module")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a real Trainer, with two checkpoints and no state in the folder itself."""
    folder = tmp_path_factory.mktemp("trainer") / "imdb-<b>"
    torch.manual_seed(0)
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config.num_labels = 3
    settings = TrainingArguments(
        str(folder),
        max_steps=12,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=4,
        save_steps=4,
        metric_for_best_model="accuracy",
        load_best_model_at_end=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        BertForSequenceClassification(config),
        settings,
        train_dataset=make_rows(64, 0),
        eval_dataset=make_rows(32, 1),
        compute_metrics=measure,
    )
    trainer.train()
    return folder


@pytest.fixture
def write_state(tmp_path: Path) -> Write:
    """Write a state by hand, as one of many versions has it."""

    def write(history: Any, folder: str = "theirs", **values: Any) -> Path:
        file = tmp_path / folder / "trainer_state.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"global_step": 40, "max_steps": 40, "log_history": history} | values))
        return file

    return write


def test_a_real_trainer_is_read_from_its_folder_a_checkpoint_or_the_file(real_folder: Path) -> None:
    furthest = real_folder / "checkpoint-12"
    state = json.loads((furthest / "trainer_state.json").read_text())
    for path in (real_folder, furthest, furthest / "trainer_state.json"):
        run = open_run(path)
        assert run.path == furthest
        assert run.title == "imdb-<b>"
        assert run.steps["step"].tolist() == [2, 4, 6, 8, 10, 12]
        losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        assert run.steps["loss"].tolist() == losses
        assert [row.figures["accuracy"] for row in run.evaluations["validation"]] == [
            entry["eval_accuracy"] for entry in state["log_history"] if "eval_accuracy" in entry
        ]
        assert run.best is not None
        assert run.best.step == state["best_global_step"]


def test_its_report_shows_all_curves_and_stands_beside_the_file(real_folder: Path) -> None:
    written = write_pages([real_folder])
    assert written.page == real_folder / "checkpoint-12" / "submillion-report.html"
    assert {plot.stem for plot in written.plots} == {
        *("loss", "training-loss", "accuracy", "accuracy-by-epoch", "precision-recall-f1"),
        *("learning-rate", "gradient-norm"),
    }
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in written.plots)
    page = read_page(written.page)
    assert "submillion neither trained nor scored it" in page.text
    assert "imdb-<b>" in page.text  # as text
    assert "b" not in {tag for tag, _ in page.tags}
    assert "which the Trainer calls its best" in page.text
    assert "3 evaluations on validation" in page.text


def test_one_overlay_holds_their_runs_and_ours(real_folder: Path, tmp_path: Path) -> None:
    ours = write_run(tmp_path / "ours", num_records=80, num_steps=24, splits=("validation",))
    page = read_page(write_report([real_folder, ours], tmp_path / "both.html"))
    assert "nothing can be paired" in page.text
    assert "Settings are compared where two or more" in page.text
    table = page.text[page.text.index("Validation during training") :]
    assert "do not say how many rows were scored" not in table  # they follow from the speed of the evaluations
    assert "agnews-minilm seed 0" in table
    drawings = [attributes.get("aria-label") or "" for tag, attributes in page.tags if tag == "svg"]
    both = [label for label in drawings if "imdb-<b>:" in label and "agnews-minilm seed 0:" in label]
    assert [label.partition(".")[0] for label in both] == [
        *("Training loss", "Validation loss", "Validation accuracy", "Validation F1"),
        *("Learning rate", "Gradient norm"),
    ]


def test_rows_of_an_evaluation_follow_from_its_speed(real_folder: Path, write_state: Write) -> None:
    assert open_run(real_folder).set_sizes == {"validation": 32}

    def make(seconds: float, number: int, accuracy: float, step: int) -> dict[str, float]:
        speed = {"eval_runtime": round(seconds, 4), "eval_samples_per_second": round(number / seconds, 3)}
        return {"step": step, "epoch": 1.0, "eval_accuracy": accuracy, **speed}

    history = [make(12.3456789, 7600, 7125 / 7600, 1), make(13.2, 7600, 7000 / 7600, 2)]
    run = load_trainer_state(write_state(history))
    assert run.set_sizes == {"validation": 7600}
    epochs = next(plot for plot in list_curves(run) if plot.name == "accuracy-by-epoch")
    intervals = epochs.draw.keywords["series"][0].intervals  # type: ignore[attr-defined]  # a partial
    assert tuple(intervals[0]) == wilson_interval(7125, 7600)
    unknown = {
        "another size each time": [make(12.0, 7600, 0.5, 1), make(12.0, 3800, 0.5, 2)],
        "no share of so many": [make(12.0, 7600, 0.12345, 1)],
        "too fast to tell": [make(0.0021, 7600, 0.5, 1)],
    }
    for name, rows in unknown.items():
        run = load_trainer_state(write_state(rows, folder=name))
        assert run.set_sizes == {}
        text = read_page(write_report([run.path], run.path / "page.html")).text
        assert "does not tell how many rows" in text


def test_a_run_of_unknown_rows_stands_without_intervals_and_it_is_said(write_state: Write, tmp_path: Path) -> None:
    theirs = write_state([{"eval_loss": 0.5, "eval_accuracy": 0.8125, "step": 4}])
    ours = write_run(tmp_path / "ours", num_records=80, num_steps=24, splits=("validation",))
    text = read_page(write_report([theirs, ours], tmp_path / "both.html")).text
    text = text[text.index("Validation during training") :]
    assert "do not say how many rows were scored: theirs." in text
    row = text[text.index("theirs 1") :]
    assert re.match(r"theirs 1 [^ ] [^ ] 81\.25\s% 0\.5 agnews-minilm seed 0 6 24 93\.61\s% \d\d\.\d\d to ", row)


def test_figures_of_every_class_are_all_drawn(write_state: Write) -> None:
    names = [f"{kind}_{label}" for label in ("hate", "insult", "threat") for kind in ("precision", "recall", "f1")]
    rows = [{f"eval_{name}": 0.1 * step + 0.01 * n for n, name in enumerate(names)} | {"step": step} for step in (1, 2)]
    plots = {plot.name: plot for plot in list_curves(load_trainer_state(write_state(rows)))}
    assert list(plots) == ["precision-recall-f1", "precision-recall-f1-2"]
    drawn = " ".join(plot.alt for plot in plots.values())
    assert [name for name in ("precision hate", "F1 threat", "recall insult") if f"{name}: " not in drawn] == []


def test_states_of_older_versions(write_state: Write) -> None:
    history = [
        {"loss": 1.2, "learning_rate": 1e-4, "epoch": 0.5, "step": 10},
        {"eval_loss": 1.0, "eval_acc": 0.5, "epoch": 0.5, "step": 10},
        {"loss": 0.8, "learning_rate": 5e-5, "epoch": 1.0, "step": 20},
        {"eval_loss": 0.9, "eval_acc": 0.6, "eval_mem_cpu_alloc_delta": 7, "eval_runtime": 3, "epoch": 1.0, "step": 20},
        {"train_runtime": 61.5, "train_loss": 1.0, "epoch": 1.0, "step": 20},
    ]
    run = load_trainer_state(write_state(history, best_model_checkpoint="/home/them/out/checkpoint-10/"))
    assert run.best is not None
    assert run.best.step == 10
    assert "grad_norm" not in run.steps
    assert run.evaluations["validation"][1] == Validation(20, {"loss": 0.9, "acc": 0.6}, 1.0)
    plots = {plot.name: plot.title for plot in list_curves(run)}
    assert plots == {
        "loss": "Training and validation loss",
        "training-loss": "Training loss",
        "learning-rate": "Learning rate",
        "figure-0": "Acc",
    }


def test_a_metric_called_step_moves_no_evaluation(write_state: Write) -> None:
    run = load_trainer_state(
        write_state([{"eval_loss": 0.5, "eval_step": 999.0, "eval_epoch": 7.0, "step": 4, "epoch": 1}])
    )
    assert run.evaluations["validation"] == [Validation(4, {"loss": 0.5}, 1)]


def test_several_sets_keep_their_names(write_state: Write) -> None:
    history = [
        {f"eval_{name}_{key}": value, "step": 10, "epoch": 1}
        for name, value in (("a", 0.5), ("a_b", 0.7))
        for key in ("loss", "runtime", "accuracy")
    ]
    run = load_trainer_state(write_state(history))
    assert list(run.evaluations) == ["a", "a_b"]
    assert {row.figures["accuracy"] for row in run.evaluations["a"] if "accuracy" in row.figures} == {0.5}
    assert {row.figures["accuracy"] for row in run.evaluations["a_b"] if "accuracy" in row.figures} == {0.7}


def test_values_that_are_not_finite_are_counted_and_in_no_curve(write_state: Write) -> None:
    history = [
        {"loss": value, "grad_norm": norm, "learning_rate": 1e-4, "step": step, "epoch": step / 10}
        for step, value, norm in ((1, 1.5, 1.0), (2, float("nan"), float("inf")), (3, 10**400, 0.0), (4, 1.0, 2.0))
    ]
    file = write_state([*history, {"eval_loss": float("nan"), "eval_accuracy": 0.5, "step": 4, "epoch": 0.4}])
    run = load_trainer_state(file)
    assert run.num_skipped == 4
    assert run.steps["loss"][[0, 3]].tolist() == [1.5, 1.0]
    page = file.with_name("page.html")
    text = read_page(write_report([file], page)).text
    assert "4 logged values are not finite" in text
    drawings = re.findall(r"<svg.*?</svg>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(drawings) == 5
    assert [word for drawing in drawings for word in ("nan", "inf") if word in drawing.lower()] == []


def test_text_of_the_file_is_text(write_state: Write) -> None:
    history = [
        {"loss": 1.0, "step": 1, "epoch": 0.1},
        {"eval_<img src=x onerror=alert(1)>": 3.0, "eval_$\\frac$/../../x": 5.0, "eval_loss": 1.0, "step": 1},
    ]
    state = write_state(
        history, folder="<script>", best_model_checkpoint="<script>alert(2)</script>", trial_name="\x1b[31m"
    )
    written = write_pages([state])
    page = read_page(written.page)
    assert {tag for tag, _ in page.tags} & {"script", "img"} == set()
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "<script>alert(2)</script>" in page.text
    assert "\x1b" not in page.text
    assert {plot.name for plot in written.plots} == {"loss.png", "training-loss.png", "figure-0.png", "figure-1.png"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as JSON"),
        ('{"log_history": [', "cannot be read as JSON"),
        ("[" * 200_000, "cannot be read as JSON"),
        ("\xff\xfe", "not the state of a Trainer"),
        ("[1, 2]", "not the state of a Trainer"),
        ('{"model_type": "bert"}', "no list log_history"),
        ('{"log_history": [3]}', "something else than objects"),
        ('{"log_history": [{"loss": 1}]}', "no entry of its log_history has a step"),
        ('{"global_step": "many", "log_history": []}', "global_step is 'many'"),
    ],
)
def test_damaged_and_foreign_files_end_in_clear_errors(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "trainer_state.json"
    file.write_text(content if message.startswith("cannot") or content[:1] in "[{" else '"text"', encoding="utf-8")
    with pytest.raises(RunError, match=message) as caught:
        write_report([file])
    assert str(file) in caught.value.where
    assert [path.name for path in tmp_path.iterdir()] == ["trainer_state.json"]


def test_a_binary_file_and_an_empty_folder_end_in_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"\x80\x04\x95\xff")
    with pytest.raises(RunError, match="cannot be read as JSON"):
        write_report([tmp_path / "state.json"])
    with pytest.raises(RunError, match=r"no config\.yaml.*no trainer_state\.json"):
        write_report([tmp_path])
    with pytest.raises(RunError, match="not a run folder"):
        write_report([tmp_path / "absent"])


def test_an_empty_history_has_a_page(write_state: Write) -> None:
    page: Page = read_page(write_report([write_state([])]))
    assert "The file holds no logged values." in page.text


def test_a_folder_of_others_that_cannot_be_written_is_a_clear_error(write_state: Write) -> None:
    file = write_state([{"loss": 1.0, "step": 1}])
    (file.parent / "submillion-report-plots").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written") as caught:
        write_report([file])
    assert "--out" in caught.value.hint
