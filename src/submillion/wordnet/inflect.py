"""English inflection: from a word's form to the same form of another word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Form = Literal["base", "plural", "s", "past", "ing"]
"""The forms are ``base``, a noun's ``plural``, and a verb's ``s``, ``past`` (also an equal participle) and ``ing``."""

_VOWELS = "aeiou"
_SIBILANTS = ("s", "x", "z", "ch", "sh")
# For these, base form and past form are equal, or WordNet's lists lack their irregular forms.
_UNCHANGED = {
    *("bet", "bid", "burst", "cast", "cost", "cut", "hit", "hurt", "let", "put", "quit", "read", "rid", "set", "shed"),
    *("shut", "split", "spread"),
}
# These have no plural, or one of another meaning.
_UNCOUNTABLE = {
    *("advice", "aid", "baggage", "cash", "clothing", "credit", "damage", "equipment", "evidence", "furniture", "help"),
    *("homework", "information", "jewelry", "knowledge", "luggage", "machinery", "mail", "merchandise", "money"),
    *("music", "police", "progress", "research", "software", "traffic", "transport", "violence", "weather", "work"),
}
# These begin with a vowel letter that sounds like a consonant, or the other way round.
_A_BEFORE = ("eu", "one", "once", "uni", "use", "usu", "ut", "ub")
_AN_BEFORE = ("heir", "honest", "hono", "hour")


def inflect(base: str, form: Form, irregular: Sequence[str]) -> str | None:
    """Return a form of a word; None if it has none, or more than one.

    Args:
        base: Base form, in lower case.
        form: Form to return.
        irregular: Irregular forms of the base form as the same part of speech.
    """
    if form == "base":
        return base
    if form == "plural":
        return _pluralise(base, irregular)
    if base in _UNCHANGED:
        return None
    if form == "s":
        return _add_s(base)
    ings = [word for word in irregular if word.endswith("ing")]
    if form == "ing":
        return _choose(ings, _add_ing(base))
    return _choose([word for word in irregular if word not in ings and word != _add_s(base)], _add_ed(base))


def find_form(word: str, base: str, irregular: Sequence[str], *, is_verb: bool) -> Form | None:
    """Return the form of a base form that a word is; None if that is not clear."""
    if word == base:
        return None if is_verb and base in _UNCHANGED else "base"
    forms: tuple[Form, ...] = ("s", "past", "ing") if is_verb else ("plural",)
    for form in forms:
        if inflect(base, form, irregular) == word:
            return form
    # Both irregular forms, such as `took` and `taken`, count as past.
    is_past = is_verb and word in irregular and not word.endswith("ing") and word != _add_s(base)
    return "past" if is_past else None


def takes_an(word: str) -> bool:
    """Return whether a word takes ``an``, as far as its letters show."""
    lower = word.lower()
    if lower.startswith(_AN_BEFORE):
        return True
    return lower[0] in _VOWELS and not lower.startswith(_A_BEFORE)


def _choose(irregular: Sequence[str], regular: str) -> str | None:
    if not irregular:
        return regular
    return irregular[0] if len(set(irregular)) == 1 else None


def _pluralise(base: str, irregular: Sequence[str]) -> str | None:
    if irregular:
        return _choose(irregular, "")
    # Words in -o can take -s or -es, and those in -ing and -ness mostly have no plural.
    if base in _UNCOUNTABLE or base.endswith(("s", "ing", "man")) or _ends_in_consonant(base, "o"):
        return None
    return _add_s(base)


def _add_s(base: str) -> str:
    if base.endswith(_SIBILANTS) or _ends_in_consonant(base, "o"):
        return f"{base}es"
    return f"{base[:-1]}ies" if _ends_in_consonant(base, "y") else f"{base}s"


def _add_ed(base: str) -> str:
    if base.endswith("e"):
        return f"{base}d"
    return f"{base[:-1]}ied" if _ends_in_consonant(base, "y") else f"{base}ed"


def _add_ing(base: str) -> str:
    if base.endswith("ie"):
        return f"{base[:-2]}ying"
    return f"{base[:-1]}ing" if base.endswith("e") and not base.endswith(("ee", "ye", "oe")) else f"{base}ing"


def _ends_in_consonant(base: str, last: str) -> bool:
    """Return whether a word ends in a consonant and this letter."""
    return base.endswith(last) and base[-2:-1] not in _VOWELS
