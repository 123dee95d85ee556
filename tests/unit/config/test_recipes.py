from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from submillion.budget.plan import Plan, make_plan
from submillion.budget.transfer import adapt_to_base
from submillion.config.run import RunConfig, dump_config, load_yaml, parse_config
from submillion.errors import ConfigError
from submillion.recipes import list_recipes, load_recipe, read_recipe

# The published counts, and those of this project's own recipes, with their rank.
COUNTS = {
    "agnews": (998_404, 6),
    "agnews-minilm": (996_868, 24),
    "agnews-mixed-r12": (796_420, 12),
    "agnews-qk-r10": (962_308, 10),
    "agnews-qkv-r4": (814_852, 4),
    "agnews-qkv-r4-bias": (916_996, 4),
    "agnews-qv-r10": (962_308, 10),
    "minilm": (996_868, 24),
}
PUBLISHED = sorted(name for name in COUNTS if "-r" in name)


def load_facts(base: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((resources.files("submillion.budget") / "configs" / f"{base}.json").read_text())
    return facts


def plan(recipe: RunConfig, base: str | None = None) -> Plan:
    name = base or recipe.model.base
    adapter, _ = adapt_to_base(recipe.adapter, recipe_config=load_facts(recipe.model.base), config=load_facts(name))
    return make_plan(
        load_facts(name), base=name, num_labels=4, model=recipe.model, adapter=adapter, budget=recipe.budget
    )


def test_the_shipped_recipes() -> None:
    assert list_recipes() == sorted([*COUNTS, "demo"])


@pytest.mark.parametrize("name", [*COUNTS, "demo"])
def test_every_recipe_is_valid_and_called_by_its_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.about) > 80
    assert parse_config(load_yaml(dump_config(recipe), where="dump"), where="dump") == recipe


def test_the_recipe_for_own_texts_is_that_for_ag_news_with_a_share_for_validation() -> None:
    own, news = (load_recipe(name).model_dump() for name in ("minilm", "agnews-minilm"))
    assert own["data"]["source"] is None
    assert own["data"]["validation_size"] == 0.1
    for recipe in (own, news):
        for key in ("name", "about", "data"):
            del recipe[key]
    assert own == news


@pytest.mark.parametrize(("name", "expected"), COUNTS.items())
def test_every_recipe_trains_the_parameters_that_it_promises(name: str, expected: tuple[int, int]) -> None:
    found = plan(load_recipe(name))
    assert (found.trainable_params, found.modules[0].rank) == expected


def test_the_mixed_recipe_adapts_the_eight_modules_of_the_notebook() -> None:
    found = {(module.layer, module.kind) for module in plan(load_recipe("agnews-mixed-r12")).modules}
    assert found == {
        *((0, kind) for kind in ("query", "key", "value")),
        *((layer, "query") for layer in (1, 5, 10)),
        *((layer, "ffn_out") for layer in (10, 11)),
    }


@pytest.mark.parametrize("name", [*COUNTS, "demo"])
@pytest.mark.parametrize("base", ["minilm-l6", "bert-base-uncased", "distilbert-base-uncased", "distilroberta-base"])
def test_every_recipe_runs_on_other_bases(name: str, base: str) -> None:
    recipe = load_recipe(name)
    found = plan(recipe, base)
    assert found.trainable_params < recipe.budget


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_keep_the_stock_head_on_roberta_and_say_what_ran(name: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.model.base, recipe.model.head) == ("roberta-base", "native")
    assert recipe.data.source == "hf:fancyzhx/ag_news"
    assert recipe.train.label_smoothing == 0.0
    assert f"{COUNTS[name][0]:,}" in recipe.about


# What their notebooks ran: learning rate, records a step, decay, warmup, alpha, dropout, length.
RAN = {
    "agnews-qk-r10": (2e-5, 32, 0.05, 0.15, 28, 0.5, 192),
    "agnews-qv-r10": (3.23e-4, 64, 0.01, 0.0, 64, 0.1, 512),
    "agnews-mixed-r12": (3e-4, 32, 0.1, 0.15, 32, 0.06, 512),
    "agnews-qkv-r4-bias": (2e-5, 64, 0.01, 0.1, 32, 0.1, 512),
    "agnews-qkv-r4": (1e-5, 16, 0.0, 0.0, 4, 0.2, 512),
}


@pytest.mark.parametrize(("name", "ran"), RAN.items())
def test_published_recipes_train_as_their_notebooks_did(name: str, ran: tuple[float, ...]) -> None:
    recipe = load_recipe(name)
    train, adapter = recipe.train, recipe.adapter
    found = (train.learning_rate, train.batch_size, train.weight_decay, train.warmup_ratio)
    assert (*found, adapter.alpha, adapter.dropout, recipe.model.max_length) == ran


@pytest.mark.parametrize("name", PUBLISHED)
def test_disagreements_and_what_is_missing_are_told(name: str) -> None:
    told = {
        "agnews-qk-r10": ["0.18", "notebook", "query and key"],
        "agnews-qv-r10": ["3.99e-4", "94.513", "0.9328", "84.85"],
        "agnews-mixed-r12": ["layers 0, 1, 5, 10 and 11", "notebook", "0.93906"],
        "agnews-qkv-r4-bias": ["alpha 64", "12,000", "WordNet", "--set data.synonyms={}", "--extra"],
        "agnews-qkv-r4": ["0.8822", "not reported"],
    }
    for words in told[name]:
        assert words in load_recipe(name).about


@pytest.mark.parametrize("name", list_recipes())
def test_numbers_survive_yaml_1_1(name: str) -> None:
    def list_texts(node: Any) -> list[str]:
        if isinstance(node, dict):
            return [text for child in node.values() for text in list_texts(child)]
        if isinstance(node, list):
            return [text for child in node for text in list_texts(child)]
        return [node] if isinstance(node, str) else []

    values = yaml.safe_load(read_recipe(name))
    assert not [text for text in list_texts(values) if text.replace("-", "").replace(".", "")[:1].isdigit()]


def test_a_recipe_by_path_with_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntrain: {epochs: 2}\n", encoding="utf-8")
    recipe = load_recipe(str(path), {"train.learning_rate": 1.0e-4, "adapter.rank": 3})
    assert (recipe.name, recipe.train.epochs, recipe.train.learning_rate, recipe.adapter.rank) == ("mine", 2.0, 1e-4, 3)


def test_an_unknown_recipe_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="agnews-mini") as caught:
        load_recipe("agnews-mini")
    assert "agnews-minilm" in caught.value.hint
