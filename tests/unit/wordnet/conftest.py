from __future__ import annotations

import pytest

from submillion.wordnet.lexicon import Lexicon, load_lexicon
from submillion.wordnet.synonyms import SynonymFinder


@pytest.fixture(scope="session")
def lexicon() -> Lexicon:
    """The real WordNet; `make lexicon` puts it where it is found."""
    return load_lexicon()


@pytest.fixture(scope="session")
def finder(lexicon: Lexicon) -> SynonymFinder:
    return SynonymFinder(lexicon)
