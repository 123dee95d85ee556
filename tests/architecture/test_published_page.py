"""docs/published-systems.md has the figures of its result file, and the recipes have the published counts."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from benchmarks import reproduce
from submillion import api
from submillion.recipes import list_recipes


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return reproduce


def test_page_is_in_step(script: ModuleType) -> None:
    written = script.PAGE.read_text(encoding="utf-8")
    result = json.loads(script.RESULT.read_text(encoding="utf-8"))
    assert written == script.build_page(written, result), (
        "run `python -m benchmarks.reproduce --page` and commit the page"
    )


def test_recipes_count_what_was_published(script: ModuleType) -> None:
    assert set(script.SYSTEMS) <= set(list_recipes())
    for recipe, published in script.SYSTEMS.items():
        assert api.plan(recipe).trainable_params == published.trainable_params


def test_limits_keep_a_recipe_s_own_steps_where_they_are_fewer(script: ModuleType) -> None:
    limits = script.limit_steps("agnews-qkv-r4", 10**9)
    assert limits["train.max_steps"] == 2000
    assert limits["train.evaluate_every"] == 500
    limits = script.limit_steps("agnews-qk-r10", 32_000)
    assert limits["train.max_steps"] == 1000


def test_a_share_of_the_published_steps_is_said(script: ModuleType) -> None:
    published = {"num_steps": 2000, "batch_size": 64}
    entry = {"num_steps": 500, "batch_size": 64, "published": published}
    assert script.show_steps(entry) == "500 of 64; 25% of the published 2,000 of 64"
    assert script.show_steps({**entry, "published": None}) == "500 of 64"
