from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submillion.data.split import sample_records, split_records
from submillion.errors import DataError
from submillion.records import Record


@st.composite
def labelled_records(draw: st.DrawFn) -> list[Record]:
    sizes = draw(st.lists(st.integers(2, 30), min_size=2, max_size=5))
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    order = draw(st.permutations(range(len(labels))))
    return [Record(f"r{number}", (f"text {number}",), labels[number]) for number in order]


@given(labelled_records(), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_split_is_a_stratified_partition_in_order(records: list[Record], size: float, seed: int) -> None:
    rest, held = split_records(records, size, seed=seed)
    assert sorted([*rest, *held], key=lambda r: r.id) == sorted(records, key=lambda r: r.id)
    assert [r for r in records if r in rest] == rest
    assert [r for r in records if r in held] == held
    classes = {r.label for r in records}
    assert {r.label for r in rest} == classes == {r.label for r in held}
    for label in classes:
        total = sum(r.label == label for r in records)
        share = total * len(held) / len(records)
        found = sum(r.label == label for r in held)
        # The size is within one row of the exact share, except for the bounds that keep the class on both sides.
        assert abs(found - share) < len(classes) or found in {1, total - 1}


@given(labelled_records(), st.floats(0.01, 0.99), st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_split_does_not_depend_on_row_order(records: list[Record], size: float, seed: int, random: Random) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)
    assert {r.id for r in split_records(records, size, seed=seed)[1]} == {
        r.id for r in split_records(shuffled, size, seed=seed)[1]
    }


@given(labelled_records(), st.data(), st.integers(0, 2**31))
def test_counted_split_and_sample_have_the_wanted_size(records: list[Record], data: st.DataObject, seed: int) -> None:
    num_classes = len({r.label for r in records})
    count = data.draw(st.integers(num_classes, len(records) - num_classes))
    assert len(split_records(records, count, seed=seed)[1]) == count
    sample = sample_records(records, count, seed=seed)
    assert len(sample) == count
    assert [r for r in records if r in sample] == sample
    assert {r.label for r in sample} == {r.label for r in records}


def test_seed_changes_the_choice() -> None:
    records = [Record(str(number), ("x",), number % 2) for number in range(100)]
    first, second = (split_records(records, 0.2, seed=seed)[1] for seed in (0, 1))
    assert first != second
    assert len(first) == len(second) == 20


@pytest.mark.parametrize("size", [1, 9, 50])
def test_part_that_cannot_hold_every_class_is_refused(size: int) -> None:
    records = [Record(str(number), ("x",), number % 2) for number in range(10)]
    with pytest.raises(DataError, match="cannot set aside"):
        split_records(records, size, seed=0)


def test_sample_of_everything_and_of_too_little() -> None:
    records = [Record(str(number), ("x",), number % 2) for number in range(10)]
    assert sample_records(records, 10, seed=0) == records
    with pytest.raises(DataError, match="1 rows cannot hold 2 classes"):
        sample_records(records, 1, seed=0)
