"""Words replaced by WordNet synonyms: the method of `submillion augment synonyms`, on texts and on whole data sets.

Synonym replacement as augmentation is from X. Zhang, J. Zhao and Y. LeCun, "Character-level convolutional networks for
text classification" (2015), section 3.2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from submillion.wordnet.inflect import inflect, takes_an
from submillion.wordnet.lexicon import Lexicon, Sense
from submillion.wordnet.parts_of_speech import PREPOSITIONS, Reading, Token, decide_reading, split_text
from submillion.wordnet.stop_words import MISLEADING_WORDS, STOP_WORDS

MIN_SENSE_SHARE, MIN_SYNONYM_SHARE = 0.5, 0.4
"""Smallest share of a word's uses that its most frequent sense must have, so that the sense is clear. A synonym must
have the same most frequent sense with the same share."""

MIN_RELATIVE_USES = 0.04
"""Least uses of a synonym for one use of the word in that sense; rarer ones are odd (``metropolis`` for ``city``)."""

_BINDING = (PREPOSITIONS | {"to"}) - {"by"}
_KEPT = STOP_WORDS | MISLEADING_WORDS
_SAME_START = 4
_WORD = re.compile(r"[a-z]{3,}")
_ATTACHED = frozenset("-'\u2019/@_&#\\$%=+~^*|<>")
_PHRASE_WORDS = 3

FindReading = Callable[[Sequence[Token], int], Reading | None]


@dataclass(frozen=True, slots=True)
class Option:
    """A word that can be replaced.

    Attributes:
        place: Number of the word among the text's tokens.
        words: Possible replacements, in the same form.
        weights: Number of uses of each replacement in this sense in WordNet's texts, plus one.
    """

    place: int
    words: tuple[str, ...]
    weights: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """A text with words replaced.

    Attributes:
        text: New text.
        words: Pairs of old and new words, in order.
    """

    text: str
    words: tuple[tuple[str, str], ...]


class SynonymFinder:
    """Finds the replaceable words of a text.

    Args:
        lexicon: Source of the synonyms.
        find_reading: Function that decides the reading of a token; by frequency and context if absent.
    """

    def __init__(self, lexicon: Lexicon, find_reading: FindReading | None = None) -> None:
        self._lexicon = lexicon
        self._find_reading = find_reading or (lambda tokens, place: decide_reading(tokens, place, lexicon))
        self._synonyms: dict[tuple[str, str], tuple[tuple[str, int], ...]] = {}

    def find_options(self, text: str, tokens: Sequence[Token]) -> list[Option]:
        """Return the replaceable words of a text with their synonyms.

        Stop words, numbers, words with a capital letter, parts of longer words, parts of entries of several words
        (``prime minister``), and words whose part of speech or sense is not clear are not replaceable.
        """
        options = []
        for place, token in enumerate(tokens):
            if not _WORD.fullmatch(token.text) or token.text in _KEPT or _is_attached(text, token):
                continue
            if self._is_in_phrase(tokens, place):
                continue
            reading = self._find_reading(tokens, place)
            if reading is None or reading.form is None or reading.base in _KEPT:
                continue
            if not _is_free(reading, tokens[place + 1].text if place + 1 < len(tokens) else "."):
                continue
            found = [
                (word, weight)
                for base, weight in self._find_synonyms(reading)
                if (word := inflect(base, reading.form, self._lexicon.list_irregular(base, reading.pos)))
                and word != token.text
            ]
            if found:
                options.append(Option(place, tuple(word for word, _ in found), tuple(weight for _, weight in found)))
        return options

    def _find_synonyms(self, reading: Reading) -> tuple[tuple[str, int], ...]:
        key = (reading.base, reading.pos)
        if key not in self._synonyms:
            self._synonyms[key] = tuple(self._choose_synonyms(reading))
        return self._synonyms[key]

    def _choose_synonyms(self, reading: Reading) -> list[tuple[str, int]]:
        """Return the synonyms of a word in its most frequent sense, if that is also theirs."""
        sense = find_main_sense(self._lexicon.list_senses(reading.base, reading.pos), MIN_SENSE_SHARE)
        if sense is None:
            return []
        chosen = []
        for word, uses in sense.synonyms:
            if not _is_fit(reading, word) or uses < MIN_RELATIVE_USES * sense.uses or uses == 0:
                continue
            other = find_main_sense(self._lexicon.list_senses(word, reading.pos), MIN_SYNONYM_SHARE)
            if other is not None and other.key == sense.key and sense.frames <= other.frames:
                chosen.append((word, uses))
        return chosen

    def _is_in_phrase(self, tokens: Sequence[Token], place: int) -> bool:
        for size in range(2, _PHRASE_WORDS + 1):
            for first in range(max(0, place - size + 1), place + 1):
                words = [token.text.lower() for token in tokens[first : first + size]]
                if len(words) == size and all(word.isalpha() for word in words) and self._is_phrase(words):
                    return True
        return False

    def _is_phrase(self, words: Sequence[str]) -> bool:
        *first, last = words
        heads = [words[0], *self._lexicon.find_bases(words[0], "v")]
        ends = [last, *self._lexicon.find_bases(last, "n")]
        phrases = {"_".join([*first, end]) for end in ends} | {"_".join([head, *words[1:]]) for head in heads}
        return not phrases.isdisjoint(self._lexicon.phrases)


def _is_free(reading: Reading, after: str) -> bool:
    """Return whether the next word allows a word to change.

    A verb's preposition need not fit its synonym (``agreed to``, ``concurred to``), and a noun before a name belongs to
    the name (``rival Acme``).
    """
    if reading.pos == "v":
        return after not in _BINDING
    return reading.pos != "n" or not after[:1].isupper()


def _is_fit(reading: Reading, word: str) -> bool:
    """Return whether a synonym is a different word of the same kind and no stop word."""
    if not _WORD.fullmatch(word) or word in _KEPT:
        return False
    if reading.pos == "n" and word.endswith(("s", "ing")):  # `authorities` for `government`, `leaving` for `departure`
        return False
    if word.startswith(reading.base.removesuffix("e")[:_SAME_START]):  # `voting` for `vote`
        return False
    return reading.pos != "r" or word.endswith("ly") == reading.base.endswith("ly")


def find_main_sense(senses: Sequence[Sense], min_share: float) -> Sense | None:
    """Return the most frequent sense if it has this share of the uses, or the only sense."""
    if not senses:
        return None
    best = max(senses, key=lambda sense: sense.uses)
    total = sum(sense.uses for sense in senses)
    if len(senses) > 1 and best.uses < min_share * (total + 1):
        return None
    return best


def _is_attached(text: str, token: Token) -> bool:
    """Return whether a token is part of something longer, such as ``long-term`` or ``example.com``."""
    before, after = text[max(0, token.start - 1) : token.start], text[token.end : token.end + 2]
    if (before in _ATTACHED and before) or (after[:1] in _ATTACHED and after):
        return True
    return before == "." or (after[:1] == "." and after[1:].isalnum()) or before.isalnum() or after[:1].isalnum()


def replace_words(
    text: str, tokens: Sequence[Token], options: Sequence[Option], rate: float, random: Random
) -> Changed:
    """Replace a share of the replaceable words, at least one.

    An ``a`` or ``an`` before a replaced word is adapted to it.

    Args:
        text: Text to change.
        tokens: Tokens from `split_text`.
        options: Replaceable words; not empty.
        rate: Chance that each is replaced, above 0 and at most 1.
        random: Source of random draws.
    """
    chosen = [option for option in options if random.random() < rate] or [random.choice(options)]
    changes: dict[int, str] = {}
    words = []
    for option in chosen:
        old = tokens[option.place].text
        new = random.choices(option.words, option.weights)[0]
        changes[option.place] = new
        words.append((old, new))
        article = option.place - 1
        if article >= 0 and tokens[article].text.lower() in ("a", "an"):
            spelled = tokens[article].text
            fits = (spelled.lower() == "an") == takes_an(old)
            if fits and takes_an(new) != takes_an(old):
                changes[article] = f"{spelled[0]}n" if takes_an(new) else spelled[0]
    parts, end = [], 0
    for place in sorted(changes):
        parts += [text[end : tokens[place].start], changes[place]]
        end = tokens[place].end
    return Changed("".join([*parts, text[end:]]), tuple(words))


def open_random(seed: int, record_id: str) -> Random:
    """Return a random source for one record that does not depend on its place among others."""
    return Random(hashlib.blake2b(f"{seed}:{record_id}".encode(errors="surrogatepass"), digest_size=16).digest())


def vary_text(text: str, finder: SynonymFinder, *, copies: int, rate: float, random: Random) -> list[Changed]:
    """Return up to `copies` different texts with words replaced; none if no word can be."""
    tokens = split_text(text)
    options = finder.find_options(text, tokens)
    found: dict[str, Changed] = {}
    if not options:
        return []
    for _ in range(_ATTEMPTS_A_COPY * copies):
        changed = replace_words(text, tokens, options, rate, random)
        found.setdefault(changed.text, changed)
        if len(found) == copies:
            break
    return list(found.values())


_ATTEMPTS_A_COPY = 4
"""Draws for each copy: short texts have few variants, so a draw may repeat an earlier one."""
