"""Settings by dotted path: applied in order, made plain, refused where they are none, flattened and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from submillion.cli.options import read_settings
from submillion.config.nested import add_overrides, apply_overrides, flatten, list_changes
from submillion.errors import ConfigError
from submillion.pipeline.resolve import resolve_config

RECIPE = {"seed": 1, "train": {"epochs": 2, "betas": [0.9, 0.99]}}


def test_overrides_change_a_copy_and_keep_the_rest() -> None:
    changed = apply_overrides(RECIPE, {"train.epochs": 3, "adapter.ranks": {"query": 4}})
    assert changed == {"seed": 1, "train": {"epochs": 3, "betas": [0.9, 0.99]}, "adapter": {"ranks": {"query": 4}}}
    assert RECIPE["train"] == {"epochs": 2, "betas": [0.9, 0.99]}


def test_a_whole_section_takes_the_place_of_the_old_one() -> None:
    assert apply_overrides(RECIPE, {"train": {"epochs": 1}, "train.max_steps": 5})["train"] == {
        "epochs": 1,
        "max_steps": 5,
    }


def test_arrays_and_paths_become_plain_values() -> None:
    given = {"a": np.int64(3), "b": np.array([1.5, 2.5]), "c": Path("x/y"), "d": ({"e": np.float32(0.5)},), "f": None}
    plain = apply_overrides({}, given)
    assert plain == {"a": 3, "b": [1.5, 2.5], "c": "x/y", "d": [{"e": 0.5}], "f": None}
    assert type(plain["a"]) is int


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.epochs=2"], "is not a mapping"),
        ("train.epochs=2", "is not a mapping"),
        ({"train..epochs": 2}, "is not the path of a setting"),
        ({3: 2}, "is not the path of a setting"),
        ({"seed.more": 2}, "'seed' is a value, not a section"),
        ({"train.epochs": object()}, "is not a setting"),
        ({"train.epochs": b"2"}, "is not a setting"),
        ({"data.text": {"title"}}, "is not a setting"),
    ],
)
def test_what_is_no_setting_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_config(RECIPE, settings=settings)


def test_a_value_within_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ConfigError, match="nested more than"):
        apply_overrides({}, {"a": endless})


def test_what_is_added_wins_even_over_a_later_section() -> None:
    first = {"search.trials": 5, "search": {"rows": 3}}
    both = add_overrides(first, {"search.trials": 7, "search.steps": None})
    assert apply_overrides({}, both) == {"search": {"rows": 3, "trials": 7}}


def test_of_a_flag_that_is_given_twice_the_last_one_counts() -> None:
    given = ["train.epochs=1", "train={max_steps: 3}", "train.epochs = 2", "data.text=[a, b]", "model.revision=null"]
    settings = read_settings(given)
    assert list(settings) == ["train", "train.epochs", "data.text", "model.revision"]
    assert apply_overrides({}, settings)["train"] == {"max_steps": 3, "epochs": 2}
    assert (settings["data.text"], settings["model.revision"]) == (["a", "b"], None)
    for wrong in ("epochs", "=3", " =3"):
        with pytest.raises(ConfigError, match="not of the form key=value"):
            read_settings([wrong])


def test_nested_values_are_flattened_as_deep_as_wanted() -> None:
    nested = {"a": {"b": {"c": 1}, "d": [2]}, "e": {}, "f": 3}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [2], "e": {}, "f": 3}
    assert flatten(nested, depth=1) == {"a.b": {"c": 1}, "a.d": [2], "e": {}, "f": 3}


def test_changes_are_named_by_their_path() -> None:
    before = {"a": {"b": 1, "c": [1]}, "d": 2, "gone": 5}
    now = {"a": {"b": 1, "c": [2]}, "d": 2, "new": None}
    assert list_changes(before, now) == [("a.c", [1], [2]), ("gone", 5, None)]
    assert list_changes(before, before) == []
