"""WordNet, read with nltk from its database files: words, their parts of speech, senses by frequency and synonyms.

The source is G. A. Miller, "WordNet: a lexical database for English", Communications of the ACM 38 (1995). Frequencies
are those of WordNet's own tagged texts (``cntlist.rev``). Only this module and the tagger import nltk.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from submillion.errors import ConfigError, DataError

Pos = Literal["n", "v", "a", "r"]
POS: tuple[Pos, ...] = ("n", "v", "a", "r")
POS_NAMES: dict[Pos, str] = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}

DEBIAN_FOLDER = Path("/usr/share/wordnet")
"""Folder of the database in Debian's package wordnet-base."""

_FILES = tuple(f"{kind}.{name}" for kind in ("data", "index") for name in POS_NAMES.values())
_EXCEPTIONS = tuple(f"{name}.exc" for name in POS_NAMES.values())
_COUNTS = "cntlist.rev"

# The numbers of the lexicographer files are part of the format (manual page lexnames(5WN)): files 0, 1 and 44 hold
# adjectives, 2 adverbs, 3 to 28 nouns and 29 to 43 verbs. nltk reads them from a file that Debian leaves out.
_NUMBER_OF = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
_LEXNAMES = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute"),
    *("noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group"),
    *("noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant"),
    *("noun.possession", "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state"),
    *("noun.substance", "noun.time", "verb.body", "verb.change", "verb.cognition", "verb.communication"),
    *("verb.competition", "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl"),
)


@dataclass(frozen=True)
class Sense:
    """One sense of a word.

    Attributes:
        uses: Number of uses of the word in this sense in WordNet's tagged texts.
        synonyms: Other words of the sense, with their uses in it, in WordNet's order.
        frames: Numbers of the sentence frames that a verb has in this sense.
        key: Number of the sense in the database.
    """

    uses: int
    synonyms: tuple[tuple[str, int], ...]
    frames: frozenset[int]
    key: int


class Lexicon:
    """A WordNet database in memory.

    Args:
        files: Bytes of the database's files, by name.
        place: Source of the files, for messages and provenance.

    Attributes:
        sha256: Digest of index, data, exceptions and frequencies.
        version: Version from the database, such as ``3.0``.
        phrases: Entries of several words, joined by underscores, of all parts of speech.
        find_bases: Function that returns every base form of a word as a part of speech: the word, irregular base forms,
            or those found by its ending.
        list_senses: Function that returns the senses of a base form as a part of speech, the most frequent one first.
    """

    def __init__(self, files: dict[str, bytes], place: str) -> None:
        self.place = place
        digest = hashlib.sha256()
        for name in (*_FILES, *_EXCEPTIONS, _COUNTS):
            digest.update(hashlib.sha256(files[name]).digest())
        self.sha256 = digest.hexdigest()
        self._reader = _open_reader(files, place)
        self.version = str(self._reader.get_version())
        self._base_forms: dict[Pos, dict[str, list[str]]] = {}
        self._irregular: dict[Pos, dict[str, list[str]]] = {}
        for pos, name in POS_NAMES.items():
            lines = [line.split() for line in files[f"{name}.exc"].decode("utf-8").splitlines()]
            self._base_forms[pos] = {form: bases for form, *bases in lines}
            inverted: dict[str, list[str]] = defaultdict(list)
            for form, *bases in lines:
                for base in bases:
                    inverted[base].append(form)
            self._irregular[pos] = dict(inverted)
        self.find_bases: Callable[[str, Pos], tuple[str, ...]] = lru_cache(maxsize=None)(self._find_bases)
        self.list_senses: Callable[[str, Pos], tuple[Sense, ...]] = lru_cache(maxsize=None)(self._list_senses)
        indices = [files[f"index.{name}"].decode("utf-8").splitlines() for name in POS_NAMES.values()]
        self.phrases = frozenset(
            entry for lines in indices for line in lines if "_" in (entry := line.partition(" ")[0])
        )

    def list_irregular(self, base: str, pos: Pos) -> list[str]:
        """Return the irregular forms of a base form, in the order of the database."""
        return self._irregular[pos].get(base, [])

    def count_uses(self, base: str, pos: Pos) -> int:
        """Return the number of uses of a base form as a part of speech in the tagged texts."""
        return sum(sense.uses for sense in self.list_senses(base, pos))

    def _find_bases(self, word: str, pos: Pos) -> tuple[str, ...]:
        bases = self._base_forms[pos].get(word)
        if bases is None:
            endings = self._reader.MORPHOLOGICAL_SUBSTITUTIONS[pos]
            bases = [word[: -len(old)] + new for old, new in endings if word.endswith(old)]
        return tuple(base for base in dict.fromkeys([word, *bases]) if self.list_senses(base, pos))

    def _list_senses(self, base: str, pos: Pos) -> tuple[Sense, ...]:
        senses = []
        for synset in self._reader.synsets(base, pos, check_exceptions=False):
            lemmas = {lemma.name().lower(): lemma for lemma in synset.lemmas()}
            if base not in lemmas:  # it was found by its ending
                continue
            others = tuple(
                (lemma.name(), int(lemma.count()))
                for lemma in synset.lemmas()
                if lemma.name().lower() != base and lemma.syntactic_marker() is None
            )
            own = lemmas[base]
            frames = frozenset((*own.frame_ids(), *synset.frame_ids()))
            senses.append(Sense(int(own.count()), others, frames, int(synset.offset())))
        return tuple(senses)


