"""The training, validation and test rows of a data set as a run has them: given, or split off by whole groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from submillion.config.run import DataConfig
from submillion.data.removals import SHOWN_CLASSES, count_classes, describe_count
from submillion.data.similar import SimilarTexts, group_rows, list_rows_found_in
from submillion.data.split import split_records
from submillion.data.trained_rows import NONE, Digests, find_rows
from submillion.errors import ConfigError, DataError
from submillion.records import LabelSet, Record

SPLIT_RULE = 2
"""Which rule splits rows: 2 keeps groups together; runs that do not say any were split row by row."""

_Rows = list[Record]


@dataclass(frozen=True)
class Parts:
    """The rows of a run, before any are left out of training.

    Attributes:
        train: Training rows.
        validation: Validation rows.
        test: Test rows; none where the data has none.
        how: How they came about, for people.
        origins: By part, the set of the data that its rows come from.
        num_trained: Rows left out of a given part because the starting run was trained on them, by part.
        num_known: Rows of the set that was split that the starting run was trained on.
    """

    train: _Rows
    validation: _Rows
    test: _Rows
    how: str
    origins: Mapping[str, str]
    num_trained: Mapping[str, int]
    num_known: int = 0


def find_set_to_split(sets: Mapping[str, Sequence[Record]]) -> str | None:
    """Return the name of the set that validation rows have to be split off from; None where they are given."""
    return "all" if "all" in sets else None if "validation" in sets else "train"


def split_dataset(
    sets: Mapping[str, _Rows],
    data: DataConfig,
    *,
    similar: SimilarTexts | None = None,
    trained: Digests = NONE,
) -> Parts:
    """Return the training, validation and test rows of a data set as a run has them.

    Args:
        sets: Clean rows by split as `read_dataset` names them; ``all`` is divided in three.
        data: Sizes and seed.
        similar: What is known of the texts of these sets: rows that are equal or near stay on one side. If absent,
            every row is on its own.
        trained: Digests of the rows that the starting run was trained on, which are neither validation nor test.

    Raises:
        ConfigError: Sizes that leave nothing to train on.
        DataError: There are no training rows, or no others.
    """
    name = find_set_to_split(sets)
    if name is None and "train" in sets:
        given, num_trained = _leave_out_trained(sets, ("validation", "test"), data, trained)
        origins = {part: part for part in ("train", "validation", "test") if part in sets}
        how = "train, validation and test as given"
        return Parts(sets["train"], given["validation"], given["test"], how, origins, num_trained)
    if name is None or name not in sets:
        raise DataError(f"has no training rows, only {sorted(sets)}", where=str(data.source))
    rows, seed = sets[name], data.split_seed
    groups = None if similar is None else group_rows(similar, name)
    stays = find_rows(rows, trained)
    num_known = int(stays.sum())
    by = "stratified, seeded" if groups is None else "stratified, seeded, equal and near texts together"
    if name == "train":
        if similar is not None and "test" in sets and data.leaks == "drop":
            # They are dropped from the training rows: in validation they would choose a model that knows the test.
            stays |= list_rows_found_in(similar, name, ["test"])
        train, validation = split_records(rows, data.validation_size, seed=seed, groups=groups, stays=stays)
        given, num_trained = _leave_out_trained(sets, ("test",), data, trained)
        origins = {"train": name, "validation": name} | ({"test": "test"} if "test" in sets else {})
        how = f"validation split off the training rows ({by})"
        return Parts(train, validation, given["test"], how, origins, num_trained, num_known)
    rest, test = split_records(rows, data.test_size, seed=seed, groups=groups, stays=stays)
    share = data.validation_size
    # A share is one of the whole file, as test_size is: 0.1 and 0.1 leave 80 %.
    size = share * len(rows) / len(rest) if share < 1 else share
    if share < 1 <= size:
        raise ConfigError(
            f"validation {share:g} and test {data.test_size:g} leave no rows to train on",
            where="data.validation_size",
            hint="Choose shares that sum to less than 1, such as 0.1 and 0.1.",
        )
    held_out = {record.id for record in test}
    is_left = np.array([record.id not in held_out for record in rows], np.bool_)
    left: NDArray[np.int64] | None = None if groups is None else groups[is_left]
    train, validation = split_records(rest, size, seed=seed + 1, groups=left, stays=stays[is_left])
    how = f"one file, split into train, validation and test ({by})"
    return Parts(train, validation, test, how, dict.fromkeys(("train", "validation", "test"), name), {}, num_known)


def _leave_out_trained(
    sets: Mapping[str, _Rows], names: Sequence[str], data: DataConfig, trained: Digests
) -> tuple[dict[str, _Rows], dict[str, int]]:
    given: dict[str, _Rows] = {}
    counts: dict[str, int] = {}
    for name in names:
        rows = sets.get(name, [])
        is_known = find_rows(rows, trained)
        given[name] = [row for row, known in zip(rows, is_known.tolist(), strict=True) if not known]
        if is_known.any():
            counts[name] = int(is_known.sum())
            if not given[name]:
                raise DataError(
                    f"all {len(rows):,} rows of {name} are among those that the starting run was trained on",
                    where=str(data.source),
                    hint=f"Bring {name} rows that it has not seen, or begin without its weights.",
                )
    return given, counts


def find_absent_classes(part: Sequence[Record], train: Sequence[Record]) -> list[int]:
    """Return the label ids that are trained on and have no row in a part."""
    return sorted(count_classes(train).keys() - count_classes(part).keys())


def map_groups(similar: SimilarTexts, origin: str, rows: Sequence[Record]) -> dict[str, int]:
    """Return the group of each row of a set by the row's id."""
    return dict(zip((record.id for record in rows), group_rows(similar, origin).tolist(), strict=True))


def describe_absent(
    name: str, absent: Sequence[int], train: Sequence[Record], labels: LabelSet, groups: Mapping[str, int] | None
) -> str:
    """Return the sentence that names the classes without rows in a part, and what is known of their training rows.

    Args:
        name: The part.
        absent: Their label ids.
        train: Training rows.
        labels: The classes.
        groups: The group of each row by its id, where the part was split off; None where it was given.
    """
    counts = count_classes(train)
    told = []
    for label in absent[:SHOWN_CLASSES]:
        text = f"{labels.names[label]!r} ({describe_count(counts[label], 'training row')}"
        if groups is not None:
            num_groups = len({groups[record.id] for record in train if record.label == label})
            text += (
                f" in {describe_count(num_groups, 'group')} of equal or near texts"
                if num_groups < counts[label]
                else ""
            )
        told.append(f"{text})")
    more = f" and {len(absent) - SHOWN_CLASSES} more" if len(absent) > SHOWN_CLASSES else ""
    return (
        f"{name} has no rows of {describe_count(len(absent), 'class', 'classes')} of {len(labels)}, so its figures say "
        f"nothing of them: {', '.join(told)}{more}"
    )
