"""Parts of speech from WordNet's frequencies and neighbouring function words, decided only where they are clear."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from submillion.wordnet.inflect import Form, find_form
from submillion.wordnet.lexicon import POS, Lexicon, Pos

_TOKEN = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|\d[\d.,]*|[^\w\s]|_+")

MIN_SHARE = 0.9
"""Smallest share that a reading of a word must have among all of its readings."""

_SMOOTHING = 0.3
"""Number of uses added to every reading that WordNet lists, since its texts lack most readings of most words."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word, number or mark of a text, at ``start`` to ``end``."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The base form, the part of speech and the form of a word; the form is None if it is not clear."""

    pos: Pos
    base: str
    form: Form | None


def split_text(text: str) -> list[Token]:
    """Return the words, numbers and marks of a text in order."""
    return [Token(match[0], match.start(), match.end()) for match in _TOKEN.finditer(text)]


def _list(words: str) -> frozenset[str]:
    return frozenset(words.split())


_DETERMINERS = _list("the a an its their his her my our your this these those every each no another any some")
_MODALS = _list(
    "will would can could may might must should shall cannot won't wouldn't can't couldn't didn't don't did"
)
_BE = _list("be is are was were been being am isn't wasn't aren't weren't")
_HAVE = _list("has have had having hasn't haven't hadn't")
_SUBJECTS = _list("i he she it we they who which")
PREPOSITIONS = _list(
    "of in on at by for from with into about after against before between during over under through without within "
    "among toward towards across near amid despite since until via per upon"
)
_OBJECTS = _list("him them me us")
_ADVERBS = _list("not also still already never always often just only even now soon very more most less so too")
_CONJUNCTIONS = _list("and or but that when while as if because than where whether")
_VERBS_AFTER = _BE | _HAVE | _MODALS | _list("said says has had")

# These factors multiply the odds of noun, verb, adjective and adverb, by the kind of word before and after. They are
# rough shares in edited English and decide nothing alone, since a reading must still reach MIN_SHARE.
_BEFORE: tuple[tuple[frozenset[str], Mapping[Pos, float]], ...] = (
    (_DETERMINERS, {"n": 4, "v": 0.02, "a": 2, "r": 0.3}),
    (_MODALS, {"n": 0.05, "v": 8, "a": 0.05, "r": 1}),
    (frozenset({"to"}), {"n": 0.6, "v": 5, "a": 0.4, "r": 0.3}),
    (_BE, {"n": 0.2, "v": 1, "a": 2, "r": 1}),
    (_HAVE, {"n": 0.5, "v": 2, "a": 0.7, "r": 1}),
    (_SUBJECTS, {"n": 0.05, "v": 6, "a": 0.1, "r": 1}),
    (PREPOSITIONS, {"n": 3, "v": 0.15, "a": 1.5, "r": 0.3}),
    (_ADVERBS, {"n": 0.3, "v": 1, "a": 2, "r": 1}),
)
_AFTER: tuple[tuple[frozenset[str], Mapping[Pos, float]], ...] = (
    (frozenset({"of"}), {"n": 4, "v": 0.2, "a": 0.2, "r": 0.2}),
    (_DETERMINERS | _OBJECTS, {"n": 0.3, "v": 4, "a": 0.1, "r": 0.7}),
    (_VERBS_AFTER, {"n": 3, "v": 0.1, "a": 0.2, "r": 1}),
    (PREPOSITIONS, {"n": 1.5, "v": 1, "a": 0.4, "r": 1}),
    (_CONJUNCTIONS | frozenset(".,;:!?)"), {"n": 1.5, "v": 0.8, "a": 0.5, "r": 1}),
)
# A verb cannot have these forms after such words.
_NO_BASE_AFTER = _BE | _HAVE
_ONLY_BASE_AFTER = _MODALS | {"to"}


def list_readings(word: str, lexicon: Lexicon) -> list[Reading]:
    """Return all readings of a word in lower case; comparatives and superlatives have no form.

    Two base forms of one part of speech, as for ``found``, are two readings.
    """
    readings = []
    for pos in POS:
        for base in lexicon.find_bases(word, pos):
            form: Form | None = "base" if word == base else None
            if pos in ("n", "v"):
                form = find_form(word, base, lexicon.list_irregular(base, pos), is_verb=pos == "v")
            readings.append(Reading(pos, base, form))
    return readings


def decide_reading(tokens: Sequence[Token], place: int, lexicon: Lexicon) -> Reading | None:
    """Return the reading of the word at a place, or None if it is not clear.

    The weight of a reading is the number of its uses in WordNet's tagged texts, times factors for the function words
    next to it. A reading is taken if it has nine tenths of the weight of all readings.
    """
    word = tokens[place].text
    readings = list_readings(word, lexicon)
    if not readings:
        return None
    before = tokens[place - 1].text.lower() if place else ""
    after = tokens[place + 1].text.lower() if place + 1 < len(tokens) else "."
    weights = [_weigh(reading, before, after, lexicon) for reading in readings]
    best = max(range(len(readings)), key=lambda index: weights[index])
    if weights[best] < MIN_SHARE * sum(weights) or readings[best].form is None:
        return None
    can_be_noun = any(reading.pos == "n" for reading in readings)
    can_be_verb = any(reading.pos == "v" for reading in readings)
    return None if _is_doubtful(readings[best], before, after, can_be_noun, can_be_verb) else readings[best]


def _is_doubtful(reading: Reading, before: str, after: str, can_be_noun: bool, can_be_verb: bool) -> bool:
    """Return whether only frequency supports a reading of a word that is often both noun and verb."""
    if reading.pos == "v" and reading.form in ("base", "s"):
        return can_be_noun and before not in _MODALS | _SUBJECTS | {"to", "not"}
    if reading.pos == "v" and reading.form == "ing":  # `the starting line`, `its meeting`
        return before in _DETERMINERS or before.endswith(("'s", "'", "\u2019s", "\u2019"))
    if reading.pos == "n":
        opens_object = after in PREPOSITIONS | _DETERMINERS | {"to"}
        return can_be_verb and opens_object and before not in _DETERMINERS | PREPOSITIONS
    return False


def _weigh(reading: Reading, before: str, after: str, lexicon: Lexicon) -> float:
    weight = lexicon.count_uses(reading.base, reading.pos) + _SMOOTHING
    for table, word in ((_BEFORE, before), (_AFTER, after)):
        for words, factors in table:
            if word in words:
                weight *= factors[reading.pos]
                break
    if reading.pos == "v":
        needs_base, takes_finite = before in _ONLY_BASE_AFTER, before not in _NO_BASE_AFTER
        is_finite = reading.form in ("base", "s")
        if (needs_base and reading.form != "base") or (is_finite and not takes_finite):
            weight *= 0.02
        elif reading.form in ("past", "ing") and before in _DETERMINERS | PREPOSITIONS | _BE | _HAVE:
            weight *= 8  # participles appear where a finite verb cannot
    if reading.pos == "n" and reading.form == "plural" and before in ("a", "an", "this", "every", "each", "another"):
        weight *= 0.05
    return weight
