"""Words that are replaced, words that are left alone, and that a row depends on nothing but itself and the seed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from submillion.errors import DataError
from submillion.wordnet import parts_of_speech, tagger
from submillion.wordnet.lexicon import Lexicon, Pos
from submillion.wordnet.parts_of_speech import Reading, decide_reading, split_text
from submillion.wordnet.stop_words import MISLEADING_WORDS, STOP_WORDS
from submillion.wordnet.synonyms import Option, SynonymFinder, open_random, replace_words, vary_text


def find(finder: SynonymFinder, text: str) -> dict[str, set[str]]:
    """Return the words that can be replaced, with what."""
    tokens = split_text(text)
    return {tokens[option.place].text: set(option.words) for option in finder.find_options(text, tokens)}


def test_synonyms_keep_the_form_of_the_word(finder: SynonymFinder) -> None:
    assert find(finder, "The movies of the nation were purchased by shareholders.") == {
        "movies": {"films"},
        "nation": {"country"},
        "purchased": {"bought"},
        "shareholders": {"stockholders"},
    }
    assert find(finder, "they were buying automobiles quickly.") == {
        "buying": {"purchasing"},
        "automobiles": {"cars"},
        "quickly": {"rapidly", "speedily"},
    }


@pytest.mark.parametrize(
    "text",
    [
        "Shareholder Nation Movies",  # names
        "NATION SHAREHOLDERS",
        "in the new one of them, three times",  # stop words and numbers
        "nation-wide shareholder's co/nation nation.com #nation nation2 a_nation",  # parts of something longer
        "the prime minister of the United Nations",  # entries of several words
        "the rival Acme",  # what a name is called
        "they bought into it",  # a verb whose preposition need not fit another
    ],
)
def test_what_is_left_alone(finder: SynonymFinder, text: str) -> None:
    assert find(finder, text) == {}


def test_entries_of_several_words_stay_together(finder: SynonymFinder) -> None:
    assert find(finder, "the big agency of it") == {"big": {"large"}, "agency": {"bureau"}}
    assert find(finder, "the big advertising agency of it") == {"big": {"large"}}
    assert find(finder, "the big advertising agencies of it") == {"big": {"large"}}


def test_rare_synonyms_and_those_of_other_sentences_are_not_used(finder: SynonymFinder) -> None:
    assert find(finder, "the courts of it") == {}  # tribunal
    assert find(finder, "they will teach him") == {}  # instruct: not of subjects
    assert find(finder, "they will help him") == {}
    assert find(finder, "they will aid him") == {"aid": {"help", "assist"}}  # which have all of its frames


def test_no_synonym_is_a_stop_word_or_a_variant(finder: SynonymFinder, lexicon: Lexicon) -> None:
    words = ("vote", "smile", "photo", "help", "begin", "city", "car", "war", "government")
    parts: tuple[Pos, ...] = ("n", "v")
    found = {other for word in words for pos in parts for other, _ in finder._find_synonyms(Reading(pos, word, "base"))}
    assert found.isdisjoint(STOP_WORDS | MISLEADING_WORDS)
    assert found.isdisjoint({"voting", "smiling", "photograph", "authorities", "metropolis"})
    assert "automobile" in found
    assert "motorcar" not in found


def read(lexicon: Lexicon, text: str, word: str) -> tuple[str, str, str | None] | None:
    tokens = split_text(text)
    place = [token.text for token in tokens].index(word)
    reading = decide_reading(tokens, place, lexicon)
    return None if reading is None else (reading.pos, reading.base, reading.form)


def test_parts_of_speech_follow_from_frequency_and_neighbours(lexicon: Lexicon) -> None:
    assert read(lexicon, "they will help the nation", "help") == ("v", "help", "base")
    assert read(lexicon, "with the help of the nation", "help") == ("n", "help", "base")
    assert read(lexicon, "a country of plans", "plans") == ("n", "plan", "plural")
    assert read(lexicon, "it plans the sale", "plans") == ("v", "plan", "s")
    # Either would do, so neither is taken.
    assert read(lexicon, "Acme plans profit", "plans") is None
    assert read(lexicon, "a strong start The", "start") is None
    assert read(lexicon, "they will start The", "start") == ("v", "start", "base")
    assert read(lexicon, "the Yanks' starting lineup", "starting") is None
    assert read(lexicon, "they are starting it", "starting") == ("v", "start", "ing")
    assert read(lexicon, "the xyzzy of it", "xyzzy") is None
    # Larger has no separate entry, so its form is unknown.
    assert read(lexicon, "the larger nation", "larger") is None


def test_a_reading_needs_its_share(lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(lexicon, "a study of it", "study") == ("n", "study", "base")
    monkeypatch.setattr(parts_of_speech, "MIN_SHARE", 0.9999)
    assert read(lexicon, "a study of it", "study") is None


def test_places_articles_and_everything_else_stay() -> None:
    text = "An  effort\u2014a car, a \u201cbig\u201d effort."
    tokens = split_text(text)
    words = [token.text for token in tokens]
    first, second = (place for place, word in enumerate(words) if word == "effort")
    options = [
        Option(first, ("try",), (1,)),
        Option(words.index("car"), ("auto",), (1,)),
        Option(second, ("try",), (1,)),
    ]
    changed = replace_words(text, tokens, options, 1.0, Random(0))
    assert changed.text == "A  try\u2014an auto, a \u201cbig\u201d try."
    assert changed.words == (("effort", "try"), ("car", "auto"), ("effort", "try"))


def test_rate_is_the_chance_of_each_word_and_one_always_goes() -> None:
    text = " ".join("word" for _ in range(4000))
    tokens = split_text(text)
    options = [Option(place, ("term",), (1,)) for place in range(4000)]
    for rate in (0.1, 0.5, 1.0):
        share = len(replace_words(text, tokens, options, rate, Random(1)).words) / 4000
        assert share == pytest.approx(rate, abs=0.03)
    assert len(replace_words(text, tokens, options, 1e-9, Random(1)).words) == 1


def test_frequent_synonyms_come_more_often() -> None:
    tokens = split_text("word")
    options = [Option(0, ("often", "rarely"), (90, 10))]
    words = [replace_words("word", tokens, options, 1.0, open_random(0, str(n))).text for n in range(1000)]
    assert 850 < words.count("often") < 950


def test_copies_differ_and_repeat_with_the_seed(finder: SynonymFinder) -> None:
    text = "The movies of the nation were quickly purchased by shareholders."

    def vary(seed: int, copies: int, record_id: str = "7") -> list[str]:
        found = vary_text(text, finder, copies=copies, rate=0.5, random=open_random(seed, record_id))
        return [changed.text for changed in found]

    five = vary(0, 5)
    assert len(set(five)) == 5
    assert text not in five
    assert vary(0, 5) == five
    assert vary(0, 2) == five[:2]
    assert vary(1, 5) != five
    assert vary(0, 5, "8") != five
    one = vary_text("The nation is here.", finder, copies=9, rate=0.5, random=open_random(0, "1"))
    assert [changed.text for changed in one] == ["The country is here."]
    assert vary_text("Nothing in here for them.", finder, copies=2, rate=0.5, random=open_random(0, "1")) == []


def test_the_trained_tagger_decides_where_it_is_chosen(lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"plans": "VBZ", "movies": "NNS", "Acme": "NNP", "buys": "NNS"}
    calls: list[list[str]] = []

    class Tagger:
        def tag(self, words: list[str]) -> list[tuple[str, str]]:
            calls.append(words)
            return [(word, tags.get(word, "XX")) for word in words]

    monkeypatch.setattr("nltk.tag.perceptron.PerceptronTagger", Tagger)
    decide = tagger.open_tagger(lexicon)
    tokens = split_text("Acme plans movies, buys what")
    found: list[Any] = [decide(tokens, place) for place in range(len(tokens))]
    assert found[1:3] == [Reading("v", "plan", "s"), Reading("n", "movie", "plural")]
    assert found[0] is None
    assert found[4] == Reading("n", "buy", "plural")
    assert calls == [["Acme", "plans", "movies", ",", "buys", "what"]]
    decide(split_text("Acme"), 0)
    assert len(calls) == 2


def test_a_tagger_without_data_is_told(lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    with pytest.raises(DataError, match="tagger has no data") as caught:
        tagger.open_tagger(lexicon)
    assert "averaged_perceptron_tagger_eng" in caught.value.hint
