"""Records, findings and token ids of a run: the same from the files and from the cache."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from submillion.config.run import RunConfig, parse_config
from submillion.data.read import read_dataset
from submillion.encoding.text_encoder import TextEncoder
from submillion.errors import ConfigError, DataError
from submillion.pipeline import cached_data, choose_rows, prepare
from submillion.pipeline.prepare import Prepared, prepare_data
from submillion.progress import Silent

Base = Callable[[str], Path]


class Notes(Silent):
    """Progress that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Turn the cache on in a new folder, and return the folder."""
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def news(tmp_path: Path, news_rows: Callable[..., Path]) -> Path:
    folder = tmp_path / "news"
    news_rows(folder / "train.csv", 96)
    news_rows(folder / "test.csv", 24, start=80)  # shares rows with the training file
    with (folder / "train.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(("Sports", "Caf&amp;eacute; &#39;1&#39;\N{SNOWMAN}", "a\u0301 b\\c " + "long " * 80))
    return folder


def make_config(source: Path, **data: Any) -> RunConfig:
    values = {"data": {"source": str(source), **data}, "model": {"max_length": 32}}
    return parse_config(values, where="test")


def run(tiny_base: Base, config: RunConfig, progress: Silent | None = None) -> Prepared:
    assert isinstance(config.model.max_length, int)
    encoder = TextEncoder(tiny_base("bert"), config.model.max_length)
    return prepare_data(config, encoder=encoder, progress=progress or Silent())


def spell_out(prepared: Prepared) -> Any:
    splits, watched = prepared.splits, prepared.watched
    return {
        "records": {
            name: [astuple(record) for record in rows]
            for name, rows in {
                "train": splits.train,
                "validation": splits.validation,
                "test": splits.test,
                **watched,
            }.items()
        },
        "labels": splits.labels,
        "report": json.dumps(prepared.report),
        "features": {
            name: [(f.id, f.input_ids.dtype, f.input_ids.tolist(), f.label, f.truncated, f.key) for f in items]
            for name, items in prepared.features.items()
        },
    }


@pytest.mark.parametrize("single", [False, True])
def test_runs_with_and_without_the_cache_see_the_same(
    tiny_base: Base, news: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, single: bool
) -> None:
    config = make_config(news / "train.csv" if single else news)
    monkeypatch.setenv("SUBMILLION_CACHE", "off")
    expected = spell_out(run(tiny_base, config))
    assert not kept.exists()
    monkeypatch.setenv("SUBMILLION_CACHE", str(kept.parent))
    assert spell_out(run(tiny_base, config)) == expected
    assert {path.name.partition("-")[0] for path in kept.iterdir()} == {"rows", "texts", "findings", "tokens"}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("was computed again")

    monkeypatch.setattr(cached_data, "read_dataset", refuse)
    monkeypatch.setattr(prepare, "check_records", refuse)
    monkeypatch.setattr(choose_rows, "find_similar_texts", refuse)
    monkeypatch.setattr(TextEncoder, "tokenise", refuse)
    assert spell_out(run(tiny_base, config)) == expected
    assert json.loads(expected["report"])["num_dropped_leaks"] > 0 or single


def test_features_belong_to_the_records_beside_them(tiny_base: Base, news: Path) -> None:
    prepared = run(tiny_base, make_config(news))
    encoder = TextEncoder(tiny_base("bert"), 32)
    sets = {"train": prepared.splits.train, "validation": prepared.splits.validation, "test": prepared.splits.test}
    for name, rows in sets.items():
        assert [item.id for item in prepared.features[name]] == [record.id for record in rows]
        for item, expected in zip(prepared.features[name], encoder.encode(rows), strict=True):
            assert item.input_ids.tolist() == expected.input_ids.tolist()
            assert (item.label, item.truncated, item.key) == (expected.label, expected.truncated, expected.key)
    assert prepared.report["num_dropped_leaks"] == 97 - len(sets["train"]) - len(sets["validation"])
    assert prepared.report["num_dropped_leaks"] > 0
    # Leaks are dropped from the training rows only after these were counted.
    too_long = prepared.report["check"]["splits"]["test"]["too_long"]["num_records"]
    assert too_long == sum(item.truncated for item in prepared.features["test"]) >= 1


def replace_in(path: Path, old: str, new: str) -> dict[str, Any]:
    """Replace a text in a file, and return no settings."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return {}


def name_classes(folder: Path) -> dict[str, Any]:
    (folder / "classes.txt").write_text("Sports\nWorld\nBusiness\nSci/Tech\n")
    return {}


CHANGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "a row": lambda folder: replace_in(folder / "train.csv", "truce", "peace"),
    "a label": lambda folder: replace_in(folder / "train.csv", "Sports", "Business"),
    "a test row": lambda folder: replace_in(folder / "test.csv", " on ", " in "),
    "class names": name_classes,
    "labels": lambda _: {"labels": ["Sports", "World", "Business", "Sci/Tech"]},
    "columns": lambda _: {"text": ["title"]},
    "cleaning": lambda _: {"clean": {"entities": True}},
    "split seed": lambda _: {"split_seed": 5},
    "validation size": lambda _: {"validation_size": 0.3},
    "number of rows": lambda _: {"max_records": 20},
    "leaks": lambda _: {"leaks": "keep"},
    "words": lambda _: {"max_words": 40},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("kept")
