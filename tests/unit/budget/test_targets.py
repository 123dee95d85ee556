from __future__ import annotations

from typing import Any

import pytest

from submillion.budget.targets import list_fixed_ranks, list_targets
from submillion.config.run import AdapterConfig
from submillion.errors import ConfigError

ROBERTA = {"model_type": "roberta", "num_hidden_layers": 3}
MODERNBERT = {"model_type": "modernbert", "num_hidden_layers": 2}


def names(config: dict[str, Any], **settings: Any) -> list[str]:
    return [linear.name for linear in list_targets(config, AdapterConfig(**settings))]


def test_all_means_six_kinds_in_model_order() -> None:
    found = names(ROBERTA)
    assert len(found) == 18
    assert found[:6] == [
        "encoder.layer.0.attention.self.query",
        "encoder.layer.0.attention.self.key",
        "encoder.layer.0.attention.self.value",
        "encoder.layer.0.attention.output.dense",
        "encoder.layer.0.intermediate.dense",
        "encoder.layer.0.output.dense",
    ]


def test_all_leaves_out_debertas_position_projections_but_a_name_reaches_them() -> None:
    config = {
        "model_type": "deberta-v2",
        "num_hidden_layers": 1,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
    }
    assert len(names(config)) == 6
    assert names(config, targets=("pos_key",)) == ["encoder.layer.0.attention.self.pos_key_proj"]


def test_layers_narrow_kinds_and_leave_full_names_alone() -> None:
    found = names(ROBERTA, targets=("query", "encoder.layer.0.output.dense"), layers=(2,))
    assert found == ["encoder.layer.0.output.dense", "encoder.layer.2.attention.self.query"]


def test_names_work_with_and_without_the_stock_prefix_and_count_once() -> None:
    bare = "encoder.layer.1.output.dense"
    assert names(ROBERTA, targets=(bare, f"roberta.{bare}")) == [bare]


def test_modernberts_own_kinds() -> None:
    assert names(MODERNBERT, layers=(1,)) == [
        "layers.1.attn.Wqkv",
        "layers.1.attn.Wo",
        "layers.1.mlp.Wi",
        "layers.1.mlp.Wo",
    ]


@pytest.mark.parametrize("kind", ["query", "key", "value"])
def test_a_kind_inside_a_fused_matrix_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="fused Wqkv") as caught:
        names(MODERNBERT, targets=(kind,))
    assert "'qkv'" in caught.value.hint
    assert caught.value.where == "adapter.targets"


def test_a_kind_that_the_family_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="'qkv'"):
        names(ROBERTA, targets=("qkv",))


@pytest.mark.parametrize(
    ("target", "suggestion"),
    [
        ("quary", "query"),
        ("roberta.encoder.layer.1.output.dens", "roberta.encoder.layer.1.output.dense"),
        ("encoder.layer.1.atention.self.key", "encoder.layer.1.attention.self.key"),
    ],
)
def test_an_unknown_target_gets_a_suggestion(target: str, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=target) as caught:
        names(ROBERTA, targets=(target,))
    assert repr(suggestion) in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": (1, 3)}, r"\[3\]"),
        ({"layers": ()}, "no layer"),
        ({"layers": (1,), "targets": ("encoder.layer.1.output.dense",)}, "no effect"),
    ],
)
def test_layers_that_cannot_be_heeded_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        names(ROBERTA, **settings)
    assert caught.value.where == "adapter.layers"


def test_ranks_by_full_name_win_over_ranks_by_kind() -> None:
    query = "encoder.layer.1.attention.self.query"
    adapter = AdapterConfig(targets=("query", "key"), ranks={f"roberta.{query}": 9, "query": 3})
    fixed = list_fixed_ranks(ROBERTA, adapter, list_targets(ROBERTA, adapter))
    assert fixed == {f"encoder.layer.{n}.attention.self.query": 9 if n == 1 else 3 for n in range(3)}


@pytest.mark.parametrize("key", ["value", "encoder.layer.0.output.dense", "valeu"])
def test_a_rank_that_matches_no_target_is_refused(key: str) -> None:
    adapter = AdapterConfig(targets=("query",), ranks={key: 3})
    with pytest.raises(ConfigError, match=key) as caught:
        list_fixed_ranks(ROBERTA, adapter, list_targets(ROBERTA, adapter))
    assert caught.value.where == "adapter.ranks"
    assert caught.value.hint
