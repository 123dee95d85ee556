"""Properties of plans that hold for every configuration, budget and setting."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submillion.budget.count import count_encoder, list_linears
from submillion.budget.families import FAMILIES
from submillion.budget.plan import Plan, make_plan
from submillion.budget.transfer import map_layer
from submillion.config.run import KINDS, AdapterConfig, ModelConfig
from submillion.errors import BudgetError, ConfigError


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from(sorted(FAMILIES)))
    heads = draw(st.integers(1, 4))
    hidden = heads * draw(st.integers(1, 24))
    layers, ffn = draw(st.integers(1, 6)), draw(st.integers(1, 120))
    config: dict[str, Any] = {"model_type": family, "vocab_size": draw(st.integers(1, 200))}
    if family == "distilbert":
        return config | {"dim": hidden, "n_heads": heads, "n_layers": layers, "hidden_dim": ffn}
    return config | {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": ffn,
    }


@st.composite
def settings(draw: st.DrawFn, rank: st.SearchStrategy[int | str]) -> dict[str, Any]:
    return {
        "model": ModelConfig(head=draw(st.sampled_from(["native", "linear"]))),
        "adapter": AdapterConfig(
            rank=draw(rank),
            targets=draw(st.sampled_from([("all",), ("ffn_in",), ("attention_output", "ffn_out")])),
            variant=draw(st.sampled_from(["lora", "rslora", "dora", "pissa"])),
            bias=draw(st.sampled_from(["none", "lora_only", "all"])),
        ),
        "num_labels": draw(st.integers(2, 30)),
    }


AUTO = settings(st.just("auto"))
BUDGETS = st.integers(1, 40_000)


def plan(config: dict[str, Any], chosen: dict[str, Any], budget: int, **changes: Any) -> Plan | None:
    """Return a plan, or None where the budget is too small."""
    adapter = chosen["adapter"].model_copy(update=changes)
    try:
        return make_plan(config, base="x", budget=budget, **{**chosen, "adapter": adapter})
    except BudgetError:
        return None


@given(configs(), AUTO, BUDGETS)
def test_every_plan_is_below_its_budget_and_sums(config: dict[str, Any], chosen: dict[str, Any], budget: int) -> None:
    found = plan(config, chosen, budget)
    if found is None:
        return
    assert found.trainable_params < budget
    assert found.trainable_params == found.adapter_params + found.head_params + found.bias_params
    assert found.trainable_params == sum(params for _, params in found.parts)
    assert found.total_params >= count_encoder(config) + found.adapter_params + found.head_params
    assert found.peft_all_params == found.total_params + found.head_params
    for module in found.modules:
        assert 1 <= module.rank <= min(module.in_features, module.out_features)


@given(configs(), AUTO, BUDGETS)
def test_the_automatic_rank_is_the_largest(config: dict[str, Any], chosen: dict[str, Any], budget: int) -> None:
    found = plan(config, chosen, budget)
    if found is None:
        assert plan(config, chosen, budget, rank=1) is None
        return
    [rank] = {module.rank for module in found.modules}
    try:
        assert plan(config, chosen, budget, rank=rank + 1) is None
    except ConfigError:
        assert rank == min(min(module.in_features, module.out_features) for module in found.modules)


@given(configs(), AUTO, BUDGETS, BUDGETS)
def test_a_larger_budget_never_buys_less(
    config: dict[str, Any], chosen: dict[str, Any], budget: int, more: int
) -> None:
    small, large = plan(config, chosen, budget), plan(config, chosen, budget + more)
    if small is None:
        return
    assert large is not None
    assert large.modules[0].rank >= small.modules[0].rank
    assert large.trainable_params >= small.trainable_params


@given(configs(), settings(st.integers(1, 6)), BUDGETS)
def test_plans_are_deterministic_and_survive_json(config: dict[str, Any], chosen: dict[str, Any], budget: int) -> None:
    try:
        first, second = plan(config, chosen, budget), plan(dict(reversed(config.items())), chosen, budget)
    except ConfigError:
        return
    assert first == second
    if first is not None:
        assert Plan.from_json(first.to_json()) == first


@given(configs(), settings(st.integers(1, 6)))
def test_the_smallest_budget_that_is_named_is_the_smallest(config: dict[str, Any], chosen: dict[str, Any]) -> None:
    try:
        make_plan(config, base="x", budget=1, **chosen)
    except ConfigError:
        return
    except BudgetError as error:
        smallest = int(error.hint.rsplit("at least ", 1)[1].rstrip(".").replace(",", ""))
    assert plan(config, chosen, smallest) is not None
    assert plan(config, chosen, smallest - 1) is None


@given(configs())
def test_linears_are_named_once_and_cover_every_layer(config: dict[str, Any]) -> None:
    linears = list_linears(config)
    names = [linear.name for linear in linears]
    assert len(set(names)) == len(names)
    layers = sorted({linear.layer for linear in linears})
    assert layers == list(range(len(layers)))
    kinds = [linear.kind for linear in linears if linear.layer == 0]
    assert kinds == (["qkv", *KINDS[3:]] if config["model_type"] == "modernbert" else list(KINDS))


@given(st.integers(1, 50), st.integers(1, 50), st.data())
def test_mapped_layers_keep_their_order_and_both_ends(depth: int, new_depth: int, data: st.DataObject) -> None:
    mapped = [map_layer(layer, depth, new_depth) for layer in range(depth)]
    assert mapped == sorted(mapped)
    assert mapped[0] == 0
    assert depth == 1 or mapped[-1] == new_depth - 1
    layer = data.draw(st.integers(0, depth - 1))
    if depth > 1:
        assert mapped[layer] == pytest.approx(layer * (new_depth - 1) / (depth - 1), abs=0.5)
