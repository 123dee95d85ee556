"""Synonym rows that a run makes of its own training rows: of nothing that is scored, and the same every time."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from submillion.config.run import SynonymConfig, parse_config
from submillion.data.synthetic import SyntheticRow, describe_file
from submillion.encoding.text_encoder import TextEncoder
from submillion.errors import ConfigError, DataError
from submillion.pipeline import synonyms
from submillion.pipeline.prepare import Prepared, prepare_data
from submillion.progress import Silent
from submillion.wordnet.lexicon import Lexicon, load_lexicon
from submillion.wordnet.synonym_rows import make_synonym_rows

THINGS = ("bridge", "harbour", "museum", "railway", "castle", "market", "garden", "theatre", "factory", "library")
PLACES = ("Oslo", "Lima", "Perth", "Quito", "Turin", "Delhi", "Lagos", "Kyoto")
TEXTS = {
    "Film": "The movies about the {thing} of {place} were quickly purchased by {n} shareholders",
    "Cars": "Visitors of the {thing} in {place} liked {n} automobiles that the nation had purchased",
}


def write_news(path: Path, count: int, *, start: int = 0) -> None:
    """Write rows that have words to replace and no near copies."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "text"))
        for n in range(start, start + count):
            label = list(TEXTS)[n % 2]
            words = {"thing": THINGS[n % 10], "place": PLACES[n // 10 % 8], "n": n}
            writer.writerow((f"id{n}", label, TEXTS[label].format(**words)))


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return load_lexicon()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[list[SyntheticRow]]:
    """Collect the training rows that a preparation was given."""
    seen: list[list[SyntheticRow]] = []
    recall = synonyms.recall_synonyms

    def note(*arguments: Any) -> list[SyntheticRow]:
        seen.append(recall(*arguments))
        return seen[-1]

    monkeypatch.setattr("submillion.pipeline.synonyms.recall_synonyms", note)
    return seen


@pytest.fixture
def run(tiny_bert: Path, tmp_path: Path, lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prepared]:
    monkeypatch.setattr(synonyms, "load_lexicon", lambda _: lexicon)  # loading takes seconds
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    news = tmp_path / "news"
    news.mkdir()
    write_news(news / "train.csv", 60)
    write_news(news / "test.csv", 10, start=56)  # four of them are training rows
    encoder = TextEncoder(tiny_bert, 32)

    def prepare(synonyms: Any = None, **data: Any) -> Prepared:
        values = {"data": {"source": str(news), "validation_size": 0.2, "synonyms": synonyms} | data}
        return prepare_data(parse_config(values, where="test"), encoder=encoder, progress=Silent())

    return prepare


@pytest.mark.parametrize("leaks", ["drop", "keep"])
def test_they_come_of_training_rows_that_stand_nowhere_else(
    run: Callable[..., Prepared], given: list[list[SyntheticRow]], leaks: str
) -> None:
    plain = run(leaks="drop")
    mixed = run({"weight": 0.5, "copies": 2}, leaks=leaks)
    sources = {row.provenance["source_id"] for row in given[0]}
    assert len(given[0]) > len(sources) > 40
    assert sources <= {row.id for row in plain.splits.train}
    [entry] = mixed.report["extra"]
    assert (entry["data"], entry["weight"], entry["methods"]) == ("data.synonyms", 0.5, {"synonyms": len(given[0])})
    assert entry["num_dropped"]["source"] == 0
    added = mixed.splits.train[mixed.report["num_train"] :]
    assert {row.id for row in added} <= {row.id for row in given[0]}
    assert len(added) == entry["num_used"] > 40
    assert [item.weight for item in mixed.features["train"]] == [1.0] * mixed.report["num_train"] + [0.5] * len(added)
    assert mixed.splits.validation == plain.splits.validation
    assert f"{len(added)} synthetic rows (synonyms) of data.synonyms trained on with weight 0.5" in describe_file(entry)


def test_only_the_rows_that_are_trained_on_are_used(
    run: Callable[..., Prepared], given: list[list[SyntheticRow]]
) -> None:
    few = run({}, max_records=12, leaks="drop")
    own = {row.id for row in few.splits.train[: few.report["num_train"]]}
    assert {row.provenance["source_id"] for row in given[0]} <= own
    run({"rows": 10, "seed": 3})
    assert len(given[1]) == 10
    assert {row.provenance["seed"] for row in given[1]} == {3}


def test_fewer_rows_than_wanted_are_told_each_time(
    run: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda _, text: told.append(text))
    for _ in range(2):  # made, and taken from the cache
        run({"rows": 500})
        assert [note for note in told if "rows fewer than requested" in note]
        told.clear()


def test_they_are_kept_and_made_anew_for_other_settings(
    run: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run({"rate": 0.3})
    calls: list[float] = []

    def note(*arguments: Any, **settings: Any) -> Any:
        calls.append(settings["rate"])
        return make_synonym_rows(*arguments, **settings)

    monkeypatch.setattr(synonyms, "make_synonym_rows", note)
    again = run({"rate": 0.3, "weight": 0.1})
    assert calls == []
    assert again.splits == first.splits
    assert again.report["extra"][0]["sha256"] == first.report["extra"][0]["sha256"]
    other = run({"rate": 1})
    assert calls == [1]
    assert other.report["extra"][0]["sha256"] != first.report["extra"][0]["sha256"]


def test_without_a_word_or_a_lexicon_nothing_is_trained(
    run: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "train.csv").write_text(
        "label,text\n" + "".join(f"{'ab'[n % 2]},NOTHING {THINGS[n % 10].upper()} {n}\n" for n in range(20))
    )
    with pytest.raises(DataError, match=r"no word of 16 training rows could be replaced"):
        run({}, source=str(plain), leaks="keep")
    monkeypatch.setattr(synonyms, "load_lexicon", load_lexicon)
    with pytest.raises(DataError, match="WordNet"):
        run({"lexicon": str(tmp_path / "nowhere")})


def test_settings_have_ranges() -> None:
    assert parse_config({"data": {"synonyms": {}}}, where="test").data.synonyms == SynonymConfig()
    for setting in ({"rate": 0}, {"copies": 0}, {"weight": -1}, {"tagger": "best"}):
        with pytest.raises(ConfigError, match=rf"data\.synonyms\.{next(iter(setting))}"):
            parse_config({"data": {"synonyms": setting}}, where="test")
    with pytest.raises(
        ConfigError, match=r"data\.synonyms: expected a section, with settings among copies, .*; got 1\n"
    ):
        parse_config({"data": {"synonyms": 1}}, where="test")
    with pytest.raises(ConfigError, match=r"data\.extra: expected a list, got 'rows\.jsonl'"):
        parse_config({"data": {"extra": "rows.jsonl"}}, where="test")
    with pytest.raises(ConfigError, match="did you mean 'copies'"):
        parse_config({"data": {"synonyms": {"copy": 1}}}, where="test")
