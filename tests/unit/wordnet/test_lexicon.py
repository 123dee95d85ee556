"""WordNet as it is installed: looked up rightly, found in every place, and missed with both ways to get it."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from submillion.errors import ConfigError, DataError
from submillion.wordnet.inflect import Form, find_form, inflect, takes_an
from submillion.wordnet.lexicon import Lexicon, Pos, load_lexicon
from submillion.wordnet.synonyms import find_main_sense


def test_words_have_their_base_forms(lexicon: Lexicon) -> None:
    assert lexicon.version == "3.0"
    assert lexicon.find_bases("geese", "n") == ("goose",)
    assert lexicon.find_bases("companies", "n") == ("company",)
    assert lexicon.find_bases("stopping", "v") == ("stop",)
    assert set(lexicon.find_bases("found", "v")) == {"found", "find"}
    assert lexicon.find_bases("xylograph", "v") == ()
    assert "stopping" in lexicon.list_irregular("stop", "v")
    assert "prime_minister" in lexicon.phrases
    assert "minister" not in lexicon.phrases


def test_senses_come_by_frequency_with_their_synonyms(lexicon: Lexicon) -> None:
    senses = lexicon.list_senses("car", "n")
    assert senses[0].uses == 71
    assert dict(senses[0].synonyms) == {"auto": 2, "automobile": 15, "machine": 0, "motorcar": 1}
    assert [sense.uses for sense in senses] == sorted((sense.uses for sense in senses), reverse=True)
    assert lexicon.count_uses("car", "n") == sum(sense.uses for sense in senses)
    main = find_main_sense(senses, 0.5)
    assert main is not None
    assert main.key == senses[0].key
    # `run` has no dominant sense, and an empty list has none.
    assert find_main_sense(lexicon.list_senses("run", "v"), 0.5) is None
    assert find_main_sense((), 0.5) is None
    # Adjectives that go with another one are adjectives.
    assert lexicon.list_senses("enormous", "a")
    assert lexicon.list_senses("give", "v")[0].frames


def copy_database(lexicon: Lexicon, folder: Path) -> Path:
    place = Path(lexicon.place)
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as archive:
            archive.extractall(folder)
        return folder / "wordnet"
    shutil.copytree(place, folder / "wordnet")
    for name in ("lexnames", "index.sense"):  # what Debian's package has not
        (folder / "wordnet" / name).unlink(missing_ok=True)
    return folder / "wordnet"


def test_it_is_found_in_a_folder_and_in_a_download(
    lexicon: Lexicon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_database(lexicon, tmp_path / "corpora")
    given = load_lexicon(folder)
    assert (given.sha256, given.place) == (lexicon.sha256, str(folder))
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    assert load_lexicon().place == str(folder)
    # nltk leaves its download packed.
    archive = tmp_path / "corpora" / "wordnet.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in folder.iterdir():
            packed.write(file, f"wordnet/{file.name}")
    shutil.rmtree(folder)
    assert (load_lexicon().sha256, load_lexicon().place) == (lexicon.sha256, str(archive))


def test_where_there_is_none_both_ways_are_told(
    lexicon: Lexicon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    monkeypatch.setattr("submillion.wordnet.lexicon.DEBIAN_FOLDER", tmp_path / "debian")
    with pytest.raises(DataError, match="there is no WordNet lexicon") as caught:
        load_lexicon()
    assert "python -m nltk.downloader wordnet" in caught.value.hint
    assert "apt-get install wordnet-base" in caught.value.hint
    assert str(tmp_path / "debian") in caught.value.message
    folder = copy_database(lexicon, tmp_path / "copy")
    (folder / "data.verb").unlink()
    with pytest.raises(DataError, match=r"data\.verb is missing"):
        load_lexicon(folder)
    (folder / "data.verb").write_bytes(b"")
    (folder / "index.noun").write_text("dog n one 1 @ 1 1 02084071\n")
    with pytest.raises(DataError, match="damaged lexicon"):
        load_lexicon(folder)
    monkeypatch.setitem(sys.modules, "nltk.data", None)
    with pytest.raises(ConfigError, match="nltk is not installed"):
        load_lexicon()


FORMS = [
    ("n", "company", "plural", "companies"),
    ("n", "box", "plural", "boxes"),
    ("n", "goose", "plural", "geese"),
    ("n", "information", "plural", None),
    ("n", "photo", "plural", None),  # words in -o go either way
    ("n", "dwelling", "plural", None),
    ("v", "try", "s", "tries"),
    ("v", "veto", "s", "vetoes"),
    ("v", "stop", "past", "stopped"),
    ("v", "buy", "past", "bought"),
    ("v", "agree", "past", "agreed"),
    ("v", "take", "past", None),  # took or taken
    ("v", "cut", "past", None),
    ("v", "die", "ing", "dying"),
    ("v", "see", "ing", "seeing"),
    ("v", "refer", "ing", "referring"),
    ("v", "make", "ing", "making"),
]


@pytest.mark.parametrize(("pos", "base", "form", "word"), FORMS)
def test_forms_are_made_and_known_again(lexicon: Lexicon, pos: Pos, base: str, form: Form, word: str | None) -> None:
    irregular = lexicon.list_irregular(base, pos)
    assert inflect(base, form, irregular) == word
    if word is not None:
        assert find_form(word, base, irregular, is_verb=pos == "v") == form


def test_either_irregular_past_is_known_as_past(lexicon: Lexicon) -> None:
    irregular = lexicon.list_irregular("take", "v")
    assert [
        find_form(word, "take", irregular, is_verb=True) for word in ("took", "taken", "taking", "takes", "take")
    ] == [*("past", "past", "ing", "s", "base")]
    assert find_form("cut", "cut", lexicon.list_irregular("cut", "v"), is_verb=True) is None


def test_articles_follow_sounds() -> None:
    assert [
        word
        for word in ("effort", "honest", "hour", "attempt", "unit", "European", "one", "umbrella")
        if takes_an(word)
    ] == [*("effort", "honest", "hour", "attempt", "umbrella")]
