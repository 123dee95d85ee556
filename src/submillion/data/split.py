"""Stratified splits and samples that depend on the rows and the seed, and not on the order of the rows."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from submillion.errors import DataError
from submillion.records import Record

MAX_EXTRA_ROWS = 4
"""Most rows beyond its share that a part gets so that every class is in it; beyond that, some classes are left out."""

MAX_GROUP_FACTOR = 2
"""Largest multiple of its share of a class's groups that a part may take, so that it gets large groups too."""


def split_records(
    records: Sequence[Record],
    size: float,
    *,
    seed: int,
    groups: NDArray[np.int64] | None = None,
    stays: NDArray[np.bool_] | None = None,
) -> tuple[list[Record], list[Record]]:
    """Set aside a stratified part; both parts keep the order of the rows.

    The choice depends on seed, ids and groups alone, so the same rows in another order split alike. Rows of one group
    go to the same part. Every class keeps its share, rounded by the largest remainder, as far as whole groups allow,
    and has at least one group on both sides. A class with a single group is not set aside. A part that is too small to
    hold every class has those with the largest remainders.

    Args:
        records: Rows with unique ids; all have labels or none has.
        size: Share (below 1) or number of rows to set aside.
        seed: Seed for the choice.
        groups: Group of each row, shape (n,); each row is its own group if absent.
        stays: Whether each row, and so its group, must not be set aside, shape (n,).

    Returns:
        The rest and the part set aside.

    Raises:
        DataError: The number of rows is too small or too large to hold every class, or no group can be set aside.
    """
    units = _make_units(records, groups, stays, seed)
    classes = _count_classes(units)
    count = round(len(records) * size) if size < 1 else int(size)
    movable = {label: found for label, found in classes.items() if found.num_units > 1}
    most = {label: found.num_rows - found.smallest for label, found in movable.items()}
    if size < 1:
        count = max(count, 1)
        if len(movable) - count <= MAX_EXTRA_ROWS:
            count = max(count, len(movable))
        count = min(count, sum(most.values()))
    elif not len(movable) <= count <= len(records) - len(classes):
        raise DataError(
            f"cannot set aside {count:,} of {len(records):,} rows with {len(classes)} classes on both sides",
            hint=f"Choose a size from {len(movable)} to {len(records) - len(classes):,}, or a share: for example --set "
            "data.validation_size=0.1, or data.test_size for test rows.",
        )
    count = min(count, sum(most.values()))
    least = 1 if count >= len(movable) else 0
    sizes = {label: found.num_rows for label, found in classes.items()}
    bounds = {label: (least, most[label]) if label in movable else (0, 0) for label in sizes}
    chosen = _choose_units(units, classes, _share_within(sizes, count, bounds))
    if not chosen:
        kept = 0 if stays is None else int(stays.sum())
        reason = f"; {kept:,} of them must stay" if kept else ""
        raise DataError(
            f"no rows can be set aside of {len(records):,}: they make {len(units):,} groups of equal or nearly equal "
            f"texts{reason}",
            hint="Give separate files for validation and test.",
        )
    return [r for r in records if r.id not in chosen], [r for r in records if r.id in chosen]


def sample_records(records: Sequence[Record], count: int, *, seed: int) -> list[Record]:
    """Return a stratified subset of `count` rows in their order, or all rows if there are no more.

    Args:
        records: Rows with unique ids.
        count: Number of rows wanted, at least one a class.
        seed: Seed for the choice.

    Raises:
        DataError: `count` is lower than the number of classes.
    """
    if count >= len(records):
        return list(records)
    groups = _group_by_label(records)
    if count < len(groups):
        raise DataError(
            f"{count} rows cannot hold {len(groups)} classes", hint=f"Take at least {len(groups)} (data.max_records)."
        )
    chosen = _choose(groups, count, seed)
    return [record for record in records if record.id in chosen]


def share_out(sizes: dict[int, int], count: int, keep: int) -> dict[int, int]:
    """Share `count` out in proportion to sizes: from 1 to size - `keep` each, the largest remainders first.

    Args:
        sizes: Sizes by label; their sum is at least `count`, and `count` at least their number.
        count: Number to share out.
        keep: Number that each label must keep.
    """
    return _share_within(sizes, count, {label: (1, size - keep) for label, size in sizes.items()})


