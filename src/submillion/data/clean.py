r"""Repair damage that copying does to a text: lost ampersands, markup, backslash line breaks, odd characters.

The rules follow the official AG News files, where an ampersand was replaced by a blank (``Haiti #39;s``,
``AT amp;T``), markup was escaped (``&lt;b&gt;``), and a line break became a backslash (``a\new`` is "a" and "new":
``\n`` is never an escape there). Cleaning a second time changes nothing.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from submillion.config.run import CleanConfig
from submillion.records import Record

MAX_PASSES = 20
"""Repairs can uncover damage (``&amp;lt;b&amp;gt;``), and each pass removes one layer. Real text needs three."""

MAX_MARKS = 100
"""Most combining marks in a row that are kept. No script needs ten; 30 is the limit of Unicode's stream-safe format."""

LAST_MARK = 0x1FFFF
"""Last code point that can be a combining mark (the last one in Unicode 15 is U+1E94A)."""

# This is an entity, whole, or with an ampersand that became a blank or was lost at the start. A prefix `amp;` means
# that it was escaped twice.
_ENTITY = re.compile(
    r"(&| |^)(?:amp;|#0*38;|#[xX]0*26;)*"
    r"(nbsp;(?:nbsp;)*|#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};)"
)
# Without its ampersand, a name must not be a word that can end a clause before a semicolon ("copy;", "not;").
_SAFE_NAMES = re.compile(
    r"(?:amp|quot|lt|gt|apos|[lr][sd]quo|[sb]dquo|sbquo|[mn]dash|hellip|bull|middot|euro|laquo|raquo|szlig|[ao]elig|"
    r"[a-zA-Z](?:acute|grave|uml|circ|tilde|cedil|caron|ring));"
)
_SAFE_NUMBERS = frozenset({34, 35, 36, 37, 38, 39, 60, 62})
_FIRST_UNSAFE_FREE = 128