def load_lexicon(folder: Path | None = None) -> Lexicon:
    """Load WordNet from a folder, from nltk's download or from Debian's package; the first that exists is taken.

    Args:
        folder: Folder with ``data.noun``, ``index.noun`` and so on; if given, no other place is tried.

    Raises:
        ConfigError: nltk is not installed.
        DataError: There is no lexicon, or it is damaged.
    """
    try:
        from nltk.corpus.reader.wordnet import WordNetError
        from nltk.data import path as downloads
    except ImportError:
        raise ConfigError(
            "the package nltk is not installed", where="augment", hint='Install it: pip install "submillion[augment]"'
        ) from None
    tried = []
    for place in [folder] if folder is not None else _list_places(downloads):
        files = _read_files(place)
        if not isinstance(files, str):
            try:
                return Lexicon(files, str(place))
            except (WordNetError, ValueError, LookupError, AssertionError, StopIteration) as error:
                raise DataError(f"is a damaged lexicon: {error}", where=str(place), hint=_HINT) from None
        tried.append(f"{place}: {files}")
    raise DataError("there is no WordNet lexicon\n" + "\n".join(tried), where="WordNet", hint=_HINT)


_HINT = (
    "Fetch it with `python -m nltk.downloader wordnet`, or install Debian's package with `apt-get install "
    "wordnet-base`; --lexicon DIR or data.synonyms.lexicon names a folder elsewhere."
)


def _list_places(downloads: list[str]) -> Iterator[Path]:
    for folder in downloads:
        yield from (Path(folder, "corpora", "wordnet"), Path(folder, "corpora", "wordnet.zip"))
    yield DEBIAN_FOLDER


def _read_files(place: Path) -> dict[str, bytes] | str:
    """Return the database's files by name, or a description of what is missing."""
    wanted = (*_FILES, *_EXCEPTIONS, _COUNTS)
    try:
        if place.suffix == ".zip" and place.is_file():
            with zipfile.ZipFile(place) as archive:
                return {name: archive.read(f"wordnet/{name}") for name in wanted}
        if not place.is_dir():
            return "no such folder" if place.suffix != ".zip" else "no such file"
        return {name: (place / name).read_bytes() for name in wanted}
    except KeyError as error:
        return str(error.args[0])
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, zipfile.BadZipFile) as error:
        return f"cannot be read: {error}"


def _open_reader(files: dict[str, bytes], place: str) -> Any:
    """Return nltk's reader over files in memory."""
    from nltk.corpus.reader.wordnet import WordNetCorpusReader
    from nltk.data import PathPointer, SeekableUnicodeStreamReader

    class Root(PathPointer):  # type: ignore[misc]  # nltk has no types
        """Replaces the folder that nltk requires; it is never used, since every file comes from `Reader.open`."""

        path = place

        def open(self, encoding: str | None = None) -> Any:
            raise NotImplementedError

        def file_size(self) -> int:
            raise NotImplementedError

        def join(self, fileid: str) -> Any:
            raise NotImplementedError

    class Reader(WordNetCorpusReader):  # type: ignore[misc]  # nltk has no types
        """The database, without the files that only translations and sense keys need."""

        def open(self, file: str) -> Any:
            """Open a file of the database."""
            if file == "lexnames":
                lines = (f"{n:02d}\t{name}\t{_NUMBER_OF[name.partition('.')[0]]}\n" for n, name in enumerate(_LEXNAMES))
                return io.StringIO("".join(lines))
            if file == _COUNTS:  # nltk searches it with a method that only its own streams have
                return SeekableUnicodeStreamReader(io.BytesIO(files[file]), "utf-8")
            return io.TextIOWrapper(io.BytesIO(files[file]), encoding="utf-8")

        def map_wn(self, version: str = "wordnet") -> None:
            """Do nothing, since other languages' wordnets, and the index.sense that maps them, are not used."""

    return Reader(Root(), object())
