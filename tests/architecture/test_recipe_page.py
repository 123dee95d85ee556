"""docs/recipes.md agrees with the settings and the shipped recipes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from submillion.recipes import list_recipes

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_recipes", DOCS / "build_recipes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_in_step(builder: ModuleType) -> None:
    written = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert written == builder.build_page(), "run `make docs` and commit docs/recipes.md"


def test_settings_of_generate_are_in_step(builder: ModuleType) -> None:
    written = (DOCS / "generate.md").read_text(encoding="utf-8")
    assert written == builder.build_generate_page(written), "run `make docs` and commit docs/generate.md"
    assert "| `top_p` | number > 0 and ≤ 1 |" in written


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.0}, "number ≥ 0 and < 1"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}, "integer ≥ 1 or `auto`"),
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        ({"type": "boolean"}, "`true`, `false`"),
    ],
)
def test_values_are_shown_with_their_limits(builder: ModuleType, schema: dict[str, object], shown: str) -> None:
    assert builder._show_values(schema) == shown


@pytest.mark.parametrize(
    ("default", "shown"), [(0, "`0`"), (1, "`1`"), (True, "`true`"), (None, "`null`"), (1e-8, "`1e-08`"), ({}, "`{}`")]
)
def test_defaults_are_shown_as_yaml(builder: ModuleType, default: object, shown: str) -> None:
    assert builder._show_default({"default": default}) == shown


def test_page_holds_every_recipe_and_its_reason(builder: ModuleType) -> None:
    page = builder.build_page()
    for name in list_recipes():
        assert f"\n### {name}\n\n" in page
        assert f"\n### {name}\n\n\n" not in page, f"recipe {name} has no about"
