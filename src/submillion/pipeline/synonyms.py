"""Synonym rows that a run makes from its training rows, cached between runs."""

from __future__ import annotations

from collections.abc import Sequence

from submillion.cache import Cache, digest_code, digest_parts, pack_strings, unpack_strings
from submillion.config.run import SynonymConfig
from submillion.data.read import Dataset
from submillion.data.synthetic import SYNONYMS_PLACE, SyntheticRow, format_row, parse_row
from submillion.errors import DataError
from submillion.progress import Progress
from submillion.records import Record
from submillion.storage.files import expand_home
from submillion.wordnet.lexicon import load_lexicon
from submillion.wordnet.synonym_rows import make_synonym_rows

_KIND = "synonyms"


def recall_synonyms(
    settings: SynonymConfig, train: Sequence[Record], dataset: Dataset, cache: Cache, progress: Progress
) -> list[SyntheticRow]:
    """Return the synonym rows of training rows from the cache, or make them and keep them.

    Args:
        settings: Settings for making them.
        train: The training rows, without rows that are also in a scored set.
        dataset: Data set of the training rows.
        cache: Cache for the result.
        progress: Receiver of the stages.

    Raises:
        ConfigError: nltk is not installed, or fewer rows are requested than there are classes.
        DataError: There is no lexicon, or no word could be replaced.
    """
    assert dataset.labels is not None
    progress.start("lexicon")
    lexicon = load_lexicon(None if settings.lexicon is None else expand_home(settings.lexicon))
    progress.finish()
    spelled = [f"{row.id}\0{row.source}\0{row.label}\0{row.text}" for row in train]
    options = settings.model_dump(exclude={"lexicon", "weight"})
    origin = (*dataset.labels.names, *sorted(map(str, dataset.files.items())), *dataset.column_names)
    code = digest_code("wordnet", "data/synthetic.py", "pipeline/synonyms.py")
    key = digest_parts(code, lexicon.sha256, str(sorted(options.items())), *origin, *pack_strings(spelled))
    stored = cache.load(_KIND, key)
    if stored is not None:
        rows = [parse_row(line, where=SYNONYMS_PLACE) for line in unpack_strings(stored["values"], stored["ends"])]
        _note_missing(rows, settings, progress)
        return rows
    made = make_synonym_rows(train, dataset, lexicon, progress=progress, **options)
    if not made.rows:
        raise DataError(
            f"no word of {made.num_records:,} training rows could be replaced",
            where=SYNONYMS_PLACE,
            hint="The lexicon is English; text that is all in capitals is not changed. Leave data.synonyms out.",
        )
    values, ends = pack_strings([format_row(row) for row in made.rows])
    cache.store(_KIND, key, {"values": values, "ends": ends})
    _note_missing(made.rows, settings, progress)
    return made.rows


def _note_missing(rows: Sequence[SyntheticRow], settings: SynonymConfig, progress: Progress) -> None:
    if settings.rows is not None and len(rows) < settings.rows:
        lacking = settings.rows - len(rows)
        progress.note(f"{SYNONYMS_PLACE}: {lacking:,} rows fewer than requested, as no more can be made")
