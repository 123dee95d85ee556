from __future__ import annotations

import numpy as np
import pytest

from submillion.errors import DataError
from submillion.metrics.baseline import train_baseline

WORDS = {0: "minister treaty border embassy", 1: "goal match coach season", 2: "shares profit market bank"}


def write_rows(count: int, *, seed: int, classes: tuple[int, ...] = (0, 1, 2)) -> tuple[list[str], list[int]]:
    random = np.random.default_rng(seed)
    labels = [classes[number % len(classes)] for number in range(count)]
    texts = [" ".join(random.choice(WORDS[label].split(), 3)) + f" filler{random.integers(9)}" for label in labels]
    return texts, labels


def test_baseline_learns_words_and_repeats_itself() -> None:
    texts, labels = write_rows(120, seed=0)
    baseline = train_baseline(texts, labels, seed=0)
    other_texts, other_labels = write_rows(60, seed=1)
    predicted = baseline.predict(other_texts)
    assert predicted.dtype == np.int64
    assert predicted.tolist() == other_labels
    again = train_baseline(texts, labels, seed=0)
    assert np.array_equal(baseline.score(other_texts), again.score(other_texts))
    assert baseline.num_features == again.num_features > 12


def test_bigrams_are_read() -> None:
    texts = ["profit warning", "warning profit"] * 20
    assert train_baseline(texts, [0, 1] * 20, seed=0).predict(["profit warning", "warning profit"]).tolist() == [0, 1]


def test_two_classes_have_two_scores() -> None:
    texts, labels = write_rows(40, seed=0, classes=(0, 1))
    baseline = train_baseline(texts, labels, seed=0)
    scores = baseline.score(texts)
    assert scores.shape == (40, 2)
    assert np.array_equal(scores.argmax(axis=1), labels)


def test_a_class_without_training_rows_is_never_predicted() -> None:
    texts, labels = write_rows(60, seed=0, classes=(0, 2))
    baseline = train_baseline(texts, labels, seed=0, num_labels=4)
    scores = baseline.score([*texts, "goal match coach", ""])
    assert scores.shape == (62, 4)
    assert np.isfinite(scores).all()
    assert set(scores.argmax(axis=1)) <= {0, 2}


def test_no_texts_have_no_predictions() -> None:
    texts, labels = write_rows(30, seed=0)
    assert train_baseline(texts, labels, seed=0).predict([]).shape == (0,)


def test_unusable_rows_end_in_clear_errors() -> None:
    with pytest.raises(DataError, match="at least two classes, found \\[1\\]"):
        train_baseline(["one text", "another text"], [1, 1], seed=0)
    with pytest.raises(DataError, match="hold no words"):
        train_baseline(["", "!"], [0, 1], seed=0)
    with pytest.raises(DataError, match="2 texts but 1 labels"):
        train_baseline(["a word", "a word"], [0], seed=0)
