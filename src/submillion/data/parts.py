"""The training, validation and test rows of a run: given by the data, or split off by whole groups."""

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
"""Number of the rule that splits rows: 2 keeps groups together, and runs without a number were split row by row."""

_Rows = list[Record]


@dataclass(frozen=True)
class Parts:
    """The rows of a run, before any are left out of training.

    Attributes:
        train: Training rows.
        validation: Validation rows.
        test: Test rows; none if the data has none.
        how: Description of the split, for people.
        origins: Set of the data that each part's rows come from, by part.
        num_trained: Number of rows left out because the starting run was trained on them, by given part.
        num_known: Number of rows, in the set that was split, that the starting run was trained on.
    """

    train: _Rows
    validation: _Rows
    test: _Rows
    how: str
    origins: Mapping[str, str]
    num_trained: Mapping[str, int]
    num_known: int = 0


def find_set_to_split(sets: Mapping[str, Sequence[Record]]) -> str | None:
    """Return the name of the set from which validation rows must be split off; None if they are given."""
    return "all" if "all" in sets else None if "validation" in sets else "train"


def split_dataset(
    sets: Mapping[str, _Rows],
    data: DataConfig,
    *,
    similar: SimilarTexts | None = None,
    trained: Digests = NONE,
) -> Parts:
    """Return the training, validation and test rows of a run.

    Args:
        sets: Clean rows by split as `read_dataset` names them; ``all`` is divided in three.
        data: Settings with sizes and seed.
        similar: Equal and near texts of these sets, whose rows stay on one side; rows are placed separately if absent.
        trained: Digests of the rows that the starting run was trained on, which are used neither in validation nor in
            test.

    Raises:
        ConfigError: The sizes leave nothing to train on.
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
            # These rows are dropped from training. In validation they would choose a model that fits the test rows.
            stays |= list_rows_found_in(similar, name, ["test"])
        train, validation = split_records(rows, data.validation_size, seed=seed, groups=groups, stays=stays)
        given, num_trained = _leave_out_trained(sets, ("test",), data, trained)
        origins = {"train": name, "validation": name} | ({"test": "test"} if "test" in sets else {})
        how = f"validation split off the training rows ({by})"
        return Parts(train, validation, given["test"], how, origins, num_trained, num_known)
    rest, test = split_records(rows, data.test_size, seed=seed, groups=groups, stays=stays)
    share = data.validation_size
    # As for test_size, a share is one of the whole file: 0.1 and 0.1 leave 80 %.
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
                    hint=f"Give {name} rows that it has not seen, or begin without its weights.",
                )
    return given, counts


def find_absent_classes(part: Sequence[Record], train: Sequence[Record]) -> list[int]:
    """Return the label ids that have training rows but no row in a part."""
    return sorted(count_classes(train).keys() - count_classes(part).keys())


def map_groups(similar: SimilarTexts, origin: str, rows: Sequence[Record]) -> dict[str, int]:
    """Return the group of each row of a set by the row's id."""
    return dict(zip((record.id for record in rows), group_rows(similar, origin).tolist(), strict=True))


def describe_absent(
    name: str, absent: Sequence[int], train: Sequence[Record], labels: LabelSet, groups: Mapping[str, int] | None
) -> str:
    """Return the sentence that names the classes without rows in a part, with their training rows.

    Args:
        name: Name of the part.
        absent: Label ids of these classes.
        train: Training rows.
        labels: Classes of the run.
        groups: Group of each row by id, if the part was split off; None if it was given.
    """
    counts = count_classes(train)
    shown = []
    for label in absent[:SHOWN_CLASSES]:
        text = f"{labels.names[label]!r} ({describe_count(counts[label], 'training row')}"
        if groups is not None:
            num_groups = len({groups[record.id] for record in train if record.label == label})
            text += (
                f" in {describe_count(num_groups, 'group')} of equal or near texts"
                if num_groups < counts[label]
                else ""
            )
        shown.append(f"{text})")
    more = f" and {len(absent) - SHOWN_CLASSES} more" if len(absent) > SHOWN_CLASSES else ""
    return (
        f"{name} has no rows of {describe_count(len(absent), 'class', 'classes')} of {len(labels)}, so its figures say "
        f"nothing about them: {', '.join(shown)}{more}"
    )
