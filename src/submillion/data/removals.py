"""Training rows that are left out, and the check that every class keeps some."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from submillion.config.run import DataConfig
from submillion.errors import DataError
from submillion.records import LabelSet, Record

SHOWN_CLASSES = 10
"""Most classes that a message names; it counts the others."""


def refuse_unlabelled(splits: Mapping[str, Sequence[Record]], source: str) -> None:
    """Refuse rows without a label.

    Raises:
        DataError: There are such rows; the error has the first ones and the count of all.
    """
    for name, rows in splits.items():
        missing = [record.source for record in rows if record.label is None]
        if missing:
            raise DataError(
                f"{len(missing)} rows of {name} have no label: {', '.join(missing[:5])}",
                where=source,
                hint="Label them, or leave the file out; `submillion predict` is for unlabelled rows.",
            )


def filter_by_words(train: list[Record], data: DataConfig) -> tuple[list[Record], int, int]:
    """Return the training rows within the wanted range of words, and the numbers of too short and too long rows.

    Raises:
        DataError: No row is left.
    """
    if data.min_words is None and data.max_words is None:
        return train, 0, 0
    least, most = data.min_words or 0, data.max_words or sys.maxsize
    counts = [len(record.text.split()) for record in train]
    kept = [record for record, count in zip(train, counts, strict=True) if least <= count <= most]
    if not kept:
        raise DataError(
            f"none of {len(train):,} training rows has {_name_range(data)} words",
            where=str(data.source),
            hint=f"They have {min(counts)} to {max(counts)}; change data.min_words or data.max_words.",
        )
    num_short = sum(count < least for count in counts)
    return kept, num_short, len(train) - len(kept) - num_short


def _name_range(data: DataConfig) -> str:
    if data.max_words is None:
        return f"{data.min_words} or more"
    return f"{data.min_words or 0} to {data.max_words}"


def choose_dropped(leaking: set[str], train: Sequence[Record], data: DataConfig, labels: LabelSet) -> set[str]:
    """Return the ids of the training rows that are left out because they appear in validation or test.

    Raises:
        DataError: `data.leaks` refuses such rows, no row would be left, or a class would lose more of its rows than
            `data.max_class_loss` allows.
    """
    if leaking and data.leaks == "refuse":
        raise DataError(
            f"{len(leaking)} training rows appear in validation or test",
            where=str(data.source),
            hint="`submillion check` lists them; data.leaks=drop leaves them out of training.",
        )
    dropped = leaking if data.leaks == "drop" else set()
    if len(dropped) == len(train):
        raise DataError(
            f"all {len(dropped)} training rows appear in validation or test",
            where=str(data.source),
            hint="Give other training rows; `submillion check` lists the pairs.",
        )
    counts = count_classes(train)
    losses = count_classes(record for record in train if record.id in dropped)
    # A class of one row can only lose all of it or nothing.
    heavy = [
        f"{labels.names[label]!r} {losses[label]:,} of {counts[label]:,}"
        for label in sorted(losses)
        if losses[label] == counts[label] or losses[label] > data.max_class_loss * counts[label]
    ]
    if heavy:
        more = f" and {len(heavy) - SHOWN_CLASSES} more classes" if len(heavy) > SHOWN_CLASSES else ""
        raise DataError(
            f"too many training rows appear in validation or test, equal or nearly so: of class "
            f"{', '.join(heavy[:SHOWN_CLASSES])}{more}",
            where=str(data.source),
            hint="`submillion check` lists the pairs. Give other rows, or choose: data.leaks=keep trains on them, "
            "which makes the figures too good, and data.max_class_loss=1 drops all but the last rows of a class.",
        )
    return dropped


def count_classes(records: Iterable[Record]) -> Counter[int]:
    """Return the rows of each class."""
    return Counter([record.label for record in records if record.label is not None])


def describe_classes(counts: Mapping[int, int], labels: LabelSet) -> str:
    """Return counts by class as ``sport 8, food 4``, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(ordered) - SHOWN_CLASSES} more classes" if len(ordered) > SHOWN_CLASSES else ""
    return ", ".join(f"{labels.names[label]} {count:,}" for label, count in ordered[:SHOWN_CLASSES]) + more


def require_classes(
    had: Mapping[int, int],
    train: Sequence[Record],
    losses: Mapping[str, Mapping[int, int]],
    data: DataConfig,
    labels: LabelSet,
) -> None:
    """Refuse to train if a class has lost all of its training rows.

    Args:
        had: Number of rows of each class before any were left out.
        train: Rows that are trained on.
        losses: Number of rows left out of each class, by the setting that left them out.
        data: Settings of the data.
        labels: Classes.

    Raises:
        DataError: A class has no rows left; the error has the classes, their counts and the settings.
    """
    has = count_classes(train)
    lost = [label for label, count in sorted(had.items()) if count and not has[label]]
    if not lost:
        return
    shown = []
    for label in lost[:SHOWN_CLASSES]:
        reasons = [f"{counts[label]:,} by {name}" for name, counts in losses.items() if counts.get(label)]
        shown.append(f"{labels.names[label]!r}, whose {had[label]:,} were left out ({', '.join(reasons)})")
    more = f"; and {len(lost) - SHOWN_CLASSES} more classes" if len(lost) > SHOWN_CLASSES else ""
    raise DataError(
        f"no training rows are left of class {'; '.join(shown)}{more}",
        where=str(data.source),
        hint="Change these settings, or give more rows of these classes.",
    )


def describe_count(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as ``1 row`` and ``1,200 rows``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
