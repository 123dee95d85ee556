from __future__ import annotations

import copy
import json
from importlib import resources
from typing import Any

import pytest

from submillion.budget.head_counts import HeadKind
from submillion.budget.plan import Plan, make_plan
from submillion.config.run import AdapterConfig, ModelConfig
from submillion.errors import BudgetError, ConfigError, RunError

ROBERTA: dict[str, Any] = json.loads(
    (resources.files("submillion.budget") / "configs" / "roberta-base.json").read_text()
)
MIXED_RANKS = {"query": 6, "roberta.encoder.layer.3.attention.self.query": 8}


def plan(
    *, head: HeadKind = "native", budget: int = 1_000_000, config: dict[str, Any] = ROBERTA, **settings: Any
) -> Plan:
    return make_plan(
        config,
        base="roberta-base",
        num_labels=4,
        model=ModelConfig(base="roberta-base", head=head),
        adapter=AdapterConfig(**settings),
        budget=budget,
    )


@pytest.mark.parametrize(
    ("settings", "trainable", "peft_all"),
    [
        ({"targets": ("query", "key"), "rank": 10}, 962_308, 125_611_016),
        ({"targets": ("query", "value"), "rank": 10}, 962_308, 125_611_016),
        ({"targets": ("query", "key", "value"), "rank": 4, "bias": "all"}, 916_996, 125_463_560),
        ({"targets": ("query", "key", "value"), "rank": 4}, 814_852, 125_463_560),
        ({"targets": ("query", "value"), "rank": 8}, 888_580, 125_537_288),
        ({"targets": ("query", "key", "value"), "rank": 6}, 925_444, 125_574_152),
    ],
)
def test_published_counts_of_roberta_base(settings: dict[str, Any], trainable: int, peft_all: int) -> None:
    found = plan(**settings)
    assert found.trainable_params == trainable
    assert found.peft_all_params == peft_all
    assert found.total_params == peft_all - 593_668


# Largest ranks below 1,000,000 on roberta-base with four classes: (targets, native, linear, linear + all biases).
LARGEST = [
    (("query", "value"), 11, 27, 24),
    (("query", "key", "value"), 7, 18, 16),
    (("query", "key", "value", "attention_output"), 5, 13, 12),
    (("ffn_in", "ffn_out"), 4, 10, 9),
    (("all",), 2, 6, 5),
]


@pytest.mark.parametrize(("targets", "native", "linear", "with_biases"), LARGEST)
def test_auto_rank_fills_the_budget(targets: tuple[str, ...], native: int, linear: int, with_biases: int) -> None:
    assert plan(targets=targets).modules[0].rank == native
    assert plan(targets=targets, head="linear").modules[0].rank == linear
    assert plan(targets=targets, head="linear", bias="all").modules[0].rank == with_biases


def test_the_budget_itself_is_already_too_much() -> None:
    total = plan(head="linear", rank=6).trainable_params
    assert plan(head="linear", budget=total + 1).trainable_params == total
    assert plan(head="linear", budget=total).modules[0].rank == 5
    with pytest.raises(BudgetError):
        plan(head="linear", budget=total, rank=6)


def test_auto_rank_stops_at_the_full_rank_of_the_narrowest_matrix() -> None:
    config = {**ROBERTA, "intermediate_size": 100}
    assert plan(config=config, budget=10**9).modules[0].rank == 100


def test_dora_costs_one_magnitude_an_output_and_rslora_and_pissa_nothing() -> None:
    plain = plan(head="linear", rank=2)
    dora = plan(head="linear", rank=2, variant="dora")
    assert dora.adapter_params - plain.adapter_params == 12 * (4 * 768 + 3072 + 768)
    assert sum(module.params for module in dora.modules) == dora.adapter_params
    for variant in ("rslora", "pissa"):
        assert plan(head="linear", rank=2, variant=variant).adapter_params == plain.adapter_params


def test_scalings_follow_alpha_and_rank() -> None:
    assert {module.scaling for module in plan(rank=2).modules} == {2.0}
    assert {module.alpha for module in plan(head="linear").modules} == {12.0}
    assert plan(rank=2, alpha=3).modules[0].scaling == 1.5
    assert plan(head="linear", rank=4, alpha=8, variant="rslora").modules[0].scaling == 4.0


def test_ranks_of_their_own_keep_the_scaling_that_the_configuration_says() -> None:
    default = plan(targets=("query", "key"), rank=2, ranks=MIXED_RANKS)
    assert {module.scaling for module in default.modules} == {2.0}
    given = plan(targets=("query", "key"), rank=2, ranks=MIXED_RANKS, alpha=24)
    found = {(module.rank, module.scaling) for module in given.modules}
    assert found == {(2, 12.0), (6, 4.0), (8, 3.0)}


def test_auto_rank_fills_what_fixed_ranks_leave() -> None:
    found = plan(targets=("query", "key"), ranks={"query": 3}, head="linear")
    ranks = {module.kind: module.rank for module in found.modules}
    assert ranks["query"] == 3
    step = 12 * 2 * 768
    assert found.trainable_params < found.budget <= found.trainable_params + step


def test_ranks_for_every_target_need_no_uniform_rank() -> None:
    found = plan(targets=("query",), ranks={"query": 3})
    assert {module.rank for module in found.modules} == {3}
    with pytest.raises(BudgetError, match="adapter 1,843,200, native head"):
        plan(targets=("query",), ranks={"query": 100})


