"""Spaces: every draw stays below the budget, conditions hold, and impossible settings fail before the first trial."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submillion.budget.plan import Plan, make_plan
from submillion.config.run import RunConfig, parse_config
from submillion.errors import BudgetError, ConfigError
from submillion.model.sources import load_base_config
from submillion.search.space import RANK_SHARE, Space, apply_settings, find_share, make_default_space, take_share

NUM_LABELS = 4
LEARNING_RATE = {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}


def make_config(**changes: Any) -> RunConfig:
    return parse_config({"name": "searched", "search": {}, **changes}, where="test")


def make_space(config: RunConfig) -> Space:
    base_config = load_base_config(config.model.base)
    assert config.search is not None
    parameters = config.search.space or make_default_space(config, base_config, NUM_LABELS)
    return Space(config, parameters, base_config, NUM_LABELS)


def draw(space: Space, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    return space.draw(trial), trial.params


def plan(space: Space, drawn: dict[str, Any]) -> Plan:
    config = apply_settings(space.config, drawn)
    return make_plan(
        space.base_config,
        base=config.model.base,
        num_labels=NUM_LABELS,
        model=config.model,
        adapter=config.adapter,
        budget=config.budget,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    base=st.sampled_from(["minilm-l6", "roberta-base", "deberta-v3-base", "modernbert-base", "distilroberta-base"]),
    budget=st.integers(640_000, 1_500_000),
    head=st.sampled_from(["native", "linear"]),
    variant=st.sampled_from(["lora", "dora"]),
)
def test_every_draw_of_the_default_space_stays_below_the_budget(
    seed: int, base: str, budget: int, head: str, variant: str
) -> None:
    config = make_config(budget=budget, model={"base": base, "head": head}, adapter={"variant": variant})
    try:
        space = make_space(config)
        space.check()
    except BudgetError:
        # The recipe's own targets do not fit either, at no rank.
        with pytest.raises(BudgetError):
            plan(Space(config, {}, load_base_config(base), NUM_LABELS), {})
        return
    drawn, _ = draw(space, seed)
    realised = plan(space, drawn)
    assert realised.trainable_params < budget
    assert {module.rank for module in realised.modules} == {drawn["adapter.rank"]}


def test_the_default_space_has_what_matters_and_begins_with_the_recipe() -> None:
    space = make_space(make_config())
    assert set(space.parameters) == {
        *("train.learning_rate", "train.head_learning_rate", "train.batch_size", "train.weight_decay"),
        *("train.warmup_ratio", "train.label_smoothing"),
        *("adapter.targets", "adapter.layers", "adapter.rank", "adapter.alpha", "adapter.dropout"),
    }
    located = space.locate_recipe()
    assert located is not None
    study = optuna.create_study()
    study.enqueue_trial(located)
    config = apply_settings(space.config, space.draw(study.ask()))
    own = plan(space, {})
    again = make_plan(
        space.base_config,
        base=config.model.base,
        num_labels=NUM_LABELS,
        model=config.model,
        adapter=config.adapter,
        budget=config.budget,
    )
    assert again.to_json() == own.to_json()
    assert config.train.model_copy(update={"head_learning_rate": None}) == space.config.train


def test_ranks_of_every_size_are_drawn_and_found_again() -> None:
    assert {take_share(1, 7, share / 100) for share in range(101)} == set(range(1, 8))
    assert [take_share(2, 9, find_share(2, 9, rank)) for rank in range(2, 10)] == list(range(2, 10))
    assert take_share(3, 3, 0.2) == 3


def test_conditions_decide_what_is_drawn_and_how_large_a_rank_may_be() -> None:
    space_values = {
        "model.head": {"type": "categorical", "choices": ["native", "linear"]},
        "model.head_dropout": {"type": "float", "low": 0.0, "high": 0.5, "when": {"model.head": "linear"}},
        "adapter.rank": {"type": "rank", "low": 1},
    }
    config = make_config(model={"base": "roberta-base"}, search={"space": space_values})
    space = make_space(config)
    space.check()
    ranks: dict[str, set[int]] = {"native": set(), "linear": set()}
    for seed in range(40):
        drawn, params = draw(space, seed)
        assert ("model.head_dropout" in drawn) == (drawn["model.head"] == "linear")
        assert list(params)[-1] == RANK_SHARE
        ranks[drawn["model.head"]].add(drawn["adapter.rank"])
    # The stock head of 593,668 leaves two ranks on all linear layers, a linear one six.
    assert max(ranks["native"]) == 2
    assert max(ranks["linear"]) == 6


def test_the_same_records_are_seen_at_every_batch_size() -> None:
    config = make_config(train={"max_steps": 200, "batch_size": 32, "evaluate_every": 50, "interval_unit": "steps"})
    larger = apply_settings(config, {"train.batch_size": 128})
    assert (larger.train.max_steps, larger.train.evaluate_every) == (50, 12)
    assert apply_settings(config, {"train.batch_size": 8}).train.max_steps == 800


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"space": {"adapter.rank": {"type": "int", "low": 1, "high": 400}}}}, "rank 400"),
        (
            {
                "model": {"base": "roberta-base"},
                "adapter": {"rank": 2},
                "search": {
                    "space": {
                        "model.head": {"type": "categorical", "choices": ["native", "linear"]},
                        "adapter.bias": {"type": "categorical", "choices": ["none", "all"]},
                    }
                },
            },
            "model.head=native, adapter.bias=all and rank 2",
        ),
    ],
)
def test_what_could_reach_the_budget_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((BudgetError, ConfigError), match=message):
        make_space(make_config(**changes)).check()


def test_a_setting_without_effect_is_refused() -> None:
    config = make_config(
        train={"warmup_steps": 10}, search={"space": {"train.warmup_ratio": {"type": "float", "low": 0, "high": 0.2}}}
    )
    with pytest.raises(ConfigError, match=r"no effect beside train\.warmup_steps=10"):
        make_space(config).check()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.learning_rat": LEARNING_RATE}, r"unknown setting\nDid you mean 'train\.learning_rate'"),
        ({"adapter.variant": {"type": "categorical", "choices": ["lora", "loha"]}}, "adapter.variant.*loha"),
        ({"data.source": LEARNING_RATE}, "cannot vary"),
        ({"train.epochs": LEARNING_RATE}, "all trials share"),
        ({"train.learning_rate": {**LEARNING_RATE, "low": 1}}, r"low 1\.0 is above high 0\.01"),
        ({"train.learning_rate": {**LEARNING_RATE, "low": 0}}, "no place on a log scale"),
        ({"train.learning_rate": {**LEARNING_RATE, "step": 0.1}}, "exclude each other"),
        ({"train.learning_rate": {"type": "float", "low": 0, "hihg": 1}}, "did you mean 'high'"),
        ({"train.learning_rate": {"type": "rank"}}, "type rank is for adapter.rank"),
        ({"adapter.dropout": {**LEARNING_RATE, "when": {"model.head": "linear"}}}, "not a categorical setting"),
    ],
)
def test_broken_spaces_are_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_space(make_config(search={"space": space})).check()


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"pruner": "wilcoxon"}, "needs repeats of at least 5, got 1"),
        ({"repeats": 5}, "for the wilcoxon pruner only"),
        ({"trials": 0}, "trials"),
        ({"sampler": "grid"}, "sampler"),
        ({"row": 5}, "did you mean 'rows'"),
    ],
)
def test_broken_searches_are_refused(search: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(search=search)
