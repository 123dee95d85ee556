"""The yardstick of every run: TF-IDF and a linear SVM on the same rows. Only this module imports scikit-learn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from submillion.errors import DataError


@dataclass(frozen=True)
class Baseline:
    """A trained baseline.

    Attributes:
        num_labels: Number of classes C.
        num_features: Size of the vocabulary of word 1-grams and 2-grams.
        train_s: Duration of the training in seconds.
    """

    num_labels: int
    num_features: int
    train_s: float
    _vectorizer: Any = field(repr=False)
    _classifier: Any = field(repr=False)

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return one score a class, shape (n, C); a larger score is more likely.

        Scores are SVM margins, which a fitted temperature turns into usable probabilities. A class without training
        rows gets the smallest score of the row minus one, so that it is never predicted.
        """
        if not texts:
            return np.empty((0, self.num_labels))
        margins = np.asarray(self._classifier.decision_function(self._vectorizer.transform(texts)), dtype=np.float64)
        if margins.ndim == 1:  # two classes have one margin, for the second
            margins = np.stack([-margins, margins], axis=1)
        scores = np.repeat(margins.min(axis=1, keepdims=True) - 1, self.num_labels, axis=1)
        scores[:, self._classifier.classes_] = margins
        return scores

    def predict(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the label id of the best class of every text, shape (n,), int64."""
        return np.asarray(self.score(texts).argmax(axis=1), dtype=np.int64)


def train_baseline(
    texts: Sequence[str],
    labels: Sequence[int] | NDArray[np.integer],
    *,
    seed: int,
    num_labels: int | None = None,
    weights: Sequence[float] | None = None,
) -> Baseline:
    """Train the baseline.

    It uses TF-IDF of lower-cased word 1-grams and 2-grams with sublinear term frequency, and scikit-learn's `LinearSVC`
    (one class against the rest, C=1). This is the strong plain baseline of S. Wang and C. D. Manning, "Baselines and
    bigrams: simple, good sentiment and topic classification", ACL 2012.

    Args:
        texts: Cleaned training texts.
        labels: Label ids of the texts, ``0..C-1``.
        seed: Seed for the solver's coordinate order.
        num_labels: Number of classes C; one more than the largest label if absent.
        weights: Weights of the texts in the SVM's loss, shape (n,); all 1 if absent. Term frequencies ignore them.

    Raises:
        DataError: There are fewer than two classes, the lengths differ, or the texts have no words.
    """
    started = time.perf_counter()
    ids = np.asarray(labels, dtype=np.int64)
    if len(texts) != len(ids):
        raise DataError(f"{len(texts)} texts but {len(ids)} labels")
    if len(np.unique(ids)) < 2:
        raise DataError(
            f"the baseline needs rows of at least two classes, found {np.unique(ids).tolist()}",
            hint="Check the label column of the training rows.",
        )
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float64)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError as error:  # scikit-learn raises this for texts without any word
        raise DataError(
            f"the training texts hold no words: {error}", hint="Check the text column, or set baseline: false."
        ) from None
    classifier = LinearSVC(random_state=seed).fit(features, ids, sample_weight=weights)
    return Baseline(
        num_labels=int(ids.max()) + 1 if num_labels is None else num_labels,
        num_features=features.shape[1],
        train_s=time.perf_counter() - started,
        _vectorizer=vectorizer,
        _classifier=classifier,
    )
