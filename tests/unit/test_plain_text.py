"""Text of data, as terminals, pages and cards show it."""

from __future__ import annotations

import pytest

from submillion.plain_text import clean_controls, escape_markdown, quote_code

MARK = "\N{REPLACEMENT CHARACTER}"


def test_control_characters_are_replaced_and_other_text_is_not() -> None:
    assert clean_controls("a\x1b[2Jb\x9bc\u202ed\re\tf\ng") == f"a{MARK}[2Jb{MARK}c{MARK}d{MARK}e\tf\ng"
    assert clean_controls("Zürich, 東京 🙂 שלום") == "Zürich, 東京 🙂 שלום"
    assert clean_controls("\ud800") == MARK


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b *c* `d`", "a\\_b \\*c\\* \\`d\\`"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("two\nlines\u2028three", "two lines three"),
        ("see https://a.test and www.b.test", "see https\\://a.test and www\\.b.test"),
        ("me@a.test", "me\\@a.test"),
        ("\x1b[31mred", f"{MARK}\\[31mred"),
        (7, "7"),
    ],
)
def test_markdown_takes_text_for_text(text: object, escaped: str) -> None:
    assert escape_markdown(text) == escaped


@pytest.mark.parametrize(
    ("text", "quoted"), [("abc", "`abc`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```"), ("a\x1bb", f"`a{MARK}b`")]
)
def test_code_cannot_end_its_quotes(text: object, quoted: str) -> None:
    assert quote_code(text) == quoted
