"""Synonym rows of data sets: they come only from training rows, keep labels, and do not depend on other records."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from submillion.cli import main
from submillion.data.read import read_dataset
from submillion.data.split import split_records
from submillion.data.synthetic import digest_text, read_rows
from submillion.errors import ConfigError, DataError
from submillion.wordnet.lexicon import Lexicon
from submillion.wordnet.synonym_rows import write_synonym_rows

TEXTS = {
    "Film": ("The movies of the nation {n} were quickly purchased.", "Shareholders liked the movies number {n}."),
    "Cars": ("Automobiles number {n} were quickly purchased by the nation.", "The nation bought automobiles {n}."),
}


@pytest.fixture(autouse=True)
def _quick(lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the lexicon that is loaded, since loading takes seconds."""
    monkeypatch.setattr("submillion.wordnet.synonym_rows.load_lexicon", lambda _: lexicon)


def write_data(path: Path, count: int = 40, *, backwards: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(f"id{n}", list(TEXTS)[n % 4 == 3], n) for n in range(count)]  # three of four are films
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "text"))
        for record_id, label, n in reversed(rows) if backwards else rows:
            writer.writerow((record_id, label, TEXTS[label][n % 2].format(n=n)))
    return path


def test_rows_say_what_they_came_from(tmp_path: Path, lexicon: Lexicon) -> None:
    data = write_data(tmp_path / "news" / "train.csv")
    write_data(tmp_path / "news" / "test.csv", 4)
    summary = write_synonym_rows(str(data.parent), tmp_path / "out.jsonl", copies=2, seed=5)
    rows = read_rows(tmp_path / "out.jsonl")
    with data.open(newline="") as file:
        sources = {record["id"]: record for record in csv.DictReader(file)}
    assert {row.provenance["source_id"] for row in rows} == set(sources)
    assert len({(row.provenance["source_id"], row.text) for row in rows}) == len(rows) == summary.num_rows > 60
    for row in rows:
        source = sources[row.provenance["source_id"]]
        assert row.label == source["label"]
        assert row.provenance["method"] == "synonyms"
        assert row.provenance["seed"] == 5
        assert row.provenance["source_place"].startswith("train.csv:")
        assert row.provenance["source_sha256"] == digest_text(source["text"])
        assert row.provenance["settings_sha256"] == summary.settings_sha256
        old, new = source["text"].split(), row.text.split()
        changed = [[a.strip("."), b.strip(".")] for a, b in zip(old, new, strict=True) if a != b]
        # Sentence starts are capitals, which are left alone.
        assert changed == row.provenance["words"] != []
    assert summary.class_counts == {
        "Cars": sum(r.label == "Cars" for r in rows),
        "Film": sum(r.label == "Film" for r in rows),
    }
    assert summary.num_records == 40
    assert summary.num_words == sum(len(row.provenance["words"]) for row in rows)
    assert summary.lexicon == {"place": lexicon.place, "version": "3.0", "sha256": lexicon.sha256}


def test_a_record_gets_the_same_rows_wherever_it_stands(tmp_path: Path) -> None:
    def texts(name: str, **settings: Any) -> dict[str, list[str]]:
        out = tmp_path / f"{name}.jsonl"
        write_synonym_rows(str(write_data(tmp_path / f"{name}.csv", **settings)), out, copies=2)
        found: dict[str, list[str]] = {}
        for row in read_rows(out):
            found.setdefault(row.provenance["source_id"], []).append(row.text)
        return found

    whole = texts("whole")
    assert texts("backwards", backwards=True) == whole
    part = texts("part", count=9)
    assert part == {key: whole[key] for key in part}


def test_wanted_rows_are_shared_out_by_class(tmp_path: Path) -> None:
    data = str(write_data(tmp_path / "train.csv"))
    summary = write_synonym_rows(data, tmp_path / "a.jsonl", rows=20)
    assert summary.class_counts == {"Cars": 5, "Film": 15}
    assert (summary.num_rows, summary.num_missing) == (20, 0)
    other = write_synonym_rows(data, tmp_path / "b.jsonl", rows=20, seed=1)
    ids = [{row.provenance["source_id"] for row in read_rows(tmp_path / name)} for name in ("a.jsonl", "b.jsonl")]
    assert ids[0] != ids[1]
    # Rows of other settings can be trained on together.
    names = [{row.id for row in read_rows(tmp_path / name)} for name in ("a.jsonl", "b.jsonl")]
    assert names[0].isdisjoint(names[1])
    assert other.num_rows == 20
    short = write_synonym_rows(data, tmp_path / "c.jsonl", rows=60, copies=1)
    assert (short.num_rows, short.num_missing) == (40, 20)


def test_rows_are_chosen_without_regard_to_what_will_be_held_out(tmp_path: Path) -> None:
    data = str(write_data(tmp_path / "train.csv", 400))
    write_synonym_rows(data, tmp_path / "a.jsonl", rows=100)
    chosen = {row.provenance["source_id"] for row in read_rows(tmp_path / "a.jsonl")}
    _, held_out = split_records(read_dataset(data).splits["all"], 100, seed=0)
    # About a quarter of the 100 chosen rows is among the held-out ones: 25, plus or minus 4.
    assert 12 < len(chosen & {record.id for record in held_out}) < 38


def test_refusals(tmp_path: Path) -> None:
    data = str(write_data(tmp_path / "train.csv"))
    with pytest.raises(ConfigError, match=r"copies must.*\n.*rate must.*\n.*rows must"):
        write_synonym_rows(data, tmp_path / "x.jsonl", copies=0, rate=1.5, rows=0)
    with pytest.raises(ConfigError, match="1 rows cannot hold 2 classes"):
        write_synonym_rows(data, tmp_path / "x.jsonl", rows=1)
    (tmp_path / "there.jsonl").touch()
    with pytest.raises(ConfigError, match="exists already"):
        write_synonym_rows(data, tmp_path / "there.jsonl")
    (tmp_path / "texts.txt").write_text("The nation purchased it.\n")
    with pytest.raises(DataError, match="no label column"):
        write_synonym_rows(str(tmp_path / "texts.txt"), tmp_path / "x.jsonl")
    (tmp_path / "capitals.csv").write_text("label,text\na,NATION\nb,NATION NATION\n")
    with pytest.raises(DataError, match="no word of 2 records"):
        write_synonym_rows(str(tmp_path / "capitals.csv"), tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


def test_the_command_tells_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_data(tmp_path / "train.csv"))
    out = tmp_path / "rows.jsonl"
    words = ["augment", "synonyms", data, "--rows", "12", "--rate", "1", "--seed", "3"]
    assert main([*words, "--out", str(out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_rows"], figures["out"], figures["class_counts"]) == (12, str(out), {"Cars": 3, "Film": 9})
    assert len(read_rows(out)) == 12
    assert main([*words, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "again.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "12 rows" in shown
    assert shown.endswith(f"{tmp_path / 'again.jsonl'}\n")
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()
    assert main(["augment", "synonyms", "nowhere.csv", "--out", str(tmp_path / "no.jsonl")]) == 3
