from __future__ import annotations

import ast
from pathlib import Path

import yaml

from submillion.report import write_card
from submillion.storage.files import read_json, write_json
from tests.unit.report.run_folders import write_run


def test_card_states_figures_budget_and_digests(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    card = write_card(run)
    assert card == run / "README.md"
    text = card.read_text(encoding="utf-8")
    test, plan = read_json(run / "evaluation/test.json"), read_json(run / "plan.json")
    assert f"{100 * test['accuracy']:.2f}" in text
    assert f"{100 * test['accuracy_interval'][0]:.2f} to {100 * test['accuracy_interval'][1]:.2f}" in text
    assert f"**{plan['trainable_params']:,}**" in text
    assert f"SHA-256 `{'9f2c' * 16}`" in text
    assert "The test split was evaluated once by this run." in text
    assert "On bbc, texts from elsewhere, accuracy moves by \N{MINUS SIGN}" in text


def test_card_begins_with_metadata_that_parses_and_its_code_is_python(tmp_path: Path) -> None:
    text = write_card(write_run(tmp_path / "run", num_records=80)).read_text(encoding="utf-8")
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert metadata["library_name"] == "peft"
    blocks = text.split("```python\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block.split("```")[0])
    assert 'load_file("head.safetensors")' in blocks[1]


def test_card_of_a_native_head_loads_the_stock_classifier(tmp_path: Path) -> None:
    settings = {"model": {"head": "native"}, "adapter": {"targets": ["query"], "rank": 2}}
    text = write_card(write_run(tmp_path / "run", num_records=80, overrides=settings)).read_text(encoding="utf-8")
    assert "AutoModelForSequenceClassification.from_pretrained(" in text
    assert "num_labels=4" in text
    assert "head.safetensors" not in text


def test_class_names_and_about_are_text_in_the_card(tmp_path: Path) -> None:
    names = ("<b>bold</b>", "a|b", "[link](http://e.test)", "*stars*")
    text = write_card(write_run(tmp_path / "run", num_records=80, names=names)).read_text(encoding="utf-8")
    assert "&lt;b&gt;bold" in text
    assert "<b>" not in text
    assert "a\\|b" in text
    assert "[link](" not in text


def test_class_names_in_the_reason_for_a_loss_are_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", names=("<b>bold</b>", "a|b", "[link](http://e.test)", "*stars*"))
    baseline, data = read_json(run / "evaluation/test.baseline.json"), read_json(run / "data.json")
    baseline["comparison"] |= {"difference": -0.3, "interval": [-0.4, -0.2], "mcnemar_p": 1e-6}
    data["check"]["legibility"]["cut_tokens_share"] = 0.87
    write_json(run / "evaluation/test.baseline.json", baseline)
    write_json(run / "data.json", data)
    text = write_card(run).read_text(encoding="utf-8")
    reason = text[text.index("This is the likely reason") :].partition("\n")[0]
    assert "by class: " in reason
    assert "&lt;b&gt;bold" in reason
    assert not [markup for markup in ("<b>", "[link](") if markup in reason]


def test_no_control_character_of_a_run_reaches_its_card(tmp_path: Path) -> None:
    evil = "\x1b[2J\x9b\u202e|<i>"
    run = write_run(tmp_path / "run", num_records=80, names=(f"a{evil}", "b", "c", "d"))
    (run / "evaluation" / "bbc.json").rename(run / "evaluation" / f"bbc{evil}.json")
    manifest = read_json(run / "manifest.json")
    manifest["base"]["revision"] = "`\x1b`"
    write_json(run / "manifest.json", manifest)
    text = write_card(run).read_text(encoding="utf-8")
    assert "[2J" in text
    assert not set(text) & set("\x1b\x9b\u202e")
    assert "<i>" not in text
    assert "revision `` `\N{REPLACEMENT CHARACTER}` ``" in text


def test_card_of_an_unevaluated_run_claims_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", num_records=80, splits=())
    assert "nothing is known of its quality" in write_card(run).read_text(encoding="utf-8")
