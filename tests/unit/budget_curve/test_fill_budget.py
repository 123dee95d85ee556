"""Budgets as they are written, and how a recipe fills them."""

from __future__ import annotations

from typing import Any

import pytest

from submillion.budget_curve.fill_budget import fill_budget, parse_budgets
from submillion.config.run import AdapterConfig, RunConfig
from submillion.errors import BudgetError, ConfigError
from submillion.model.sources import load_base_config
from submillion.recipes import load_recipe


@pytest.mark.parametrize(
    ("given", "budgets"),
    [
        ("10k,30k,100k,300k,1M", (10_000, 30_000, 100_000, 300_000, 1_000_000)),
        (" 1m, 2500 ,1.5K", (1_500, 2_500, 1_000_000)),
        ("0.1M", (100_000,)),
        ([300, "10k"], (300, 10_000)),
    ],
)
def test_budgets_are_read_and_sorted(given: Any, budgets: tuple[int, ...]) -> None:
    assert parse_budgets(given) == budgets


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "'' is no number"),
        ("10k,,1M", "'' is no number"),
        ("ten", "'ten' is no number"),
        ("-5", "'-5' is no number"),
        ("0", "'0' is no number"),
        ("1.5", "'1.5' is no number"),
        ("10G", "'10G' is no number"),
        ("1e5", "'1e5' is no number"),
        ([True], "True is no number"),
        ([1.5], "1.5 is no number"),
        ([], "no budget is given"),
        ("10k,10000", "10,000 is given twice"),
    ],
)
def test_nonsense_is_no_budget(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_budgets(given)


def fill(budget: int, recipe: RunConfig | None = None) -> Any:
    config = recipe or load_recipe("agnews-minilm")
    return fill_budget(config, load_base_config(config.model.base), num_labels=4, budget=budget)


def test_where_there_is_room_the_rank_alone_changes() -> None:
    for budget, rank in ((100_000, 2), (1_000_000, 24)):
        filled = fill(budget)
        assert filled.config.adapter.targets == ("all",)
        assert {module.rank for module in filled.plan.modules} == {rank}
        # One rank more would reach the budget: 41,472 a rank, 1,540 of the head.
        assert filled.plan.trainable_params == 41_472 * rank + 1_540 < budget
        assert 41_472 * (rank + 1) + 1_540 >= budget
        assert filled.how == f"rank {rank} on all 36 matrices of the recipe"
        assert filled.config.budget == budget


def test_small_budgets_take_fewer_layers_then_fewer_matrices() -> None:
    # A layer of MiniLM has 6,912 parameters a rank: four square matrices of 768 and two of 1,920.
    seen = {budget: fill(budget) for budget in (43_000, 30_000, 8_500, 8_000, 3_000, 2_400)}
    for budget, filled in seen.items():
        assert filled.plan.trainable_params < budget
        kept = {(module.layer, module.kind) for module in filled.plan.modules}
        # From the top down, without a gap.
        layers = {layer for layer, _ in kept}
        assert layers == set(range(6 - len(layers), 6))
    assert len(seen[43_000].plan.modules) == 30
    assert len({module.layer for module in seen[30_000].plan.modules}) == 4
    assert len(seen[8_500].plan.modules) == 6
    assert {module.kind for module in seen[8_000].plan.modules} == {"query", "value"}
    assert len(seen[8_000].plan.modules) == 8
    assert len(seen[3_000].plan.modules) == 1
    assert seen[3_000].plan.trainable_params == 768 + 1_540
    assert seen[8_000].how == "rank 1 on query and value of the top 4 layers (8 matrices)"
    assert seen[8_500].how == "rank 1 on all kinds of the top layer (6 matrices)"
    with pytest.raises(BudgetError, match="nothing of agnews-minilm fits below 2,308") as raised:
        fill(2_308)
    assert "2,308; give a budget of at least 2,309" in raised.value.hint


def test_every_budget_is_kept_and_more_of_it_never_trains_less() -> None:
    trained = [fill(budget).plan.trainable_params for budget in range(2_400, 120_000, 4_900)]
    assert trained == sorted(trained)


def test_biases_and_a_native_head_go_where_they_do_not_fit() -> None:
    recipe = load_recipe("agnews-qkv-r4-bias")
    roomy = fill(900_000, recipe)
    assert (roomy.plan.head, roomy.plan.bias) == (recipe.model.head, recipe.adapter.bias)
    # The head of roberta-base alone has 593,668.
    small = fill(100_000, recipe)
    assert (small.plan.head, small.plan.bias) == ("linear", "none")
    assert small.how.endswith("a linear head")
    assert small.plan.trainable_params < 100_000


def test_targets_given_by_full_names_are_thinned_from_the_bottom() -> None:
    names = ("encoder.layer.0.attention.self.query", "encoder.layer.5.output.dense")
    filled = fill(5_000, RunConfig(adapter=AdapterConfig(targets=names)))
    assert tuple(module.name for module in filled.plan.modules) == names
    filled = fill(3_500, RunConfig(adapter=AdapterConfig(targets=("query",), layers=(0, 2), ranks={"query": 50})))
    assert {(module.layer, module.rank) for module in filled.plan.modules} == {(0, 1), (2, 1)}
    filled = fill(3_000, RunConfig(adapter=AdapterConfig(targets=("query",), layers=(0, 2))))
    assert {module.layer for module in filled.plan.modules} == {2}
