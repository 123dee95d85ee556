"""The nouns that all rooms share: records, label sets, splits, predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from submillion.errors import DataError


@dataclass(frozen=True, slots=True)
class Record:
    """One row of text.

    Attributes:
        id: Id of the row, or its 0-based row number in the file as a string; unique within a split.
        columns: Text columns in reading order, empty ones included.
        label: Label id in ``0..C-1``; None if the row has no label.
        source: Place of the row, as ``file:line`` with 1-based physical lines (rows for binary formats).
    """

    id: str
    columns: tuple[str, ...]
    label: int | None = None
    source: str = ""

    @property
    def text(self) -> str:
        """The text that the model reads: the non-empty columns joined by one space."""
        return " ".join(filter(None, self.columns))


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Class names in the order of their label ids.

    Attributes:
        names: Names of the classes; a name's position is its label id.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse fewer than two classes and repeated names."""
        if len(self.names) < 2:
            raise DataError(
                f"found {len(self.names)} class(es): {list(self.names)!r}",
                hint="A classifier needs at least two classes; check the label column.",
            )
        if len(set(self.names)) != len(self.names):
            raise DataError(f"class names repeat: {list(self.names)!r}", hint="Give every class a different name.")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def decode(self, record_id: str, probabilities: NDArray[np.floating], *, has_text: bool = True) -> Prediction:
        """Turn one row of probabilities into a prediction.

        Args:
            record_id: Id of the record.
            probabilities: Probability of each class, shape (C,), with a sum of one.
            has_text: Whether the record holds any text.
        """
        label_id = int(np.argmax(probabilities))
        return Prediction(
            id=record_id,
            label_id=label_id,
            label=self.names[label_id],
            probabilities=tuple(float(p) for p in probabilities),
            has_text=has_text,
        )


@dataclass(frozen=True, slots=True)
class Splits:
    """The three disjoint parts of a labelled data set, and their classes."""

    train: Sequence[Record]
    validation: Sequence[Record]
    test: Sequence[Record]
    labels: LabelSet


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer for one record.

    Attributes:
        id: Id of the record.
        label_id: Most probable class, ``0..C-1``.
        label: Name of that class.
        probabilities: Probability of each class, in label order.
        has_text: Whether the record holds any text after cleaning; without text, the label means nothing.
    """

    id: str
    label_id: int
    label: str
    probabilities: tuple[float, ...]
    has_text: bool = True


def labels_of(records: Sequence[Record]) -> NDArray[np.int64]:
    """Return the label ids of labelled records, shape (n,)."""
    return np.array([record.label for record in records], dtype=np.int64)


def hash_records(records: Sequence[Record]) -> str:
    """Return a SHA-256 of cleaned texts and labels, by which the run recognises its test rows."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.label}\x00{record.text}\x00".encode())
    return digest.hexdigest()
