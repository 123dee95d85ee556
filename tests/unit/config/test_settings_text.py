"""YAML of strangers: every document is read within bounds or refused with its line."""

from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase

import pytest
import yaml

from submillion.cli import main
from submillion.cli.options import read_settings
from submillion.config.nested import apply_overrides
from submillion.config.run import load_yaml
from submillion.config.yaml_text import parse_yaml
from submillion.errors import ConfigError
from submillion.recipes import list_recipes, read_recipe


def _nest(first: str, around: str) -> str:
    lines = [f"a: &a {first}"]
    for before, name in pairwise(ascii_lowercase[:10]):
        lines.append(f"{name}: &{name} " + around.format(",".join([f"*{before}"] * 9)))
    return "\n".join(lines)


BOMBS = {
    "a billion laughs": _nest("[x, x]", "[{}]"),
    "a billion merges": _nest("{k: 1}", "{{<<: [{}]}}"),
    "nested lists": "[" * 100_000,
    "nested sections": "{a: " * 50_000,
    "nested keys": "? " * 50_000,
    "a long list": "a: [" + "x," * 200_000 + "]",
    "a long block": "- a\n" * 130_000,
    "many anchors": "".join(f"- &a{number} x\n" for number in range(40_000)),
    "a chain of merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{number}: &a{number} {{<<: *a{number - 1}}}\n" for number in range(1, 1000)),
    "a value within itself": "&a [*a]",
    "too much text": "#" * 600_000,
    "a number in base 60": "a: " + "1:" * 100_000 + "1",
    "a long number": "a: " + "9" * 5_000,
    "a long hexadecimal number": "a: 0x" + "f" * 100_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_time_and_memory(name: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ConfigError):
        parse_yaml(BOMBS[name], where="x.yaml")
    assert time.process_time() - started < 5 * 4  # tracemalloc makes everything slower
    assert tracemalloc.get_traced_memory()[1] < 150e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("b: 1\na: !!int abc", 2, "'abc' is not a valid int"),
        ("a: !!float x", 1, "'x' is not a valid float"),
        ("a: !!bool maybe", 1, "'maybe' is not a valid bool"),
        ("a: !!binary '@@'", 1, "!!binary"),
        ("a: !!python/object/apply:os.system [ls]", 1, "!!python/object/apply:os.system"),
        ("a: !!python/name:os.system", 1, "!!python/name"),
        ("a: !mine 3", 1, "!mine"),
        ("a: !!set {x}", 1, "!!set"),
        ("a: !!omap [a: 1]", 1, "!!omap"),
        ("a: !!str [x]", 1, "scalar"),
        ("a: !!map x", 1, "mapping"),
        ("a: 1\nb: 2\na: 3", 3, "'a' appears twice"),
        ("a:\n  x: 1\n  x: 1", 3, "'x' appears twice"),
        ("[a]: b", 1, "keys are words"),
        ("<<: 5", 1, "merging"),
        ("a: [", 1, "expected the node content"),
        ("a: 1\n---\nb: 2", 2, "another document"),
        ("a: *b", 1, "undefined alias"),
        ("a:\n\t- b", 2, "cannot start any token"),
    ],
)
def test_what_is_refused_is_named_with_its_line(text: str, line: int, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_yaml(text, where="x.yaml")
    assert error.value.where == f"x.yaml:{line}"
    assert part in error.value.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2026-99-99", {"a": "2026-99-99"}),
        ("a: 2026-01-02 03:04:05", {"a": "2026-01-02 03:04:05"}),
        ("a: =", {"a": "="}),
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}),
        ("a: &a [1]\nb: *a", {"a": [1], "b": [1]}),
        ("a: [1, 2.5, true, null, 'x', ~]", {"a": [1, 2.5, True, None, "x", None]}),
        ("", None),
    ],
)
def test_plain_values_are_read(text: str, value: object) -> None:
    assert parse_yaml(text, where="x.yaml") == value


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_are_read_as_ever(name: str) -> None:
    assert load_yaml(read_recipe(name), where=name) == yaml.safe_load(read_recipe(name))


@pytest.mark.parametrize("raw", ["!!int abc", "[" * 100_000, "!!binary '@'", "[*a]"])
def test_overrides_are_read_by_the_same_rules(raw: str) -> None:
    with pytest.raises(ConfigError):
        read_settings([f"a={raw}"])


def test_an_override_through_thousands_of_sections_is_refused() -> None:
    with pytest.raises(ConfigError, match="sections within each other"):
        apply_overrides({}, {"a." * 50_000 + "b": 1})


@pytest.mark.parametrize(
    "setting",
    [
        "train.epochs=.inf",
        "train.learning_rate=.nan",
        "seed=99999999999999999999",
        f"budget={1 << 70}",
        "threads=1e999",
    ],
)
def test_numbers_that_no_run_can_use_are_errors_of_settings(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "minilm", "--set", setting]) == 2
    assert setting.partition("=")[0] in capsys.readouterr().err