def test_biases_by_choice() -> None:
    assert plan(targets=("query", "ffn_in"), rank=1, bias="lora_only").bias_params == 12 * (768 + 3072)
    assert plan(rank=1, bias="all").bias_params == 102_144
    assert plan(rank=1).bias_params == 0


def test_names_carry_the_stock_prefix_for_native_heads_only() -> None:
    assert plan().modules[0].name == "roberta.encoder.layer.0.attention.self.query"
    assert plan(head="linear").modules[0].name == "encoder.layer.0.attention.self.query"


@pytest.mark.parametrize("head", ["native", "linear"])
@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
def test_trained_biases_are_counted_with_the_pooler_that_a_head_reads(head: HeadKind, bias: str) -> None:
    config = {"model_type": "bert", "hidden_size": 24, "num_hidden_layers": 2, "vocab_size": 50}
    config |= {"num_attention_heads": 4, "intermediate_size": 40}
    found = plan(config=config, head=head, rank=1, targets=("query",), bias=bias)
    # The norm of the embeddings; a layer's query, key, value, output, two norms, and its two feed-forward matrices.
    everything = 24 + 2 * (4 * 24 + 2 * 24 + 40 + 24) + (24 if head == "native" else 0)
    assert found.bias_params == {"none": 0, "lora_only": 2 * 24, "all": everything}[bias]


def test_parts_sum_to_the_whole() -> None:
    found = plan(rank=1, bias="all")
    assert sum(params for _, params in found.parts) == found.trainable_params
    assert dict(found.parts)["head classifier.out_proj"] == 3076


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"rank": 16}, ["adapter.rank=2 (925,444)", "model.head=linear adapter.rank=6 (998,404)", "3,247,877"]),
        ({"rank": 16, "head": "linear"}, ["adapter.rank=6 (998,404)", "2,657,285"]),
        ({"budget": 200_000}, ["model.head=linear (168,964)", "759,557"]),
        (
            {"rank": 6, "head": "linear", "bias": "all"},
            ["adapter.rank=5 (934,660)", "adapter.bias=none adapter.rank=6"],
        ),
        ({"budget": 1}, ["a budget of at least 759,557"]),
    ],
)
def test_over_budget_names_the_parts_and_what_fits(settings: dict[str, Any], fits: list[str]) -> None:
    with pytest.raises(BudgetError, match="head") as caught:
        plan(**settings)
    assert "adapter " in caught.value.message
    for option in fits:
        assert option in caught.value.hint


def test_what_is_said_to_fit_does_fit() -> None:
    assert plan(rank=2).trainable_params == 925_444
    assert plan(rank=6, head="linear").trainable_params == 998_404
    assert plan(budget=200_000, head="linear").trainable_params == 168_964
    assert plan(budget=3_247_877, rank=16).trainable_params == 3_247_876


def test_a_rank_above_full_rank_is_refused_before_the_budget() -> None:
    with pytest.raises(ConfigError, match=r"769.*768"):
        plan(rank=769)
    with pytest.raises(ConfigError, match=r"encoder\.layer\.2.output\.dense"):
        plan(ranks={"encoder.layer.2.output.dense": 800}, rank=1)


def test_json_has_the_promised_keys_and_reads_back() -> None:
    found = plan(targets=("query", "key"), rank=2, ranks=MIXED_RANKS, bias="all", variant="dora")
    values = json.loads(json.dumps(found.to_json()))
    promised = {"trainable_params", "adapter_params", "head_params", "bias_params", "total_params", "peft_all_params"}
    assert promised | {"budget", "modules"} <= values.keys()
    assert {"name", "rank", "alpha", "params"} <= values["modules"][0].keys()
    assert Plan.from_json(values) == found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("trainable_params",), 5, "trainable_params is 5, but its parts sum to 925444"),
        (("head_params",), 1, "head_params is 1"),
        (("modules", 0, "params"), 1, "adapter_params is 331776, but its parts sum to 328705"),
        (("modules", 0, "rank"), "many", "modules.0.rank"),
        (("modules",), None, "modules"),
        (("head",), "round", "head"),
    ],
)
def test_a_damaged_plan_is_refused(path: tuple[str | int, ...], value: object, message: str) -> None:
    values: Any = copy.deepcopy(plan().to_json())
    node = values
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(RunError, match=message) as caught:
        Plan.from_json(values, where="runs/x/plan.json")
    assert caught.value.where == "runs/x/plan.json"


def test_a_plan_with_a_missing_entry_is_refused() -> None:
    values = plan().to_json()
    del values["budget"]
    with pytest.raises(RunError, match="budget"):
        Plan.from_json(values)


def test_a_rank_that_is_not_positive_is_refused_when_sums_hold() -> None:
    values: Any = copy.deepcopy(plan().to_json())
    values["modules"][0]["rank"] = -(2**63)
    with pytest.raises(RunError, match="sizes and rank are positive"):
        Plan.from_json(values)


@pytest.mark.parametrize("entry", [{"max_position_embeddings": {"": 1}}, {"pad_token_id": "/nowhere"}])
def test_positions_that_are_no_numbers_are_a_model_error(entry: dict[str, Any]) -> None:
    from submillion.errors import ModelError
    from submillion.model.encoder import find_window

    config = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    assert find_window(config) == 512
    with pytest.raises(ModelError, match="whole numbers"):
        find_window({**config, **entry})
