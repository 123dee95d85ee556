"""The screen for drafts: a row is not empty, not garbage, of a fitting length, new, and of the prompted class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from submillion.config.generate import ScreenSettings
from submillion.data.near import normalise_text
from submillion.data.near_index import NearIndex
from submillion.errors import RunError

Reason = Literal["empty", "garbage", "too_short", "too_long", "near_real", "near_earlier", "disagreed", "not_needed"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Reasons to drop a draft, in the order of the checks; the first that applies counts.

``near_real`` means equal or near to a row of the data, a test file or the target, and ``near_earlier`` to a generated
row that was kept before. ``disagreed`` means that the classifier gives the prompted class too little probability, and
``not_needed`` that the class of a good row already has all its rows.
"""

Score = Callable[[Sequence[str]], NDArray[np.floating]]
"""Function from texts to probabilities, shape (n, C)."""


@dataclass(frozen=True)
class Draft:
    """A text that may become a row.

    Attributes:
        text: Cleaned text.
        label: Id of the prompted class.
    """

    text: str
    label: int


@dataclass(frozen=True)
class Verdict:
    """The decision on a draft.

    Attributes:
        reason: Reason to drop it; None if it is kept.
        probability: Probability that the classifier gives the prompted class; None if it was not asked.
        near: Place of the row that it is near to.
    """

    reason: Reason | None
    probability: float | None = None
    near: str | None = None


def name_defect(text: str, settings: ScreenSettings) -> Reason | None:
    """Return the defect of a text by itself, or None.

    Garbage has a broken character, or fewer letters than half of its characters. In a text of eight words or more, it
    is also garbage if one longer word makes up a third of the words, or fewer than a third of them differ.
    """
    if not text.strip():
        return "empty"
    words = normalise_text(text).split()
    letters = sum(character.isalpha() for character in text)
    if "\N{REPLACEMENT CHARACTER}" in text or 2 * letters < len(text.replace(" ", "")):
        return "garbage"
    if len(words) >= 8:
        counts = Counter(word for word in words if len(word) > 3)
        commonest = max(counts.values(), default=0)
        if 3 * commonest >= len(words) or 3 * len(set(words)) < len(words):
            return "garbage"
    count = len(text.split())
    if count < settings.min_words:
        return "too_short"
    return "too_long" if count > settings.max_words else None


class Screen:
    """Judges drafts in their order, and remembers the rows that were kept.

    Args:
        settings: Limits of the screen.
        texts: Texts of the real rows.
        places: Place of each real row.
        needed: Number of rows to keep of each class.
        score: Classifier; None for no classifier.
    """

    def __init__(
        self,
        settings: ScreenSettings,
        texts: Sequence[str],
        places: Sequence[str],
        needed: Sequence[int],
        score: Score | None,
    ) -> None:
        self._settings, self._places, self._score = settings, places, score
        self._real = NearIndex(texts)
        self._kept = NearIndex()
        self.needed = list(needed)

    def judge(self, drafts: Sequence[Draft]) -> list[Verdict]:
        """Decide on some drafts; later drafts are compared with those that are kept.

        Raises:
            RunError: The classifier returns values that are not probabilities.
        """
        first = [self._judge_alone(draft) for draft in drafts]
        asked = [number for number, verdict in enumerate(first) if verdict.reason is None]
        probabilities = self._ask([drafts[number] for number in asked])
        verdicts = list(first)
        for number, probability in zip(asked, probabilities, strict=True):
            verdicts[number] = self._judge_last(drafts[number], probability)
        return verdicts

    def remember(self, draft: Draft) -> None:
        """Count a row as kept that an earlier process judged."""
        self._kept.add(draft.text)
        self.needed[draft.label] -= 1

    def _judge_alone(self, draft: Draft) -> Verdict:
        reason = name_defect(draft.text, self._settings)
        if reason is not None:
            return Verdict(reason)
        real = self._real.find(draft.text)
        if real is not None:
            return Verdict("near_real", near=self._places[real])
        return Verdict("near_earlier" if self._kept.find(draft.text) is not None else None)

    def _ask(self, drafts: Sequence[Draft]) -> list[float | None]:
        if self._score is None or not drafts:
            return [None] * len(drafts)
        scores = self._score([draft.text for draft in drafts])
        labels = [draft.label for draft in drafts]
        chosen = scores[np.arange(len(drafts)), labels].astype(float)
        if not np.isfinite(chosen).all():
            raise RunError("the classifier gives probabilities that are not finite", where="--classifier")
        return [float(value) for value in chosen]

    def _judge_last(self, draft: Draft, probability: float | None) -> Verdict:
        if probability is not None and probability < self._settings.min_probability:
            return Verdict("disagreed", probability)
        # Drafts of one batch can be near to each other too.
        if self._kept.find(draft.text) is not None:
            return Verdict("near_earlier", probability)
        if self.needed[draft.label] <= 0:
            return Verdict("not_needed", probability)
        self.remember(draft)
        return Verdict(None, probability)
