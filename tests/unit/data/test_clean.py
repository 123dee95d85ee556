from __future__ import annotations

import random
import time

import pytest

from submillion.config.run import CleanConfig
from submillion.data.clean import NEWS, clean_text, count_repairs, describe_repairs
from submillion.records import Record

ALL = NEWS


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Miguel Tejada  #39;s return", "Miguel Tejada 's return"),
        ("Spain #39;s  quot;new quot; plan", 'Spain\'s "new" plan'),
        ("AT amp;T and S &amp; P", "AT&T and S & P"),
        ("#39;Tis  quot;it quot;", '\'Tis "it"'),
        ("a  #36;10 million, up 5 #37;", "a $10 million, up 5%"),
        ("M amp;amp;T, &amp;quot;x&amp;quot;", 'M&T, "x"'),
        ("Google rsquo;s caf eacute; #151; done", "Google\u2019s caf\u00e9\u2014 done"),
        ("dash #8212; and #x2014; here", "dash\u2014 and\u2014 here"),
        ("on nbsp;the nbsp;hill", "on the hill"),
        ("&lt;b&gt;...&lt;/b&gt; more", "... more"),
        ("shares of &lt;MSFT.O&gt; rose", "shares of <MSFT.O> rose"),
        ('a &lt;A HREF="http://x.y/z?q=1&amp;r"&gt;IBM&lt;/A&gt;, b', "a IBM, b"),
        ("one&lt;br /&gt;two&lt;P&gt;three", "one two three"),
        ('cut off <a href="http://www.reuters.com/newsArticle', "cut off"),
        ("over the\\two companies", "over the two companies"),
        ("received a\\new kidney", "received a new kidney"),
        ("US\\$292 mil, \\\\ next", "US$292 mil, next"),
        ("tab\tand\nline \u00a0 end ", "tab and line end"),
        ("cafe\u0301 \x07bell", "caf\u00e9 bell"),
    ],
)
def test_damage_of_the_official_files_is_repaired(raw: str, clean: str) -> None:
    assert clean_text(raw, ALL) == clean


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "if a <b and c> d then",
        "x <3 you; not; copy; sum; win;",
        "he finished #7; she #12; both",
        "R&D; Q&A; &unknown; & more",
        "see &#; and &; and #;",
        "5 <b",
        "\u5317\u4eac <\u65b0>",
    ],
)
def test_innocent_text_is_left_alone(text: str) -> None:
    assert clean_text(text, ALL) == text


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("entities", "Haiti #39;s"),
        ("tags", "a <b>c</b>"),
        ("line_breaks", "a\\b"),
        ("whitespace", "a  b "),
        ("unicode", "e\u0301\x07"),
    ],
)
def test_every_rule_can_be_switched_off(rule: str, text: str) -> None:
    assert clean_text(text, ALL) != text
    assert clean_text(text, ALL.model_copy(update={rule: False})) == text


@pytest.mark.parametrize(
    "text",
    [
        r"C:\new\table.txt is where it lies",
        r'printf("%d\n", x); int lt; memcpy(&copy, &lt;x);',
        "a List<A> of <b>, or <code>x</code>: &lt;b&gt; is how one writes bold",
        r"\frac{a}{b} and $\alpha$",
    ],
)
def test_ordinary_text_is_not_repaired_unasked(text: str) -> None:
    assert clean_text(text, CleanConfig()) == text


def test_repairs_are_counted_by_rule_whether_they_are_made_or_not() -> None:
    columns = [("a  b", "c"), ("Haiti #39;s", "x\\y"), ("&lt;b&gt;bold&lt;/b&gt;",), ("plain", "too"), ("cafe\u0301",)]
    records = [Record(str(number), given) for number, given in enumerate(columns)]
    assert count_repairs(records, NEWS) == {"entities": 2, "tags": 1, "line_breaks": 1, "unicode": 1, "whitespace": 1}
    # Tags that hide behind entities show only once those are decoded.
    own = {"entities": 2, "line_breaks": 1, "unicode": 1, "whitespace": 1}
    assert count_repairs(records, CleanConfig()) == own
    made, unmade = describe_repairs({"whitespace": 1}, CleanConfig()), describe_repairs({"entities": 2}, CleanConfig())
    assert made == ["cleaning: 1 row had whitespace folded (data.clean.whitespace=false leaves it as it is)"]
    assert unmade == ["cleaning: 2 rows would have entities decoded with data.clean.entities=true, which is off"]


def test_long_hostile_text_is_cleaned_in_time() -> None:
    begin = time.perf_counter()
    for piece in ("<b", "&#38;", " amp;", "nbsp;", "<a href=", "\\", "&lt;", "<!--", "<b ", "< "):
        clean_text(piece * 10_000, ALL)
    assert time.perf_counter() - begin < 10


def test_marks_without_end_on_one_letter_take_no_time() -> None:
    draw = random.Random(0)
    text = "e" + "".join(draw.choices("\u0301\u0323\u0316\u0344", k=500_000)) + " soup"
    started = time.process_time()
    cleaned = clean_text(text, CleanConfig())
    assert time.process_time() - started < 5
    assert cleaned.endswith(" soup")
    assert len(cleaned) < 200
    assert clean_text(cleaned, CleanConfig()) == cleaned
    # Real writing keeps every mark.
    assert clean_text("e\u0323\u0301" * 200, CleanConfig()) == "\u1eb9\u0301" * 200