def test_any_change_shows(
    tiny_base: Base, news: Path, monkeypatch: pytest.MonkeyPatch, kept: Path, change: str
) -> None:
    before = spell_out(run(tiny_base, make_config(news)))
    config = make_config(news, **CHANGES[change](news))
    after = spell_out(run(tiny_base, config))
    monkeypatch.setenv("SUBMILLION_CACHE", "off")
    assert after == spell_out(run(tiny_base, config))
    assert after != before


def test_the_same_rows_elsewhere_are_the_same_rows(tiny_base: Base, news: Path, kept: Path) -> None:
    run(tiny_base, make_config(news))
    files = sorted(kept.iterdir())
    copy = news.with_name("copy")
    shutil.copytree(news, copy)
    assert run(tiny_base, make_config(copy)).report["source"] == str(copy)
    assert sorted(kept.iterdir()) == files


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tiny_base: Base, news: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_change(*arguments: Any, **settings: Any) -> Any:
        dataset = read_dataset(*arguments, **settings)
        replace_in(news / "train.csv", "truce", "peace")
        return dataset

    monkeypatch.setattr(cached_data, "read_dataset", read_and_change)
    run(tiny_base, make_config(news))
    assert {path.name.partition("-")[0] for path in kept.iterdir()} == {"tokens"}


def test_damaged_files_of_the_cache_cost_a_note_each(tiny_base: Base, news: Path, kept: Path) -> None:
    config = make_config(news)
    expected = spell_out(run(tiny_base, config))
    files = sorted(kept.iterdir())
    for path in files:
        data = bytearray(path.read_bytes())
        data[-3] ^= 4
        path.write_bytes(data)
    progress = Notes()
    assert spell_out(run(tiny_base, config, progress)) == expected
    assert sum("made again" in note for note in progress.notes) == len(files)
    again = Notes()
    assert spell_out(run(tiny_base, config, again)) == expected
    # The remarks on the data are repeated when its rows come from the cache.
    assert again.notes == [note for note in progress.notes if "made again" not in note] != []


@pytest.mark.usefixtures("kept")
def test_refused_leaks_are_refused_from_the_cache_too(tiny_base: Base, news: Path) -> None:
    run(tiny_base, make_config(news))
    for _ in range(2):
        with pytest.raises(DataError, match="training rows appear in validation or test"):
            run(tiny_base, make_config(news, leaks="refuse"))


@pytest.mark.usefixtures("kept")
def test_a_source_that_is_not_there_is_named(tiny_base: Base, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        run(tiny_base, make_config(tmp_path / "none.csv"))


def test_rows_are_left_out_of_training_by_their_words_alone(tiny_base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    for name, counts in {"train": (1, 2, 3, 4, 5, 6), "validation": (1, 9), "test": (1, 9)}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = ((name[:2] + f" w{count}" * (count - 1), count % 2) for count in counts)
            csv.writer(file).writerows([("text", "label"), *rows])
    kept: dict[str, Any] = {"leaks": "keep"}
    prepared = run(tiny_base, make_config(folder, min_words=2, max_words=4, **kept))
    splits, report = prepared.splits, prepared.report
    assert [len(row.text.split()) for row in splits.train] == [2, 3, 4]
    assert [item.id for item in prepared.features["train"]] == [row.id for row in splits.train]
    assert (len(splits.validation), len(splits.test)) == (2, 2)
    assert (report["num_train"], report["num_dropped_short"], report["num_dropped_long"]) == (3, 1, 2)
    assert report["check"]["splits"]["train"]["num_records"] == 3
    assert run(tiny_base, make_config(folder, max_words=4, **kept)).report["num_dropped_short"] == 0
    with pytest.raises(DataError, match="none of 6 training rows has 7 or more words") as caught:
        run(tiny_base, make_config(folder, min_words=7, **kept))
    assert "They have 1 to 6" in caught.value.hint
    with pytest.raises(ConfigError, match="min_words 5 is above max_words 4"):
        make_config(folder, min_words=5, max_words=4)


@pytest.mark.usefixtures("kept")
def test_a_rule_chooses_the_length_from_the_training_rows_alone(tiny_base: Base, news: Path) -> None:
    values = {"data": {"source": str(news), "leaks": "keep"}, "model": {"max_length": "p50"}}
    progress = Notes()
    for window in (64, 16):
        config = parse_config(values, where="test")
        encoder = TextEncoder(tiny_base("bert"), window)
        prepared = prepare_data(config, encoder=encoder, progress=progress, window=window)
        assert prepared.length is not None
        lengths = TextEncoder(tiny_base("bert"), 9999).count_tokens([row.text for row in prepared.splits.train]).lengths
        limit = min(window, int(np.percentile(lengths, 50, method="inverted_cdf")))
        assert prepared.length.max_length == prepared.encoder.max_length == limit
        assert prepared.length.num_cut == sum(item.truncated for item in prepared.features["train"]) > 0
        assert max(len(item) for items in prepared.features.values() for item in items) == limit
        assert any(f"model.max_length=p50: {limit} tokens" in note for note in progress.notes)
