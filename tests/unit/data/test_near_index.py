"""The index gives the doctor's answers one text at a time."""

from __future__ import annotations

import random

import numpy as np

from submillion.data.near import find_near_links, normalise_text
from submillion.data.near_index import NearIndex

WORDS = ("rain", "bank", "goal", "chip", "vote", "ship", "star", "mine", "road", "team", "law", "oil")


def make_texts(count: int, seed: int) -> list[str]:
    """Return texts, many of which differ from another in a word or two."""
    draw = random.Random(seed)
    texts: list[str] = []
    while len(texts) < count:
        words = [draw.choice(WORDS) for _ in range(draw.randint(1, 60))]
        texts.append(" ".join(words))
        for _ in range(draw.randint(0, 3)):
            changed = words.copy()
            changed[draw.randrange(len(changed))] = draw.choice(WORDS)
            texts.append(" ".join(changed))
    texts = list(dict.fromkeys(texts))[:count]
    draw.shuffle(texts)
    return texts


def test_it_finds_what_the_doctor_finds() -> None:
    texts = make_texts(600, seed=5)
    known, new = texts[:400], texts[400:]
    is_in = np.array([[n < 400, n >= 400] for n in range(len(texts))])
    links = find_near_links(texts, is_in).tolist()
    expected = {right for left, right in links if left < 400 <= right}
    index = NearIndex(known)
    found = {400 + n for n, text in enumerate(new) if index.find(text) is not None}
    assert 20 < len(expected) < 180
    assert found == expected


def test_added_texts_count_as_those_of_the_start() -> None:
    texts = make_texts(300, seed=6)
    whole, grown = NearIndex(texts[:200]), NearIndex(texts[:50])
    assert [grown.add(text) for text in texts[50:200]] == list(range(50, 200))
    answers = [whole.find(text) for text in texts[200:]]
    assert [grown.find(text) for text in texts[200:]] == answers
    assert 5 < sum(answer is not None for answer in answers) < 95
    assert len(grown) == len(whole) == 200


def test_near_is_a_jaccard_similarity_of_four_fifths_exactly() -> None:
    # 9 shingles each, of which 8 are common: 8 / 10 = 0.8.
    index = NearIndex(["a b c d e f g h i j k"])
    assert index.find("a b c d e f g h i j x") == 0
    # 8 shingles, 7 common: 7 / 9.
    assert NearIndex(["a b c d e f g h i j"]).find("a b c d e f g h i x") is None


def test_equal_is_equal_after_normalisation_also_of_short_texts() -> None:
    index = NearIndex(["Rain, stops play!", "Rain stops"])
    assert index.find("RAIN stops: play") == 0
    assert index.find("rain STOPS.") == 1
    assert index.find("rain") is None
    assert NearIndex().find("rain") is None


def test_the_first_of_several_near_texts_is_named() -> None:
    text = normalise_text("one two three four five six seven eight nine ten eleven twelve")
    index = NearIndex(["far away from all of this", f"{text} thirteen", text])
    assert index.find(f"{text} fourteen") == 1
