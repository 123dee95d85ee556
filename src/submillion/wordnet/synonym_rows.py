"""Synonym rows of a whole data set: the choice of their records, their ids, and counts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from submillion import __version__
from submillion.config.run import CleanConfig
from submillion.data.clean import clean_records
from submillion.data.columns import Columns
from submillion.data.read import Dataset, read_dataset
from submillion.data.split import share_out
from submillion.data.synthetic import SyntheticRow, describe_origin, digest_settings, write_rows
from submillion.errors import ConfigError, DataError
from submillion.progress import Progress, Silent
from submillion.records import LabelSet, Record
from submillion.wordnet.lexicon import Lexicon, load_lexicon
from submillion.wordnet.parts_of_speech import MIN_SHARE
from submillion.wordnet.synonyms import SynonymFinder, open_random, vary_text
from submillion.wordnet.tagger import open_tagger

METHOD = "synonyms"

Tagger = Literal["context", "nltk"]


@dataclass(frozen=True)
class SynonymSummary:
    """The result of making synonym rows.

    Attributes:
        out: File of the rows.
        num_rows: Number of rows in the file.
        num_records: Number of records examined.
        num_unchanged: Number of records in which no word could be replaced.
        num_missing: Number of wanted rows that could not be made.
        num_words: Number of words replaced, over all rows.
        class_counts: Number of rows by class.
        lexicon: Source, version and digest of the lexicon.
        settings_sha256: Digest of everything that the rows depend on, as in their provenance.
    """

    out: Path
    num_rows: int
    num_records: int
    num_unchanged: int
    num_missing: int
    num_words: int
    class_counts: dict[str, int]
    lexicon: dict[str, str]
    settings_sha256: str

    def to_json(self) -> dict[str, object]:
        """Return the object of ``augment synonyms --json``."""
        return asdict(self) | {"out": str(self.out)}


@dataclass(frozen=True)
class MadeRows:
    """Synonym rows before they are written or trained on.

    Attributes:
        rows: Rows in the order of their records.
        num_records: Number of records examined.
        num_unchanged: Number of records in which no word could be replaced.
        settings_sha256: Digest of everything that the rows depend on, as in their provenance.
    """

    rows: list[SyntheticRow]
    num_records: int
    num_unchanged: int
    settings_sha256: str


def write_synonym_rows(
    data: str,
    out: Path,
    *,
    copies: int = 1,
    rate: float = 0.5,
    rows: int | None = None,
    seed: int = 0,
    lexicon: Path | None = None,
    tagger: Tagger = "context",
    columns: Columns = Columns(),  # noqa: B008  # frozen
    progress: Progress | None = None,
) -> SynonymSummary:
    """Write rows in which words of training rows are replaced by WordNet synonyms.

    From a folder, only training rows are taken, never validation or test rows. From a single file, all rows are taken.
    The rows of a record depend only on the seed, its id and its text.

    Args:
        data: Labelled file, folder or hub data set.
        out: File for the synthetic rows; it must not exist.
        copies: Most rows made from each record, all different.
        rate: Chance that a replaceable word is replaced, above 0 and at most 1; each row replaces at least one.
        rows: Number of rows wanted, in the classes' proportions; all that can be made if absent.
        seed: Seed for the choices.
        lexicon: Folder of a WordNet database; found if absent.
        tagger: ``context`` decides parts of speech by frequency and neighbouring words, ``nltk`` by nltk's tagger.
        columns: Columns to read.
        progress: Receiver of the stages.

    Raises:
        ConfigError: A setting is out of range, the file exists already, or nltk is not installed.
        DataError: The data has no labels, there is no lexicon, or no row could be made.
    """
    _check_settings(copies=copies, rate=rate, rows=rows, out=out)
    progress = progress or Silent()
    progress.start("lexicon")
    words = load_lexicon(lexicon)
    progress.finish()
    progress.start("read")
    dataset = read_dataset(data, columns)
    records, labels = _choose_training_rows(dataset, data)
    progress.finish()
    made = make_synonym_rows(
        records, dataset, words, copies=copies, rate=rate, rows=rows, seed=seed, tagger=tagger, progress=progress
    )
    if not made.rows:
        raise DataError(
            f"no word of {made.num_records:,} records could be replaced",
            where=data,
            hint="The lexicon is English, and words in capitals are never replaced.",
        )
    write_rows(out, made.rows)
    num_missing = 0 if rows is None else rows - len(made.rows)
    return _summarise(out, made, words, labels, num_missing)


def _summarise(out: Path, made: MadeRows, words: Lexicon, labels: LabelSet, num_missing: int) -> SynonymSummary:
    return SynonymSummary(
        out=out,
        num_rows=len(made.rows),
        num_records=made.num_records,
        num_unchanged=made.num_unchanged,
        num_missing=num_missing,
        num_words=sum(len(row.provenance["words"]) for row in made.rows),
        class_counts={name: sum(row.label == name for row in made.rows) for name in labels},
        lexicon={"place": words.place, "version": words.version, "sha256": words.sha256},
        settings_sha256=made.settings_sha256,
    )


def make_synonym_rows(
    records: Sequence[Record],
    dataset: Dataset,
    lexicon: Lexicon,
    *,
    copies: int,
    rate: float,
    rows: int | None,
    seed: int,
    tagger: Tagger,
    progress: Progress,
) -> MadeRows:
    """Make rows in which words of records are replaced by WordNet synonyms.

    The rows of a record depend only on the settings, its id and its text.

    Args:
        records: Labelled and cleaned records.
        dataset: Data set of the records; its files and columns are part of the rows' provenance.
        lexicon: WordNet database.
        copies: Most rows made from each record, all different.
        rate: Chance that a replaceable word is replaced, above 0 and at most 1; each row replaces at least one.
        rows: Number of rows wanted, in the classes' proportions; all that can be made if None.
        seed: Seed for the choices.
        tagger: Method that decides parts of speech.
        progress: Receiver of the number of rows.

    Raises:
        ConfigError: There would be fewer rows than classes, or the tagger is not installed.
    """
    assert dataset.labels is not None
    finder = SynonymFinder(lexicon, None if tagger == "context" else open_tagger(lexicon))
    settings = {
        "copies": copies,
        "rate": rate,
        "tagger": tagger,
        "min_share": MIN_SHARE,
        "lexicon_sha256": lexicon.sha256,
        "files": dataset.files,
        "columns": list(dataset.column_names),
        "version": __version__,
    }
    maker = _Maker(finder, dataset.labels, settings, copies=copies, rate=rate, seed=seed)
    progress.start(METHOD, len(records) * copies if rows is None else rows)
    made = _make_rows(maker, records, rows, progress)
    progress.finish()
    return MadeRows(made, maker.num_records, maker.num_unchanged, digest_settings(settings))


def _check_settings(*, copies: int, rate: float, rows: int | None, out: Path) -> None:
    problems = []
    if copies < 1:
        problems.append(f"copies must be at least 1, got {copies}")
    if not 0 < rate <= 1:
        problems.append(f"rate must be above 0 and at most 1, got {rate}")
    if rows is not None and rows < 1:
        problems.append(f"rows must be at least 1, got {rows}")
    if out.exists():
        problems.append(f"{out} exists already")
    if problems:
        raise ConfigError("\n".join(problems), where="augment synonyms", hint="Correct the settings; name a new file.")


def _choose_training_rows(dataset: Dataset, data: str) -> tuple[list[Record], LabelSet]:
    if dataset.labels is None:
        raise DataError("has no label column", where=data, hint="Name it with --label.")
    rows = dataset.splits.get("train", dataset.splits.get("all"))
    if rows is None:
        raise DataError(f"has no training rows, only {', '.join(dataset.splits)}", where=data)
    labelled = [row for row in rows if row.label is not None]
    return list(clean_records(labelled, CleanConfig())), dataset.labels


class _Maker:
    """Makes the rows of one record at a time, and counts them."""

    def __init__(
        self,
        finder: SynonymFinder,
        labels: LabelSet,
        settings: Mapping[str, object],
        *,
        copies: int,
        rate: float,
        seed: int,
    ) -> None:
        self._finder = finder
        self._labels = labels
        self._settings = settings
        self._copies = copies
        self._rate = rate
        self._seed = seed
        # Rows of other settings, seeds or data have other ids, so that all can be trained on together.
        self._prefix = digest_settings({**settings, "seed": seed})[:8]
        self.num_records = 0
        self.num_unchanged = 0

    def rank(self, record: Record) -> bytes:
        """Return a record's rank in its class, which decides if only some records are used.

        The digest differs from the one that chooses validation rows; otherwise the first rows would be those held out.
        """
        key = f"{METHOD}:{self._seed}:{record.id}"
        return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()

    def make(self, record: Record) -> list[SyntheticRow]:
        """Return a record's rows."""
        self.num_records += 1
        random = open_random(self._seed, record.id)
        changed = vary_text(record.text, self._finder, copies=self._copies, rate=self._rate, random=random)
        self.num_unchanged += not changed
        assert record.label is not None
        return [
            SyntheticRow(
                id=f"{METHOD}-{self._prefix}-{record.id}-{copy}",
                text=variant.text,
                label=self._labels.names[record.label],
                provenance=describe_origin(
                    METHOD, self._settings, seed=self._seed, source=record, words=[list(pair) for pair in variant.words]
                ),
            )
            for copy, variant in enumerate(changed, start=1)
        ]


