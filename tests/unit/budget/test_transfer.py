from __future__ import annotations

from typing import Any

import pytest

from submillion.budget.plan import make_plan
from submillion.budget.transfer import adapt_to_base, map_layer
from submillion.config.run import AdapterConfig, ModelConfig
from submillion.errors import ConfigError

ROBERTA: dict[str, Any] = {"model_type": "roberta"}
BERT_6: dict[str, Any] = {"model_type": "bert", "num_hidden_layers": 6}
DISTILBERT: dict[str, Any] = {"model_type": "distilbert"}
MODERNBERT: dict[str, Any] = {"model_type": "modernbert"}


def adapt(config: dict[str, Any], **settings: Any) -> tuple[AdapterConfig, list[str]]:
    return adapt_to_base(AdapterConfig(**settings), recipe_config=ROBERTA, config=config)


def test_layers_map_proportionally_with_both_ends_fixed() -> None:
    assert [map_layer(layer, 12, 6) for layer in range(12)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [map_layer(layer, 12, 22) for layer in (0, 1, 5, 10, 11)] == [0, 2, 10, 19, 21]
    assert [map_layer(layer, 3, 2) for layer in range(3)] == [0, 1, 1]
    assert [map_layer(layer, 7, 7) for layer in range(7)] == list(range(7))
    assert map_layer(0, 1, 6) == 0


def test_nothing_changes_on_the_same_shape() -> None:
    settings = {"targets": ("query", "roberta.encoder.layer.3.output.dense"), "layers": (1, 2), "ranks": {"query": 3}}
    adapter, lines = adapt({"model_type": "roberta", "hidden_size": 96}, **settings)
    assert adapter == AdapterConfig(**settings)
    assert lines == []


def test_kinds_stay_and_layers_are_mapped_and_merged() -> None:
    adapter, lines = adapt(BERT_6, targets=("query", "ffn_out"), layers=(0, 10, 11), rank=3)
    assert adapter == AdapterConfig(targets=("query", "ffn_out"), layers=(0, 5), rank=3)
    assert lines == ["layers of 12 to 6: 0 -> 0, 10 -> 5, 11 -> 5", "layers that became equal were merged: 3 -> 2"]


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (BERT_6, "encoder.layer.5.output.dense"),
        (DISTILBERT, "transformer.layer.5.ffn.lin2"),
        (MODERNBERT, "layers.19.mlp.Wo"),
        ({"model_type": "albert"}, "encoder.albert_layer_groups.0.albert_layers.0.ffn_output"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "roberta."])
def test_full_names_become_the_same_kind_in_the_mapped_layer(config: dict[str, Any], name: str, prefix: str) -> None:
    old = f"{prefix}encoder.layer.10.output.dense"
    adapter, lines = adapt(config, targets=(old,))
    assert adapter.targets == (name,)
    assert lines == [f"{old} -> {name}"]


def test_names_that_fall_together_are_merged_with_the_largest_rank() -> None:
    first, second, third = (f"encoder.layer.{layer}.attention.self.query" for layer in (10, 11, 5))
    adapter, lines = adapt(BERT_6, targets=(first, second, third), ranks={first: 2, second: 7, third: 4})
    last = "encoder.layer.5.attention.self.query"
    assert adapter.targets == (last, "encoder.layer.2.attention.self.query")
    assert dict(adapter.ranks) == {last: 7, "encoder.layer.2.attention.self.query": 4}
    assert f"{second} -> {last}, merged with {first}" in lines
    assert f"rank 7 of {second} -> {last}, merged: rank 7" in lines


def test_what_comes_out_can_be_planned() -> None:
    adapter, _ = adapt(BERT_6, targets=("roberta.encoder.layer.1.attention.self.key", "value"), rank=2)
    plan = make_plan(BERT_6, base="x", num_labels=3, model=ModelConfig(head="native"), adapter=adapter, budget=10**6)
    names = [module.name for module in plan.modules]
    assert len(names) == 7
    assert names[0] == "bert.encoder.layer.0.attention.self.key"


def test_a_name_of_the_new_base_stays() -> None:
    adapter, lines = adapt(DISTILBERT, targets=("transformer.layer.2.ffn.lin1",))
    assert adapter.targets == ("transformer.layer.2.ffn.lin1",)
    assert lines == []


@pytest.mark.parametrize(
    "settings",
    [
        {"targets": ("query",)},
        {"targets": ("roberta.encoder.layer.3.attention.self.value",)},
        {"targets": ("all",), "ranks": {"key": 3}},
    ],
)
def test_what_is_inside_a_fused_matrix_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="fused Wqkv"):
        adapt(MODERNBERT, **settings)


def test_names_and_layers_that_neither_base_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.layer\.12\.output\.dense"):
        adapt(BERT_6, targets=("encoder.layer.12.output.dense",))
    with pytest.raises(ConfigError, match=r"\[12\]"):
        adapt(BERT_6, targets=("query",), layers=(12,))
