from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest

from submillion import api
from submillion.config.run import RunConfig, dump_config, load_yaml, parse_config
from submillion.corpus import CORPUS_FOLDER
from submillion.errors import BudgetError, ConfigError, DataError
from submillion.pipeline.resolve import resolve_config

NAMED = {"data": {"source": "a.csv", "revision": "abc", "labels": ["no", "yes"]}, "model": {"base": "roberta-base"}}


def test_arguments_win_over_the_recipe_and_settings_over_both() -> None:
    resolved = resolve_config(
        {"seed": 3, "budget": 10, "train": {"epochs": 4}}, seed=5, budget=20, settings={"seed": 7, "train.epochs": 1}
    )
    config = resolved.config
    assert (config.seed, config.budget, config.train.epochs, resolved.notes) == (7, 20, 1.0, ())


def test_one_text_column_needs_no_list() -> None:
    assert resolve_config(NAMED, text="title", numbers="ids").config.data.text == ("title",)


def test_columns_reach_the_data_section() -> None:
    config = resolve_config(NAMED, text=("title", "body"), label="topic", row_id="key").config
    assert (config.data.text, config.data.label, config.data.id) == (("title", "body"), "topic", "key")
    assert config.data.source == "a.csv"


def test_a_new_source_or_base_drops_the_pin_of_the_old_one() -> None:
    pinned = {**NAMED, "model": {"base": "roberta-base", "revision": "def"}}
    kept = resolve_config(pinned, data="a.csv", base="roberta-base").config
    assert (kept.data.revision, kept.model.revision) == ("abc", "def")
    moved = resolve_config(pinned, data="b.csv", base="minilm-l6").config
    assert (moved.data.revision, moved.model.revision) == (None, None)


def test_the_demo_brings_its_own_data() -> None:
    assert resolve_config("demo").config.data.source == str(CORPUS_FOLDER)
    assert resolve_config("demo", data="mine.csv").config.data.source == "mine.csv"


def test_names_of_another_base_are_mapped_and_recorded() -> None:
    resolved = resolve_config("agnews-mixed-r12", base="minilm-l6")
    assert resolved.notes
    assert all("minilm-l6" in note for note in resolved.notes)
    targets = resolved.config.adapter.targets
    assert "encoder.layer.5.output.dense" in targets
    assert not any(name.startswith("roberta.") for name in targets)
    assert "Mapped from roberta-base to minilm-l6" in resolved.config.about
    # The configuration that a run writes down replays it: nothing is mapped a second time.
    again = parse_config(load_yaml(dump_config(resolved.config), where="config.yaml"), where="config.yaml")
    assert resolve_config(again).config == resolved.config


def test_what_is_set_for_the_new_base_is_not_mapped() -> None:
    settings = {"adapter.targets": ["query"], "adapter.layers": [0, 5]}
    config = resolve_config("agnews-mixed-r12", base="minilm-l6", settings=settings).config
    assert config.adapter.layers == (0, 5)
    assert config.adapter.targets == ("query",)


def test_kinds_need_no_mapping() -> None:
    assert resolve_config("agnews-qkv-r4", base="minilm-l6").notes == ()


def test_a_recipe_file_is_named_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "My Recipe_2.yaml"
    path.write_text("train: {epochs: 1}\n")
    assert resolve_config(path).config.name == "my-recipe_2"
    path.write_text("name: given\n")
    assert resolve_config(path).config.name == "given"


@pytest.mark.parametrize("values", [{"data": 3}, {"model": "roberta-base"}, {"data": []}])
def test_a_value_in_the_place_of_a_section_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        resolve_config(values, data="b.csv", base="minilm-l6")


def test_the_number_of_classes_comes_from_settings_or_data(tmp_path: Path) -> None:
    assert api.plan(NAMED).num_labels == 2
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na b,x\nc d,y\ne f,z\n")
    assert api.plan("agnews-minilm", data=str(path)).num_labels == 3
    with pytest.raises(ConfigError, match="number of classes is unknown"):
        api.plan(RunConfig())
    path.write_text("head,kind,code\na b,x,1\nc d,y,2\ne f,z,2\n")
    assert api.plan("minilm", data=str(path), text="head", label="kind").num_labels == 3
    with pytest.raises(DataError, match="the label 2 lies outside"):
        api.plan("minilm", data=path, text="head", label="code", numbers="ids")
    assert api.plan("minilm", data=path, text="head", label="code", numbers="ids-from-1").num_labels == 2


def test_planning_obeys_the_budget() -> None:
    assert api.plan("demo", budget=100_000).trainable_params < 100_000
    with pytest.raises(BudgetError):
        api.plan("agnews-qkv-r4", budget=100_000)


def test_an_adapter_folder_takes_no_recipe_settings(tmp_path: Path) -> None:
    cases: tuple[dict[str, Any], ...] = (
        {"data": "a.csv"},
        {"settings": {"seed": 1}},
        {"text": "body"},
        {"numbers": "ids"},
    )
    for arguments in cases:
        with pytest.raises(ConfigError, match="no effect"):
            api.plan(tmp_path, **arguments)


def test_the_examples_hold() -> None:
    assert doctest.testmod(api).attempted > 0
    assert doctest.testmod(api).failed == 0