def _make_rows(maker: _Maker, records: Sequence[Record], rows: int | None, progress: Progress) -> list[SyntheticRow]:
    """Return the rows in the order of their records."""
    if rows is None:
        return list(_make_all(maker, records, progress))
    groups: dict[int, list[tuple[bytes, int]]] = defaultdict(list)
    for place, record in enumerate(records):
        groups[record.label or 0].append((maker.rank(record), place))
    if not len(groups) <= rows:
        raise ConfigError(f"{rows} rows cannot hold {len(groups)} classes", where="rows of synonyms")
    sizes = {label: len(group) for label, group in groups.items()}
    # A record may have to give more than one row.
    factor = -(-rows // len(records))
    quotas = share_out({label: size * factor for label, size in sizes.items()}, rows, 0)
    made: dict[int, list[SyntheticRow]] = {}
    num_made = 0
    for label, group in groups.items():
        left = quotas[label]
        for _, place in sorted(group):
            if left == 0:
                break
            found = maker.make(records[place])[:left]
            if found:
                made[place] = found
                left -= len(found)
                num_made += len(found)
                progress.advance(num_made)
    return [row for place in sorted(made) for row in made[place]]


def _make_all(maker: _Maker, records: Sequence[Record], progress: Progress) -> Iterator[SyntheticRow]:
    num_made = 0
    for record in records:
        found = maker.make(record)
        num_made += len(found)
        progress.advance(num_made)
        yield from found
