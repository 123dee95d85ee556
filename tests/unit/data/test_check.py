from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence

import pytest

from submillion.data.check import check_records, drop_leaks
from submillion.data.near import find_near_pairs, normalise_text
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

    kept, counts = drop_leaks(train, {"test": test})
    assert [record.id for record in kept] == ["0", "4", "5", "6"]
    assert counts == report.count_leaks("train")
    assert (counts.num_dropped, counts.by_split) == (3, {"test": {"exact": 2, "near": 1}})


def test_a_row_that_leaks_into_two_splits_is_dropped_once() -> None:
    train = make_records([make_text(1), make_text(2)], "train.csv")
    others = {name: make_records([make_text(1)], f"{name}.csv") for name in ("validation", "test")}
    kept, counts = drop_leaks(train, others)
    assert [record.id for record in kept] == ["1"]
    assert counts.to_json() == {"num_dropped": 1, "by_split": {"validation": {"exact": 1}, "test": {"exact": 1}}}


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

    def count(texts: Sequence[str]) -> list[int]:
        return [2 * len(text.split()) for text in texts]

    split = check_records({"all": records}, None, count_tokens=count, max_length=50).splits["a.csv"]
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


def test_near_pairs_equal_those_of_comparing_all() -> None:
    rng = random.Random(3)
    texts = [make_text(seed, rng.randint(3, 45)) for seed in range(60)]
    texts += [change_words(text, rng.randint(1, 5)) for text in texts for _ in range(3) if len(text.split()) > 6]
    texts = list(dict.fromkeys(texts))
    expected = {(i, j) for j in range(len(texts)) for i in range(j) if jaccard(texts[i], texts[j]) >= 0.8}
    assert len(expected) > 60
    assert {(i, j) for i, j in find_near_pairs(texts).tolist()} == expected


def test_near_needs_exactly_four_fifths() -> None:
    words = [f"w{n}" for n in range(200)]
    # 8 shared shingles of 10 against 8 of 11.
    at, below = [*words[:11], "x"], [*words[:10], "x", "y"]
    base = " ".join(words[:12])
    assert jaccard(base, " ".join(at)) == pytest.approx(9 / 11)
    assert jaccard(base, " ".join(below)) == pytest.approx(8 / 12)
    assert find_near_pairs([base, " ".join(at)]).tolist() == [[0, 1]]
    assert find_near_pairs([base, " ".join(below)]).tolist() == []
    edge = " ".join(words[:11]), " ".join(words[:10])
    assert jaccard(*edge) == pytest.approx(8 / 9)
    four_fifths = " ".join(words[:7]), " ".join(words[:6])
    assert jaccard(*four_fifths) == pytest.approx(0.8)
    assert find_near_pairs(list(four_fifths)).tolist() == [[0, 1]]


def test_many_words_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [make_text(seed) for seed in range(50)]
    texts += [change_words(text, 2) for text in texts]
    expected = find_near_pairs(texts).tolist()
    assert len(expected) == 50
    monkeypatch.setattr("submillion.data.near._VOCABULARY_BITS", 0)
    assert find_near_pairs(texts).tolist() == expected


@pytest.mark.parametrize("own_words", [5, 2])
def test_thousands_of_rows_of_one_template_stay_fast(own_words: int) -> None:
    template = [f"t{n}" for n in range(40)]
    texts = [" ".join([*template, *(f"own{row}x{n}" for n in range(own_words))]) for row in range(5000)]
    begin = time.perf_counter()
    report = check_records({"train": make_records(list(texts), "train.csv")}, None)
    assert time.perf_counter() - begin < 10
    assert report.num_near_duplicates == (4999 if own_words == 2 else 0)
