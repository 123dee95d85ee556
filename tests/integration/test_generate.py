"""`augment generate` from end to end: rows with provenance, counts, kills, and every refusal."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from submillion.data.synthetic import read_rows
from tests.integration.conftest import Outcome, Trained
from tests.tiny_language_models import build_tiny_gpt2

Cli = Callable[..., Outcome]

FAST = (
    *("finetune.epochs=1", "finetune.block_tokens=64", "finetune.save_every=2", "sample.batch_size=8"),
    *("sample.max_tokens=24", "sample.min_tokens=8", "screen.min_words=1", "threads=1"),
)


def set_all(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_gpt2(tmp_path_factory.mktemp("lm") / "tiny")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path]) -> Path:
    """Return unlabelled rows: 40 new ones, and the 40 of the trained run's test file."""
    folder = tmp_path_factory.mktemp("target")
    texts = []
    for start in (5000, 1000):
        with news_rows(folder / f"{start}.csv", 40, start=start).open(encoding="utf-8", newline="") as file:
            texts += [f"{row['title']} {row['description']}" for row in csv.DictReader(file)]
    path = folder / "target.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        # A label column that would break every reader of labels: it must not be looked at.
        csv.writer(file).writerows([("text", "label"), *((text, "never read") for text in texts), ("", "blank")])
    return path


def test_rows_of_a_model_from_scratch(
    cli: Cli, trained: Trained, target: Path, tmp_path: Path, train_words: Callable[..., list[str]]
) -> None:
    out = tmp_path / "rows.jsonl"
    words = ("augment", "generate", "--target", target, "--classifier", trained.folder, "--out", out, "--keep", 2)
    settings = set_all(*FAST, "finetune.max_steps=2", "screen.min_probability=0.25")
    # Two steps teach nothing; after a prompt, a few tokens of noise still pass for a row.
    settings += set_all("sample.min_tokens=2", "sample.max_tokens=4")
    outcome = cli(*words, "--from-scratch", *settings, "--json")
    assert outcome.code == 0, outcome.err
    counts = outcome.json
    assert "junk" in outcome.err
    rows = read_rows(out)

    # The rows of the data's test file and the blank row are left out.
    assert counts["rows"]["num_rows"] == 81
    assert counts["rows"]["num_in_test"] == 40
    assert counts["rows"]["num_used"] == 40
    assert counts["rows"]["found_in"]["test"]["exact"] == 40
    assert counts["compared_with"] == {"train": 144, "validation": 16, "test": 40, "target": 81}
    assert counts["language_model"]["finetuned"]["num_rows"] == 40

    # Every draft is kept or counted under one reason.
    classes = counts["classes"]
    assert list(classes) == json.loads((trained.folder / "data.json").read_text())["labels"]
    for entry in (*classes.values(), counts):
        assert entry["num_drafts"] == entry["num_kept"] + sum(entry["dropped"].values()) <= 4 * 20
    assert sum(entry["num_kept"] for entry in classes.values()) == counts["num_kept"] == len(rows) > 0
    assert counts["dropped"]["disagreed"] > 0
    assert counts["complete"] == (len(rows) == 8)
    assert json.loads((tmp_path / "rows.counts.json").read_text()) == {k: v for k, v in counts.items() if k != "out"}

    # Rows say where they come from, and the classifier agrees.
    for row in rows:
        origin = row.provenance
        assert row.text.startswith(origin["prompt"])
        assert origin["classifier_probability"] >= 0.25
        assert (origin["method"], origin["mode"], origin["junk"]) == ("generate", "prompts", True)
        assert origin["model_sha256"] == counts["language_model"]["sha256"]
        assert counts["classifier"] == {"run": str(trained.folder), "sha256": origin["classifier_sha256"]}
    assert len({row.id for row in rows}) == len({row.text for row in rows}) == len(rows)

    # The model is known for junk also where it is used again.
    again = cli(
        *("augment", "generate", "--model", f"{out}.work/language-model/model", "--out", tmp_path / "again.jsonl"),
        *("--keep", 1, *settings, *set_all("finetune.max_steps=null", "finetune.epochs=0"), "--json"),
    )
    assert (again.code, again.json["junk"]) == (0, True), again.err

    # The same command again neither overwrites nor repeats anything.
    again = cli(*words, "--from-scratch", *settings)
    assert again.code == 2
    assert "exists already" in again.err

    # Training takes the rows.
    run = cli(*train_words(trained.data, tmp_path / "run", "--extra", out, "--set", "train.max_steps=1"))
    assert run.code == 0, run.err
    extra = json.loads((tmp_path / "run" / "data.json").read_text())["extra"]
    assert extra[0]["num_records"] == len(rows)