def _share_within(sizes: Mapping[int, int], count: int, bounds: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Share `count` out in proportion to sizes, each within its bounds; the bounds allow for it."""
    total = sum(sizes.values())
    exact = {label: size * count / total for label, size in sizes.items()}
    quotas = {label: min(max(int(exact[label]), bounds[label][0]), bounds[label][1]) for label in sizes}
    while (missing := count - sum(quotas.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [label for label in sizes if bounds[label][0] <= quotas[label] + step <= bounds[label][1]]
        # The class furthest from its exact share moves first; ties go to the lower label.
        best = max(movable, key=lambda label: (step * (exact[label] - quotas[label]), -label))
        quotas[best] += step
    return quotas


@dataclass(frozen=True, slots=True)
class _Unit:
    """Rows that stay together.

    Attributes:
        rank: Lowest rank of a row, which orders the units.
        ids: Ids of the rows.
        counts: Labels, each with its number of rows.
        stays: Whether the rows must not be set aside.
    """

    rank: bytes
    ids: tuple[str, ...]
    counts: tuple[tuple[int, int], ...]
    stays: bool


@dataclass(slots=True)
class _Class:
    """Counts of a class: its rows, the units that hold any, and its fewest rows in such a unit."""

    num_rows: int = 0
    num_units: int = 0
    smallest: int = sys.maxsize


def _make_units(
    records: Sequence[Record], groups: NDArray[np.int64] | None, stays: NDArray[np.bool_] | None, seed: int
) -> list[_Unit]:
    """Return the units in the order of their ranks."""
    numbers = list(range(len(records))) if groups is None else groups.tolist()
    held = set() if stays is None else {numbers[row] for row in np.flatnonzero(stays).tolist()}
    members: dict[int, list[Record]] = defaultdict(list)
    for number, record in zip(numbers, records, strict=True):
        members[number].append(record)
    units = []
    for number, rows in members.items():
        counts: dict[int, int] = {}
        for record in rows:
            label = _label_of(record)
            counts[label] = counts.get(label, 0) + 1
        ids = tuple([record.id for record in rows])
        rank = min([_rank(record_id, seed) for record_id in ids])
        units.append(_Unit(rank, ids, tuple(counts.items()), number in held))
    return sorted(units, key=lambda unit: (unit.rank, unit.ids[0]))


def _count_classes(units: Sequence[_Unit]) -> dict[int, _Class]:
    classes: dict[int, _Class] = defaultdict(_Class)
    for unit in units:
        for label, count in unit.counts:
            found = classes[label]
            found.num_rows += count
            found.num_units += 1
            found.smallest = min(found.smallest, count)
    return classes


def _choose_units(units: Sequence[_Unit], classes: Mapping[int, _Class], quotas: Mapping[int, int]) -> set[str]:
    """Return the ids of the rows to set aside: as many units as fit, in order, then one for each class left out."""
    most = {
        label: min(-(-MAX_GROUP_FACTOR * found.num_units * quotas[label] // found.num_rows), found.num_units - 1)
        for label, found in classes.items()
    }
    rows, taken = dict.fromkeys(classes, 0), dict.fromkeys(classes, 0)
    chosen: set[str] = set()

    def take(unit: _Unit) -> None:
        for label, count in unit.counts:
            rows[label] += count
            taken[label] += 1
        chosen.update(unit.ids)

    for unit in units:
        if unit.stays:
            continue
        for label, count in unit.counts:
            if rows[label] + count > quotas[label] or taken[label] >= most[label]:
                break
        else:
            take(unit)
    for label in sorted(label for label, quota in quotas.items() if quota and not taken[label]):
        # Each unit is larger than the class's share, and the smallest is closest to it.
        fitting = [
            unit
            for unit in units
            if label in dict(unit.counts)
            and not unit.stays
            and chosen.isdisjoint(unit.ids)
            and all(taken[other] + 1 < classes[other].num_units for other, _ in unit.counts)
        ]
        if fitting and not taken[label]:
            take(min(fitting, key=lambda unit: (len(unit.ids), unit.rank)))
    return chosen


def _label_of(record: Record) -> int:
    return -1 if record.label is None else record.label


def _group_by_label(records: Sequence[Record]) -> dict[int, list[Record]]:
    groups: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        groups[_label_of(record)].append(record)
    return groups


def _choose(groups: dict[int, list[Record]], count: int, seed: int) -> set[str]:
    quotas = share_out({label: len(group) for label, group in groups.items()}, count, 0)
    chosen: set[str] = set()
    for label, group in groups.items():
        ordered = sorted((_rank(record.id, seed), record.id) for record in group)
        chosen.update(record_id for _, record_id in ordered[: quotas[label]])
    return chosen


def _rank(record_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{record_id}".encode(errors="surrogatepass"), digest_size=16).digest()
