from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from submillion.config.run import CleanConfig
from submillion.data.clean import NEWS, clean_records, clean_text
from submillion.records import Record

MARKUP = ["&", ";", "#", "\\", "<", ">", "/", "<b>", "</b>", "<a href=x", "<br", "=", "<!--", "-->"]
NAMES = ["amp;", "quot;", "lt;", "gt;", "#39;", "&#38;", "&lt;", "&gt;", "nbsp;", "n", "3", "9", "$"]
PIECES = st.sampled_from([*MARKUP, *NAMES, " ", "\u00a0", "\u0301", "e", "\x01", "\x85"])
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map("".join))
RULES = st.builds(
    CleanConfig,
    entities=st.booleans(),
    tags=st.booleans(),
    line_breaks=st.booleans(),
    whitespace=st.booleans(),
    unicode=st.booleans(),
)


@given(TEXTS, RULES)
@example("&amp;amp;lt;b&amp;gt; #39;", NEWS)
@example("\\quot;\x01#39;", NEWS)
def test_cleaning_twice_changes_nothing_more(text: str, rules: CleanConfig) -> None:
    once = clean_text(text, rules)
    assert clean_text(once, rules) == once


@given(st.lists(TEXTS, max_size=5))
def test_no_record_is_lost_or_moved(texts: list[str]) -> None:
    records = [Record(str(number), (text, "x"), number % 2, f"f:{number}") for number, text in enumerate(texts)]
    cleaned = list(clean_records(records, NEWS))
    assert [(r.id, r.label, r.source, len(r.columns)) for r in cleaned] == [
        (r.id, r.label, r.source, 2) for r in records
    ]


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="&;<\\", categories=["L", "N", "P", "Zs"])))
def test_undamaged_text_only_loses_spare_blanks(text: str) -> None:
    assert clean_text(text, NEWS) == " ".join(text.split())


@given(TEXTS)
def test_without_rules_nothing_changes(text: str) -> None:
    off = CleanConfig(entities=False, tags=False, line_breaks=False, whitespace=False, unicode=False)
    assert clean_text(text, off) == text
