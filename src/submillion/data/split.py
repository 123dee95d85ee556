"""Stratified splits and samples that depend on the rows and the seed, and not on the order of the rows."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from submillion.errors import DataError
from submillion.records import LabelSet, Record


def split_records(
    records: Sequence[Record], size: float, *, seed: int, labels: LabelSet | None = None
) -> tuple[list[Record], list[Record]]:
    """Set aside a stratified part; both parts keep the order of the rows.

    Which rows are set aside follows from seed and id alone, so that the same rows in another order split alike.
    Every class keeps its share, rounded by the largest remainder, and has at least one row on both sides.

    Args:
        records: Rows with unique ids; all with labels or all without.
        size: Share (below 1) or number of rows to set aside.
        seed: Of the choice.
        labels: Class names, for messages.

    Returns:
        The rest and the part set aside.

    Raises:
        DataError: A class with one row, or a part too small or too large to hold every class.
    """
    groups = _group_by_label(records)
    for label, group in sorted(groups.items()):
        if len(group) < 2:
            name = str(label) if labels is None else repr(labels.names[label])
            raise DataError(
                f"class {name} has only one row ({group[0].source or 'id ' + group[0].id}), which cannot stand on "
                "both sides of a split",
                hint="Add rows of this class, remove it, or bring a validation file of your own.",
            )
    count = round(len(records) * size) if size < 1 else int(size)
    if size < 1:
        count = min(max(count, len(groups)), len(records) - len(groups))
    if not len(groups) <= count <= len(records) - len(groups):
        raise DataError(
            f"cannot set aside {count:,} of {len(records):,} rows with {len(groups)} classes on both sides",
            hint=f"Choose a size from {len(groups)} to {len(records) - len(groups):,}, or a share: for example --set "
            "data.validation_size=0.1, or data.test_size for test rows.",
        )
    chosen = _choose(groups, count, seed, keep=1)
    return [r for r in records if r.id not in chosen], [r for r in records if r.id in chosen]


def sample_records(records: Sequence[Record], count: int, *, seed: int) -> list[Record]:
    """Return a stratified subset of `count` rows in their order; all of them where there are no more.

    Args:
        records: Rows with unique ids.
        count: Number of rows wanted, at least one a class.
        seed: Of the choice.

    Raises:
        DataError: Fewer rows wanted than there are classes.
    """
    if count >= len(records):
        return list(records)
    groups = _group_by_label(records)
    if count < len(groups):
        raise DataError(
            f"{count} rows cannot hold {len(groups)} classes", hint=f"Take at least {len(groups)} (data.max_records)."
        )
    chosen = _choose(groups, count, seed, keep=0)
    return [record for record in records if record.id in chosen]


def share_out(sizes: dict[int, int], count: int, keep: int) -> dict[int, int]:
    """Share `count` out in proportion to sizes: from 1 to size - `keep` each, the largest remainders first.

    Args:
        sizes: By label; their sum is at least `count`, and `count` at least their number.
        count: What is shared out.
        keep: What each must keep.
    """
    total = sum(sizes.values())
    exact = {label: size * count / total for label, size in sizes.items()}
    quotas = {label: min(max(int(exact[label]), 1), size - keep) for label, size in sizes.items()}
    while (missing := count - sum(quotas.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [label for label, size in sizes.items() if 1 <= quotas[label] + step <= size - keep]
        # The class furthest from its exact share moves first; ties go to the lower label.
        best = max(movable, key=lambda label: (step * (exact[label] - quotas[label]), -label))
        quotas[best] += step
    return quotas


def _group_by_label(records: Sequence[Record]) -> dict[int, list[Record]]:
    groups: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        groups[-1 if record.label is None else record.label].append(record)
    return groups


def _choose(groups: dict[int, list[Record]], count: int, seed: int, *, keep: int) -> set[str]:
    quotas = share_out({label: len(group) for label, group in groups.items()}, count, keep)
    chosen: set[str] = set()
    for label, group in groups.items():
        ordered = sorted((_rank(record.id, seed), record.id) for record in group)
        chosen.update(record_id for _, record_id in ordered[: quotas[label]])
    return chosen


def _rank(record_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{record_id}".encode(errors="surrogatepass"), digest_size=16).digest()
