from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from submillion.data.check import check_records
from submillion.data.legibility import TokenCounts
from submillion.data.near import find_near_links, normalise_text
from submillion.records import LabelSet, Record

LABELS = LabelSet(("World", "Sports"))
WORDS = [f"{a}{b}" for a in "bcdfghklmnprst" for b in ("ana", "ero", "il", "ost", "ub", "enta", "ary", "ix")]


def make_records(texts: list[str | tuple[str, ...]], file: str, labels: list[int] | None = None) -> list[Record]:
    rows = [(text,) if isinstance(text, str) else text for text in texts]
    return [Record(str(n), columns, labels[n] if labels else 0, f"{file}:{n + 1}") for n, columns in enumerate(rows)]


def make_text(seed: int, length: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def change_words(text: str, count: int) -> str:
    return " ".join([*text.split()[:-count], *(f"other{n}" for n in range(count))])


def jaccard(left: str, right: str) -> float:
    sets = [{tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in (left.split(), right.split())]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_normalised_texts_fold_case_punctuation_and_blanks() -> None:
    assert normalise_text("  \u201cStra\u00dfe\u201d -- U.S.\tsnake_case!") == "strasse u s snake case"
    # ASCII text takes a separate path; the letter at the end keeps the other text off it.
    every = "".join(map(chr, range(128)))
    assert normalise_text(every) == normalise_text(f"{every} \u00e9").removesuffix(" \u00e9")


def test_duplicates_conflicts_and_empty_rows() -> None:
    base = make_text(1)
    texts: list[str | tuple[str, ...]] = [base, base.upper() + "!", base.replace(" ", ", "), change_words(base, 2)]
    texts += [make_text(2), "", "  ", "", "!!!", "!!!", "two words", "Two  words."]
    labels = [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1]
    report = check_records({"train": make_records(texts, "train.csv", labels)}, LABELS)
    assert report.num_records == 12
    assert report.num_exact_duplicates == 2 + 1 + 1
    assert report.num_near_duplicates == 1
    assert report.num_label_conflicts == 1
    assert report.leaks == ()
    split = report.splits["train"]
    assert split.empty.num_records == 3
    assert split.class_counts == {"World": 8, "Sports": 4}
    assert next((e["left"], e["right"]) for e in split.exact_duplicates.examples) == ("train.csv:1", "train.csv:2")
    assert [(e["left"], e["right"]) for e in split.near_duplicates.examples] == [("train.csv:1", "train.csv:4")]
    conflict = report.label_conflicts.examples[0]
    assert (conflict["World"], conflict["Sports"]) == ("train.csv:1", "train.csv:3")


def test_leaks_count_rows_of_the_left_by_their_strongest_kind() -> None:
    title = "Council of the river towns meets again"
    train = make_records(
        [
            (title, make_text(1)),
            ("Equal", make_text(2)),
            ("EQUAL", make_text(2)),
            ("Near one", make_text(3)),
            ("Free", make_text(4)),
            ("", ""),
            ("Too short", make_text(6)),
        ],
        "train.csv",
    )
    test = make_records(
        [
            ("equal!", make_text(2)),
            ("Near one", change_words(make_text(3), 2)),
            (title, make_text(7)),
            ("", ""),
            ("too short", make_text(8)),
        ],
        "test.csv",
    )
    report = check_records({"train": train, "test": test}, LABELS, column_names=("title", "description"))
    found = {leak.kind: leak for leak in report.leaks}
    assert {(leak.left, leak.right) for leak in report.leaks} == {("train", "test")}
    assert {kind: leak.num_records for kind, leak in found.items()} == {"exact": 2, "near": 1, "column": 1}
    assert [(e["left"], e["right"]) for e in found["exact"].examples] == [
        ("train.csv:2", "test.csv:1"),
        ("train.csv:3", "test.csv:1"),
    ]
    assert [(e["left"], e["right"]) for e in found["near"].examples] == [("train.csv:4", "test.csv:2")]
    column = found["column"].examples[0]
    assert (column["left"], column["right"], column["column"]) == ("train.csv:1", "test.csv:3", "title")
    assert report.leaking_ids("train") == {"1", "2", "3"}
    assert report.leaking_ids("test") == frozenset()


def test_a_row_that_leaks_into_two_splits_counts_in_both_and_is_named_once() -> None:
    train = make_records([make_text(1), make_text(2)], "train.csv")
    others = {name: make_records([make_text(1)], f"{name}.csv") for name in ("validation", "test")}
    report = check_records({"train": train, **others}, LABELS)
    assert [(leak.left, leak.right, leak.kind, leak.num_records) for leak in report.leaks] == [
        ("train", "validation", "exact", 1),
        ("train", "test", "exact", 1),
        ("validation", "test", "exact", 1),
    ]
    assert report.leaking_ids("train") == {"0"}


def test_single_files_go_by_their_names_and_joined_columns_equal_one() -> None:
    left = make_records([make_text(1), make_text(2)], "target.csv")
    right = make_records([(" ".join(make_text(1).split()[:7]), " ".join(make_text(1).split()[7:]))], "test.csv")
    report = check_records({"all": left}, None, against={"all": right})
    assert [(leak.left, leak.right, leak.kind, leak.num_records) for leak in report.leaks] == [
        ("target.csv", "test.csv", "exact", 1)
    ]
    assert report.num_records == 2
    assert list(report.splits) == ["target.csv"]


def test_lengths_in_tokens_and_rows_that_are_too_long() -> None:
    records = make_records([make_text(seed, 10 + seed) for seed in range(20)], "a.csv")
    lengths = np.array([2 * len(record.text.split()) for record in records], np.int32)
    counted = TokenCounts(lengths, lengths // 10, lengths // 5, 2, "token")
    report = check_records({"all": records}, None, count_tokens={"all": lambda: counted}, max_length=50)
    split = report.splits["a.csv"]
    assert split.too_long.num_records == 4
    assert split.too_long.examples[0]["place"] == "a.csv:17"
    assert (split.lengths["unit"], split.lengths["min"], split.lengths["max"]) == ("tokens", 20, 58)
    assert split.lengths["mean"] == pytest.approx(39.0)
    edges, counts = split.lengths["histogram"]["edges"], split.lengths["histogram"]["counts"]
    assert len(edges) == len(counts) + 1
    assert sum(counts) == 20
    assert edges[-1] > 58
    assert check_records({"all": records}, None).splits["a.csv"].lengths["unit"] == "words"


def test_signs_of_damaged_encoding() -> None:
    texts: list[str | tuple[str, ...]] = ["HervÃ© said", "itâ€™s", "lost \ufffd sign", "a #39;s b &amp; c", "bell\x07"]
    texts += ["SÃO Paulo, Straße“, café à la carte, R&D; ranked #7", "Ångström — naïve"]
    damage = check_records({"all": make_records(texts, "a.csv")}, None).splits["a.csv"].damage
    assert {name: finding.num_records for name, finding in damage.items()} == {
        "mojibake": 2,
        "replacement_character": 1,
        "entity": 1,
        "control_character": 1,
    }


def test_report_is_json_with_the_agreed_keys() -> None:
    splits = {"train": make_records([make_text(1)] * 3, "train.csv"), "test": make_records([make_text(1)], "test.csv")}
    values = json.loads(json.dumps(check_records(splits, LABELS).to_json(), allow_nan=False))
    assert (values["num_records"], values["num_exact_duplicates"], values["num_near_duplicates"]) == (4, 2, 0)
    assert values["num_label_conflicts"] == 0
    leak = values["leaks"][0]
    assert (leak["left"], leak["right"], leak["kind"], leak["num_records"]) == ("train", "test", "exact", 3)
    assert check_records({"train": []}, None).to_json()["num_records"] == 0


def test_examples_are_capped_and_counts_are_not() -> None:
    report = check_records({"train": make_records(["same words here"] * 500, "train.csv")}, None)
    assert report.num_exact_duplicates == 499
    assert len(report.splits["train"].exact_duplicates.examples) == 100


def answer(pairs: Sequence[tuple[int, int]], is_in: NDArray[np.bool_]) -> tuple[list[list[int]], NDArray[np.bool_]]:
    """Return what links are for: each text's group in each part, and which texts have a near one in which part."""
    groups = []
    for part in range(is_in.shape[1]):
        group = list(range(len(is_in)))
        inside = [(a, b) for a, b in pairs if is_in[a, part] and is_in[b, part]]
        for _ in range(len(is_in)):
            before = list(group)
            for a, b in inside:
                group[a] = group[b] = min(group[a], group[b])
            if group == before:
                break
        groups.append(group)
    is_near = np.zeros_like(is_in)
    for a, b in pairs:
        is_near[a] |= is_in[b]
        is_near[b] |= is_in[a]
    return groups, is_near | is_in


@pytest.mark.parametrize("num_parts", [1, 3])
def test_near_links_tell_what_comparing_all_would(num_parts: int) -> None:
    rng = random.Random(3)
    texts = [make_text(seed, rng.randint(3, 60)) for seed in range(80)]
    texts += [change_words(text, rng.randint(1, 6)) for text in texts for _ in range(6) if len(text.split()) > 8]
    texts = list(dict.fromkeys(texts))
    is_in = np.random.default_rng(5).random((len(texts), num_parts)) < 0.5
    is_in[~is_in.any(axis=1), 0] = True
    expected = [(i, j) for j in range(len(texts)) for i in range(j) if jaccard(texts[i], texts[j]) >= 0.8]
    links = [(i, j) for i, j in find_near_links(texts, is_in).tolist()]
    assert set(links) <= set(expected)
    assert 100 < len(links) < len(expected)
    groups, is_near = answer(links, is_in)
    expected_groups, expected_near = answer(expected, is_in)
    assert groups == expected_groups
    assert (is_near == expected_near).all()


def test_rows_of_one_template_are_all_found_in_every_split() -> None:
    # Far more than the 33 of a bucket that are compared one by one; two templates that share half of their words.
    shared = [f"t{n}" for n in range(30)]
    texts = {
        name: [
            " ".join([*shared, *(f"{kind}{n}" for n in range(30)), f"own{name}{row}"])
            for row in range(count)
            for kind in ("a", "b")
        ]
        for name, count in (("train", 400), ("test", 40))
    }
    splits = {name: make_records(list(rows), f"{name}.csv") for name, rows in texts.items()}
    lonely = make_records([" ".join([*shared, *(f"c{n}" for n in range(30))])], "lonely.csv")
    report = check_records(splits | {"lonely": lonely}, None)
    assert [split.near_duplicates.num_records for split in report.splits.values()] == [798, 78, 0]
    assert [(leak.left, leak.right, leak.kind, leak.num_records) for leak in report.leaks] == [
        ("train", "test", "near", 800)
    ]


def test_near_needs_exactly_four_fifths() -> None:
    words = [f"w{n}" for n in range(200)]
    # 8 shared shingles of 10 against 8 of 11.
    at, below = [*words[:11], "x"], [*words[:10], "x", "y"]
    base = " ".join(words[:12])
    assert jaccard(base, " ".join(at)) == pytest.approx(9 / 11)
    assert jaccard(base, " ".join(below)) == pytest.approx(8 / 12)
    assert find_near_links([base, " ".join(at)]).tolist() == [[0, 1]]
    assert find_near_links([base, " ".join(below)]).tolist() == []
    edge = " ".join(words[:11]), " ".join(words[:10])
    assert jaccard(*edge) == pytest.approx(8 / 9)
    four_fifths = " ".join(words[:7]), " ".join(words[:6])
    assert jaccard(*four_fifths) == pytest.approx(0.8)
    assert find_near_links(list(four_fifths)).tolist() == [[0, 1]]


def test_many_words_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [make_text(seed) for seed in range(50)]
    texts += [change_words(text, 2) for text in texts]
    expected = find_near_links(texts).tolist()
    assert len(expected) == 50
    monkeypatch.setattr("submillion.data.near._VOCABULARY_BITS", 0)
    assert find_near_links(texts).tolist() == expected


@pytest.mark.parametrize("own_words", [5, 2])
def test_thousands_of_rows_of_one_template_stay_fast(own_words: int) -> None:
    template = [f"t{n}" for n in range(40)]
    texts = [" ".join([*template, *(f"own{row}x{n}" for n in range(own_words))]) for row in range(5000)]
    begin = time.perf_counter()
    report = check_records({"train": make_records(list(texts), "train.csv")}, None)
    assert time.perf_counter() - begin < 10
    assert report.num_near_duplicates == (4999 if own_words == 2 else 0)
