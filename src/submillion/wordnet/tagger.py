"""Parts of speech from nltk's trained tagger, for those who have its data. One of the two importers of nltk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from submillion.errors import ConfigError, DataError
from submillion.wordnet.lexicon import Lexicon, Pos
from submillion.wordnet.parts_of_speech import Reading, Token, list_readings
from submillion.wordnet.synonyms import FindReading

# What the Penn Treebank's tags say of part of speech and form; all others, names among them, are left alone.
_TAGS: dict[str, tuple[Pos, tuple[str, ...]]] = {
    "NN": ("n", ("base",)),
    "NNS": ("n", ("plural",)),
    "VB": ("v", ("base",)),
    "VBP": ("v", ("base",)),
    "VBZ": ("v", ("s",)),
    "VBD": ("v", ("past",)),
    "VBN": ("v", ("past",)),
    "VBG": ("v", ("ing",)),
    "JJ": ("a", ("base",)),
    "RB": ("r", ("base",)),
}


def open_tagger(lexicon: Lexicon) -> FindReading:
    """Return what decides the readings of tokens by nltk's averaged perceptron tagger, which reads JSON, no pickles.

    Raises:
        ConfigError: nltk is not installed.
        DataError: Its data is not there.
    """
    try:
        from nltk.tag.perceptron import PerceptronTagger
    except ImportError:
        raise ConfigError(
            "the package nltk is not installed", where="augment", hint='Install it: pip install "submillion[augment]"'
        ) from None
    try:
        tagger = PerceptronTagger()
    except LookupError:
        raise DataError(
            "nltk's tagger has no data on this machine",
            where="--tagger nltk",
            hint="Fetch it with `python -m nltk.downloader averaged_perceptron_tagger_eng`, or take --tagger context.",
        ) from None
    return _Tagged(tagger, lexicon)


class _Tagged:
    """Remembers the tags of the text at hand: a reading is asked for once a word, tags come once a text."""

    def __init__(self, tagger: Any, lexicon: Lexicon) -> None:
        self._tagger = tagger
        self._lexicon = lexicon
        self._tokens: Sequence[Token] = ()
        self._tags: list[str] = []

    def __call__(self, tokens: Sequence[Token], place: int) -> Reading | None:
        if tokens is not self._tokens:
            self._tokens = tokens
            self._tags = [tag for _, tag in self._tagger.tag([token.text for token in tokens])]
        pos, forms = _TAGS.get(self._tags[place], (None, ()))
        readings = list_readings(tokens[place].text, self._lexicon)
        fitting = [reading for reading in readings if reading.pos == pos and reading.form in forms]
        return fitting[0] if len(fitting) == 1 else None
