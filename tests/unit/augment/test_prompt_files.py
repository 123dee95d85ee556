"""Prompts by class: the shipped ones, a user's, and errors of those that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from submillion.augment.prompt_files import load_prompts, read_shipped_prompts
from submillion.errors import ConfigError
from submillion.records import LabelSet

NEWS = LabelSet(("World", "Sports", "Business", "Sci/Tech"))


def test_the_shipped_prompts_are_sixteen_a_class_all_different() -> None:
    prompts = load_prompts(None, NEWS)
    assert {name: len(listed) for name, listed in prompts.items()} == dict.fromkeys(NEWS, 16)
    texts = [text for listed in prompts.values() for text in listed]
    assert len({text.casefold() for text in texts}) == 64
    assert all(text == text.strip() and 3 <= len(text.split()) <= 12 for text in texts)


def test_prompts_come_in_the_order_of_the_label_ids() -> None:
    assert list(load_prompts(None, LabelSet(("Sci/Tech", "World", "Business", "Sports")))) == [
        *("Sci/Tech", "World", "Business", "Sports"),
    ]


def test_a_copy_reads_as_the_shipped_file(tmp_path: Path) -> None:
    (tmp_path / "copy.yaml").write_text(read_shipped_prompts(), encoding="utf-8")
    assert load_prompts(tmp_path / "copy.yaml", None) == load_prompts(None, NEWS)


def test_other_classes_are_told_how_to_write_a_file() -> None:
    with pytest.raises(ConfigError, match=r"no prompts for 'spam', 'ham'; prompts for 'World', .* which the data") as e:
        load_prompts(None, LabelSet(("spam", "ham")))
    assert "--prompts FILE" in e.value.hint
    assert "--conditional" in e.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no: [a b]\nyes: [c d]", "the class name False is not text"),
        ("spam: buy now\nham: [hello]", "spam: expected a list of beginnings, found 'buy now'"),
        ("spam: [1]\nham: [hello]", "spam: entry 1 is not text: 1"),
        ("spam: ['  ']\nham: [hello]", "spam: entry 1 is not text"),
        ("spam: [a, a]\nham: [hello]", "spam: 'a' appears twice"),
        (f"spam: [{'x' * 501}]\nham: [hello]", "has 501 characters"),
        ("- a\n- b", "expected settings, found list"),
        ("spam: [", "not valid YAML"),
    ],
)
def test_a_file_that_does_not_fit_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as error:
        load_prompts(path, LabelSet(("spam", "ham")))
    assert str(path) in error.value.where


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prompts(tmp_path / "none.yaml", None)