_NAMES = (
    "a|abbr|acronym|address|b|big|blockquote|body|br|center|cite|code|dd|del|div|dl|dt|em|font|form|h[1-6]|head|hr|"
    "html|i|iframe|img|input|ins|li|link|meta|nobr|object|ol|option|p|param|pre|q|s|script|select|small|span|strike|"
    "strong|style|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul"
)
# Attributes need an equals sign, so that "a <b and c> d" is not a tag; a tag may be cut off only at the text's end.
_TAG = re.compile(
    rf"</?(?:{_NAMES})(?:\s+[a-z][a-z-]*\s*=[^<>]*)?\s*/?>|<!--[^<>]*-->|<(?:{_NAMES})\s+[a-z][a-z-]*\s*=[^<>]*$",
    re.IGNORECASE,
)
_INLINE = re.compile(r"</?(?:a|abbr|b|big|cite|em|font|i|nobr|s|small|span|strong|sub|sup|tt|u)\b", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")


RULES = ("entities", "tags", "line_breaks", "unicode", "whitespace")
NEWS = CleanConfig(entities=True, tags=True, line_breaks=True)
"""All rules are on, as AG News needs them."""

_ALONE = {rule: CleanConfig(**{other: other == rule for other in RULES}) for rule in RULES}


def clean_text(text: str, rules: CleanConfig) -> str:
    """Return the text with every repair that `rules` allow; a text without damage is returned unchanged.

    The function is idempotent, and no text makes it raise.
    """
    if _is_plain(text):
        return " ".join(text.split()) if rules.whitespace and not _is_folded(text) else text
    return _repair(text, rules, set())


def find_repairs(text: str, rules: CleanConfig) -> frozenset[str]:
    """Return the rules that change a text, and those that would change it if they were on."""
    if _is_plain(text):
        return frozenset() if _is_folded(text) else frozenset({"whitespace"})
    made: set[str] = set()
    _repair(text, rules, made)
    for rule, alone in _ALONE.items():
        if not getattr(rules, rule) and _clean_once(text, alone, set()) != text:
            made.add(rule)
    return frozenset(made)


def count_repairs(records: Iterable[Record], rules: CleanConfig) -> dict[str, int]:
    """Return how many rows each rule changes, or would change if it were on; rules that change none are left out."""
    counts = Counter[str]()
    for record in records:
        for column in record.columns:
            if not _is_plain(column) or not _is_folded(column):
                counts.update(frozenset().union(*(find_repairs(text, rules) for text in record.columns)))
                break
    return {rule: counts[rule] for rule in RULES if counts[rule]}


_REPAIRS = {
    "entities": "entities decoded",
    "tags": "HTML tags removed",
    "line_breaks": "backslashes turned into blanks",
    "unicode": "letters composed or control characters removed",
    "whitespace": "whitespace folded",
}


def describe_repairs(counts: Mapping[str, int], rules: CleanConfig) -> list[str]:
    """Return a sentence for each rule that changed rows, or would change some if it were on, and its setting.

    Args:
        counts: Rows by rule, from `count_repairs`.
        rules: The rules of the run.
    """
    lines = []
    for rule, count in counts.items():
        rows = "1 row" if count == 1 else f"{count:,} rows"
        if getattr(rules, rule):
            left = "it as it is" if count == 1 else "them as they are"
            lines.append(f"cleaning: {rows} had {_REPAIRS[rule]} (data.clean.{rule}=false leaves {left})")
        else:
            lines.append(f"cleaning: {rows} would have {_REPAIRS[rule]} with data.clean.{rule}=true, which is off")
    return lines


def _is_folded(text: str) -> bool:
    """Whether a plain text, whose only whitespace is the blank, has no whitespace to fold."""
    return "  " not in text and not text.startswith(" ") and not text.endswith(" ")


def _repair(text: str, rules: CleanConfig, made: set[str]) -> str:
    """Return the text with all repairs, and add the rules that changed it to `made`."""
    for _ in range(MAX_PASSES):
        cleaned = _clean_once(text, rules, made)
        if cleaned == text or _is_plain(cleaned):
            return cleaned
        text = cleaned
    return text


def _is_plain(text: str) -> bool:
    """Whether only the whitespace rule can change the text: printable ASCII without signs of damage."""
    return text.isascii() and text.isprintable() and ";" not in text and "<" not in text and "\\" not in text


def is_without_text(text: str) -> bool:
    """Return whether a text has only blanks, tags and entities for blanks."""
    is_markup = text.lstrip().startswith(("<", "&"))
    return not (clean_text(text, NEWS) if is_markup else text).strip()


def clean_records(records: Iterable[Record], rules: CleanConfig) -> Iterator[Record]:
    """Yield every record with clean columns, in order; none is dropped, even if its text becomes empty."""
    for record in records:
        columns = tuple([clean_text(column, rules) for column in record.columns])
        yield record if columns == record.columns else Record(record.id, columns, record.label, record.source)


def _clean_once(text: str, rules: CleanConfig, made: set[str]) -> str:
    steps: list[tuple[str, Callable[[str], str]]] = []
    if rules.entities and ";" in text:
        steps.append(("entities", _decode_entities))
    if rules.line_breaks and "\\" in text:
        steps.append(("line_breaks", _break_lines))
    if rules.tags and ("<" in text or steps):
        steps.append(("tags", _drop_tags))
    if rules.unicode:
        steps.append(("unicode", _normalise))
    if rules.whitespace:
        steps.append(("whitespace", _fold))
    for rule, step in steps:
        changed = step(text)
        if changed != text:
            made.add(rule)
            text = changed
    return text


def _decode_entities(text: str) -> str:
    return _ENTITY.sub(_decode_entity, text)


def _break_lines(text: str) -> str:
    # In the official files, `\$` is an escaped dollar sign, and every other backslash replaces a line end.
    return text.replace("\\$", "$").replace("\\", " ")


def _drop_tags(text: str) -> str:
    return _TAG.sub(_drop_tag, text) if "<" in text else text


def _normalise(text: str) -> str:
    text = _CONTROL.sub("", text)
    return text if text.isascii() else compose_text(text)


def _fold(text: str) -> str:
    return " ".join(text.split())


def compose_text(text: str) -> str:
    """Return the text in NFC with at most `MAX_MARKS` marks on a letter, since sorting them takes quadratic time."""
    if len(text) > MAX_MARKS:
        text = _find_mark_runs().sub(lambda match: match[0][:MAX_MARKS], text)
    return unicodedata.normalize("NFC", text)


@cache
def _find_mark_runs() -> re.Pattern[str]:
    marks = [chr(code) for code in range(0x300, LAST_MARK + 1) if unicodedata.combining(chr(code))]
    return re.compile(f"[{''.join(marks)}]{{{MAX_MARKS + 1},}}")


def _decode_entity(match: re.Match[str]) -> str:
    mark, name = match[1], match[2]
    if name.startswith("nbsp;"):
        return " "
    if mark != "&" and not _is_safe_without_ampersand(name):
        return match[0]
    decoded = html.unescape(f"&{name}")
    return match[0] if decoded == f"&{name}" else decoded


def _is_safe_without_ampersand(name: str) -> bool:
    if not name.startswith("#"):
        return _SAFE_NAMES.fullmatch(name) is not None
    digits = name[1:-1]
    number = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    return number in _SAFE_NUMBERS or number >= _FIRST_UNSAFE_FREE


def _drop_tag(match: re.Match[str]) -> str:
    return "" if _INLINE.match(match[0]) else " "