def test_a_kill_changes_nothing(
    cli: Cli,
    tiny_gpt2: Path,
    target: Path,
    tmp_path: Path,
    submillion_process: Callable[..., subprocess.Popen[str]],
) -> None:
    def words(out: Path) -> list[Any]:
        return [
            *("augment", "generate", "--target", target, "--model", tiny_gpt2, "--out", out, "--keep", 40),
            *set_all(*FAST, "sample.max_tokens=12"),
        ]

    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    assert cli(*words(whole)).code == 0
    process = submillion_process(*words(killed))
    drafts = tmp_path / "killed.jsonl.work" / "drafts.jsonl"
    deadline = time.monotonic() + 240
    while not (drafts.exists() and drafts.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not killed.exists()
    with drafts.open("ab") as file:
        file.write(b'{"drafts": [{"label": 0, "te')

    # Work that was begun with other settings is not gone on with.
    other = cli(*words(killed), "--seed", 1)
    assert other.code == 2
    assert "settings.seed: 0 before, 1 now" in other.err

    outcome = cli(*words(killed))
    assert outcome.code == 0, outcome.err
    assert "continuing the work" in outcome.err
    assert killed.read_bytes() == whole.read_bytes()
    counts = [json.loads((tmp_path / f"{name}.counts.json").read_text()) for name in ("whole", "killed")]
    for count in counts:
        del count["language_model"]["finetuned"]["elapsed_s"]
    assert counts[0] == counts[1]


def test_conditional_rows_learn_from_the_training_rows_alone(
    cli: Cli, trained: Trained, tiny_gpt2: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    test_file = tmp_path / "other-test.csv"
    with (trained.data / "train.csv").open(encoding="utf-8", newline="") as file:
        test_file.write_text("".join(file.readlines()[:21]), encoding="utf-8")
    words = ("augment", "generate", "--conditional", "--data", trained.data, "--test", test_file, "--model", tiny_gpt2)
    outcome = cli(*words, "--out", out, "--keep", 2, *set_all(*FAST), "--json")
    assert outcome.code == 0, outcome.err
    rows = outcome.json["rows"]
    assert rows["from"] == "train"
    # The 20 rows of the test file are among 160, and 16 of these are for validation.
    assert rows["num_rows"] == 144
    assert rows["num_in_test"] > 0
    assert rows["num_used"] == 144 - rows["num_in_test"]
    assert outcome.json["language_model"]["finetuned"]["num_rows"] <= rows["num_used"]
    for row in read_rows(out):
        assert row.provenance["prompt"] == f"{row.label}:"
        assert not row.text.startswith(row.label)
        assert row.provenance["mode"] == "conditional"


def test_a_model_can_be_sampled_as_it_is(cli: Cli, tiny_gpt2: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("spam: [Buy now, Win a prize]\nham: [See you at]\n", encoding="utf-8")
    words = ("augment", "generate", "--prompts", prompts, "--model", tiny_gpt2, "--keep", 3)
    texts = {}
    for batch in (1, 7):
        out = tmp_path / f"{batch}.jsonl"
        settings = set_all(*FAST, "finetune.epochs=0", f"sample.batch_size={batch}", "sample.keep_prompt=false")
        outcome = cli(*words, "--out", out, *settings)
        assert outcome.code == 0, outcome.err
        assert "no classifier is given" in outcome.err
        assert "are not compared with any" in outcome.err
        texts[batch] = {(row.label, row.provenance["attempt"]): row.text for row in read_rows(out)}
        assert {row.label for row in read_rows(out)} == {"spam", "ham"}
        assert not [row for row in read_rows(out) if row.text.startswith(row.provenance["prompt"])]
    # The rows of an attempt do not depend on the rows sampled with them.
    both = texts[1].keys() & texts[7].keys()
    assert len(both) > 3
    assert {key: texts[1][key] for key in both} == {key: texts[7][key] for key in both}


def test_prompts_are_shown_and_copied(cli: Cli, tmp_path: Path) -> None:
    shown = cli("augment", "prompts")
    copied = cli("augment", "prompts", tmp_path / "mine.yaml")
    assert (shown.code, copied.code) == (0, 0)
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == shown.out
    assert cli("augment", "prompts", tmp_path / "mine.yaml").code == 2
    assert cli("augment", "prompts", tmp_path / "no" / "mine.yaml").code == 2


@pytest.fixture
def places(tiny_gpt2: Path, tiny_bert: Path, target: Path) -> dict[str, Path]:
    return {"TARGET": target, "GPT2": tiny_gpt2, "BERT": tiny_bert}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--target", "TARGET"), 5, "found no weights of 'gpt2'"),
        (("--target", "TARGET", "--model", "no/such/folder"), 5, "does not exist"),
        (("--target", "TARGET", "--model", "BERT"), 5, "Encoders such as roberta-base cannot generate text"),
        (("--target", "none.csv", "--from-scratch"), 3, "none.csv"),
        (("--from-scratch",), 2, "no rows to adapt"),
        (("--conditional", "--from-scratch"), 2, "learns from labelled rows"),
        (("--target", "TARGET", "--model", "GPT2", "--from-scratch"), 2, "from_scratch builds a new model"),
        (("--target", "TARGET", "--conditional", "--prompts", "p.yaml", "--data", "x"), 2, "uses no prompts"),
        (("--text", "body", "--set", "finetune.epochs=0", "--model", "GPT2"), 2, "--text"),
        (("--target", "TARGET", "--model", "GPT2", "--set", "sample.max_tokens=500"), 2, "sample.max_tokens"),
        (("--target", "TARGET", "--model", "GPT2", "--set", "sample.topp=1"), 2, "did you mean 'top_p'"),
        (("--target", "TARGET", "--model", "GPT2", "--set", "sample.min_tokens=200"), 2, "is above max_tokens"),
        (("--target", "TARGET", "--model", "GPT2", "--classifier", "none"), 6, "not a run folder"),
        (("--target", "TARGET", "--model", "GPT2", "--text", "body"), 3, "no column 'body'"),
    ],
)
def test_what_does_not_fit_is_said(
    cli: Cli, places: dict[str, Path], tmp_path: Path, *, words: tuple[str, ...], code: int, message: str
) -> None:
    out = tmp_path / "rows.jsonl"
    outcome = cli("augment", "generate", "--out", out, *(places.get(word, word) for word in words))
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert message in outcome.err
    assert not out.exists()


def test_where_nothing_is_kept_the_reasons_are_told(cli: Cli, tiny_gpt2: Path, target: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    settings = set_all(*FAST, "finetune.epochs=0", "screen.min_words=500", "attempts=2")
    outcome = cli("augment", "generate", "--model", tiny_gpt2, "--out", out, "--keep", 2, *settings)
    assert outcome.code == 3
    assert "none of 16 drafts was kept: " in outcome.err
    assert " too short" in outcome.err or " garbage" in outcome.err
    assert not out.exists()
    assert not (tmp_path / "rows.counts.json").exists()
    wrong = cli("augment", "generate", "--model", tiny_gpt2, "--out", tmp_path / "rows.csv", *settings)
    assert wrong.code == 2
    assert "does not end in .jsonl" in wrong.err


def test_a_command_that_could_not_begin_does_not_stand_in_the_way(
    cli: Cli, tiny_gpt2: Path, target: Path, tmp_path: Path
) -> None:
    words = ("augment", "generate", "--target", target, "--out", tmp_path / "rows.jsonl", "--keep", 1, *set_all(*FAST))
    assert cli(*words).code == 5
    outcome = cli(*words, "--model", tiny_gpt2, "--set", "finetune.max_steps=1")
    assert outcome.code == 0, outcome.err
    assert "continuing the work" not in outcome.err
