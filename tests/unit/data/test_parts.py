"""Splits that keep equal and near texts together, and rows that starting weights have seen."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from submillion.config.run import DataConfig
from submillion.data.check import check_records
from submillion.data.parts import Parts, describe_absent, find_absent_classes, map_groups, split_dataset
from submillion.data.removals import choose_dropped, require_classes
from submillion.data.similar import find_similar_texts, group_rows, narrow_to
from submillion.data.split import split_records
from submillion.data.trained_rows import TrainedRows, digest_rows, find_rows
from submillion.errors import DataError, RunError
from submillion.records import LabelSet, Record

LABELS = LabelSet(("food", "sport", "reply"))


def make_text(seed: int, num_words: int = 20) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(5000)}" for _ in range(num_words))


def make_records(texts: Sequence[tuple[str, int]]) -> list[Record]:
    return [Record(f"r{number}", (text,), label, f"a.csv:{number}") for number, (text, label) in enumerate(texts)]


def split(records: list[Record], *, trained: Sequence[Record] = (), **settings: object) -> Parts:
    data = DataConfig.model_validate({"source": "a.csv", **settings})
    similar = find_similar_texts({"all": records})
    return split_dataset({"all": records}, data, similar=similar, trained=digest_rows(trained))


def find_leaks(parts: Parts) -> list[tuple[str, str, str, int]]:
    report = check_records({"train": parts.train, "validation": parts.validation, "test": parts.test}, None)
    return [(leak.left, leak.right, leak.kind, leak.num_records) for leak in report.leaks if leak.kind != "column"]


def digest_ids(records: Sequence[Record]) -> str:
    return hashlib.sha256(" ".join(record.id for record in records).encode()).hexdigest()[:16]


def test_without_repeats_rows_are_split_as_ever() -> None:
    # Digests of the ids that the first versions set aside.
    rng = random.Random(7)
    records = make_records([(make_text(number), rng.choice((0, 0, 0, 1, 1, 2))) for number in range(300)])
    parts = split(records)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (240, 30, 30)
    assert [digest_ids(part) for part in (parts.train, parts.validation, parts.test)] == [
        "126ff43a7cc16dc1",
        "d179d76582ea5db8",
        "889c2302ca4a1629",
    ]


def test_a_class_that_repeats_itself_stays_in_training_and_is_named() -> None:
    texts = [(make_text(number), number % 2) for number in range(140)]
    records = make_records([*texts, *((f"{make_text(999)} {'again' * (n % 2)}", 2) for n in range(70))])
    parts = split(records)
    assert Counter(record.label for record in parts.train)[2] == 70
    assert find_leaks(parts) == []
    assert find_absent_classes(parts.test, parts.train) == find_absent_classes(parts.validation, parts.train) == [2]
    groups = map_groups(find_similar_texts({"all": records}), "all", records)
    assert describe_absent("test", [2], parts.train, LABELS, groups) == (
        "test has no rows of 1 class of 3, so its figures say nothing about them: 'reply' (70 training rows in 1 group "
        "of equal or near texts)"
    )


def make_repeating_rows(rng: random.Random) -> list[Record]:
    """Return rows, many of which repeat, nearly repeat or follow each other in chains, also across classes."""
    texts: list[tuple[str, int]] = []
    for number in range(60):
        text, label = make_text(number + 1000 * rng.randrange(9)), rng.randrange(3)
        for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
            texts.append((text, label if rng.random() < 0.95 else rng.randrange(3)))
            if rng.random() < 0.3:  # a chain: each is near to the one before it
                text = " ".join([*text.split()[1:], f"c{rng.randrange(9999)}"])
    rng.shuffle(texts)
    return make_records(texts)


@pytest.mark.parametrize("seed", range(8))
def test_groups_stay_whole_and_shares_near(seed: int) -> None:
    records = make_repeating_rows(random.Random(seed))
    parts = split(records, split_seed=seed)
    assert find_leaks(parts) == []
    assert len(parts.train) + len(parts.validation) + len(parts.test) == len(records)
    assert {record.label for record in parts.train} == {0, 1, 2}
    for part in (parts.validation, parts.test):
        assert {record.label for record in part} == {0, 1, 2}
        assert 0.05 <= len(part) / len(records) <= 0.15


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    records = make_repeating_rows(random.Random(seed))
    shuffled = random.Random(99).sample(records, len(records))
    first, second = split(records), split(shuffled)
    for name in ("train", "validation", "test"):
        assert {record.id for record in getattr(first, name)} == {record.id for record in getattr(second, name)}


def test_half_of_the_rows_in_one_group_leave_the_others_to_be_split() -> None:
    rows = [(make_text(5) + f" own{n % 3}", n % 3) for n in range(300)]
    parts = split(make_records([*rows, *((make_text(number), number % 3) for number in range(10, 310))]))
    assert find_leaks(parts) == []
    assert 50 <= len(parts.test) <= 60
    assert 50 <= len(parts.validation) <= 60


def test_many_small_classes_keep_the_shares() -> None:
    records = make_records([(make_text(number), number % 40) for number in range(160)])
    parts = split(records)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (128, 16, 16)
    assert {record.label for record in parts.train} == set(range(40))
    assert len(find_absent_classes(parts.test, parts.train)) == 24


def test_a_class_of_two_rows_and_one_of_one_row_are_trained_on() -> None:
    records = make_records([(make_text(number), number % 2) for number in range(90)])
    records += [Record(f"rare{n}", (make_text(500 + n),), 2 + (n == 2)) for n in range(3)]
    parts = split(records)
    assert Counter(record.label for record in parts.train)[2] == Counter(record.label for record in parts.train)[3] == 1
    assert Counter(record.label for record in parts.test)[2] == 1


def test_what_cannot_be_set_aside_is_refused() -> None:
    records = make_records([("the same text over and over", number % 2) for number in range(20)])
    with pytest.raises(DataError, match="no rows can be set aside of 20: they make 1 groups"):
        split(records)


def test_validation_from_training_rows_leaves_those_that_appear_in_the_test() -> None:
    train = make_records([(make_text(number), number % 2) for number in range(100)])
    test = [Record(f"t{n}", (make_text(n) + (" more" if n % 2 else ""),), n % 2) for n in range(50)]
    sets = {"train": train, "test": test}
    similar = find_similar_texts(sets)
    parts = split_dataset(sets, DataConfig(source="x", validation_size=0.2), similar=similar)
    assert len(parts.validation) == 20
    report = check_records({"validation": parts.validation, "test": parts.test}, None)
    assert report.leaks == ()
    # As published systems ran: every row on its own.
    kept = split_dataset(sets, DataConfig(source="x", validation_size=0.2, leaks="keep"))
    assert check_records({"validation": kept.validation, "test": kept.test}, None).leaks != ()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_known_of_all_rows_is_known_of_their_parts(seed: int) -> None:
    rng = random.Random(seed)
    records = make_repeating_rows(rng)
    parts = split(records)
    # Some training rows are left out after the split, and with them what linked others.
    sets = {"train": [r for r in parts.train if rng.random() < 0.6], "validation": parts.validation, "test": parts.test}
    similar = find_similar_texts({"all": records})
    narrow = narrow_to(similar, {"all": records}, sets, dict.fromkeys(sets, "all"))
    known, found = check_records(sets, LABELS, similar=narrow), check_records(sets, LABELS)
    assert (known.num_exact_duplicates, known.num_near_duplicates) == (
        found.num_exact_duplicates,
        found.num_near_duplicates,
    )
    assert known.num_label_conflicts == found.num_label_conflicts
    assert known.leaks == found.leaks == ()
    for name, part in found.splits.items():
        assert known.splits[name].near_duplicates.num_records == part.near_duplicates.num_records
    assert found.num_near_duplicates > 5


def test_empty_rows_are_groups_by_themselves() -> None:
    records = make_records([("", 0), ("", 1), ("!", 0), ("!", 1), ("a b c", 0), ("A, b c", 1)])
    groups = group_rows(find_similar_texts({"all": records}), "all").tolist()
    assert groups[0] != groups[1]
    assert groups[2] == groups[3]
    assert groups[4] == groups[5]
    assert len(set(groups)) == 4


def test_rows_that_the_starting_run_knows_are_trained_on_again() -> None:
    records = make_records([(make_text(number), number % 2) for number in range(100)])
    first = split(records[:80])
    parts = split(records, trained=first.train)
    known = {record.id for record in first.train}
    assert parts.num_known == len(known) == 64
    assert known.isdisjoint(record.id for record in [*parts.validation, *parts.test])
    assert (len(parts.validation), len(parts.test)) == (10, 10)
    # On the same rows the same split comes out.
    again = split(records[:80], trained=first.train)
    assert (again.train, again.validation, again.test) == (first.train, first.validation, first.test)
    with pytest.raises(DataError, match="100 of them must stay"):
        split(records, trained=records)


def test_given_rows_that_the_starting_run_knows_are_left_out_and_counted() -> None:
    rows = make_records([(make_text(number), number % 2) for number in range(40)])
    sets = {"train": rows[:20], "validation": rows[20:30], "test": rows[30:]}
    parts = split_dataset(sets, DataConfig(source="x"), trained=digest_rows(rows[28:33]))
    assert (len(parts.validation), len(parts.test)) == (8, 7)
    assert parts.num_trained == {"validation": 2, "test": 3}
    with pytest.raises(DataError, match="all 10 rows of validation are among those that the starting run"):
        split_dataset(sets, DataConfig(source="x"), trained=digest_rows(rows))


def test_digests_fold_what_the_doctor_folds_and_survive_a_file() -> None:
    rows = make_records([("Some  words, here", 0), ("other words", 1), ("", 0)])
    stored = TrainedRows(digest_rows(rows[:1]), digest_rows(rows[1:]))
    read = TrainedRows.from_bytes(stored.to_bytes(), where="x")
    assert read.inherited.tolist() == stored.inherited.tolist()
    assert read.own.tolist() == stored.own.tolist()
    assert len(read.all) == 2
    asked = make_records([("some words here!", 1), ("OTHER words", 0), ("third", 0), ("", 0)])
    assert find_rows(asked, read.all).tolist() == [True, True, False, False]
    for content in (b"", b"x" * 40, stored.to_bytes()[:-1], stored.to_bytes() + b"\0" * 8):
        with pytest.raises(RunError, match="not a list of trained rows"):
            TrainedRows.from_bytes(content, where="x")


def test_a_class_must_not_lose_most_of_its_rows_unasked() -> None:
    train = make_records([(make_text(number), number % 3) for number in range(30)])
    leaking = {record.id for record in train if record.label == 2 and int(record.id[1:]) < 18}
    with pytest.raises(DataError, match="of class 'reply' 6 of 10"):
        choose_dropped(leaking, train, DataConfig(source="x"), LABELS)
    assert choose_dropped(leaking, train, DataConfig(source="x", max_class_loss=0.6), LABELS) == leaking
    whole = {record.id for record in train if record.label == 2}
    with pytest.raises(DataError, match="of class 'reply' 10 of 10"):
        choose_dropped(whole, train, DataConfig(source="x", max_class_loss=1), LABELS)
    assert choose_dropped(whole, train, DataConfig(source="x", leaks="keep"), LABELS) == set()


def test_a_class_without_training_rows_is_told_with_what_took_them() -> None:
    train = make_records([("a", 0), ("b", 1)])
    losses = {"data.max_words": Counter({2: 5}), "data.leaks": Counter({2: 1, 0: 3})}
    with pytest.raises(
        DataError,
        match=r"left of class 'reply', whose 6 were left out \(5 by data.max_words, 1 by data.leaks\)",
    ):
        require_classes(Counter({0: 4, 1: 1, 2: 6}), train, losses, DataConfig(source="x"), LABELS)
    require_classes(Counter({0: 4, 1: 1}), train, losses, DataConfig(source="x"), LABELS)


def test_units_of_rows_that_stay_are_not_set_aside() -> None:
    records = make_records([("x", number % 2) for number in range(40)])
    groups = np.arange(40) // 4
    stays = np.zeros(40, np.bool_)
    stays[:8] = True
    for seed in range(20):
        _, held = split_records(records, 0.2, seed=seed, groups=groups, stays=stays)
        assert all(int(record.id[1:]) >= 8 for record in held)
        assert Counter(groups[int(record.id[1:])] for record in held).most_common()[-1][1] == 4
