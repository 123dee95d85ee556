"""Parts of speech from nltk's trained tagger, for users who have its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from submillion.errors import ConfigError, DataError
from submillion.wordnet.lexicon import Lexicon, Pos
from submillion.wordnet.parts_of_speech import Reading, Token, list_readings
from submillion.wordnet.synonyms import FindReading

# These are the part of speech and the form of the Penn Treebank's tags. Words with other tags, such as names, stay.
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
    """Return a function that decides readings by nltk's averaged perceptron tagger, which reads JSON and no pickles.

    Raises:
        ConfigError: nltk is not installed.
        DataError: The tagger's data is missing.
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
            hint="Fetch it with `python -m nltk.downloader averaged_perceptron_tagger_eng`, or use --tagger context.",
        ) from None
    return _Tagged(tagger, lexicon)


class _Tagged:
    """Remembers the tags of the current text: readings are requested word by word, and tags come for a whole text."""

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
