"""The rows of a run: they are read, split and chosen, before leaks are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from submillion.cache import Cache
from submillion.config.run import DataConfig, RunConfig
from submillion.data.clean import describe_repairs
from submillion.data.parts import (
    Parts,
    describe_absent,
    find_absent_classes,
    find_set_to_split,
    map_groups,
    split_dataset,
)
from submillion.data.reading import Reading
from submillion.data.removals import count_classes, describe_count, filter_by_words, refuse_unlabelled
from submillion.data.similar import SimilarTexts, find_similar_texts
from submillion.data.split import sample_records
from submillion.data.trained_rows import Digests
from submillion.data.watched import read_watched
from submillion.errors import ConfigError, DataError
from submillion.pipeline.cached_data import CleanRows, recall_rows, recall_similar
from submillion.progress import Progress
from submillion.records import LabelSet, Record


@dataclass(frozen=True)
class Source:
    """The data that a run reads.

    Attributes:
        settings: Settings of the data.
        rows: Cleaned rows of the data source.
        labels: Classes of the rows.
        reading: Way in which the rows were read.
        watched: Extra labelled sets by name.
    """

    settings: DataConfig
    rows: CleanRows
    labels: LabelSet
    reading: Reading
    watched: dict[str, list[Record]]


def read_source(config: RunConfig, cache: Cache, progress: Progress) -> Source:
    """Read and clean the rows of a run's data source and of the sets that it watches.

    Raises:
        ConfigError: No data source is given.
        DataError: The files cannot be read or have no label column.
    """
    data = config.data
    if data.source is None:
        raise ConfigError("no data is given", where="data.source", hint="Name it: --data FILE_OR_FOLDER")
    progress.start("read")
    rows = recall_rows(data.source, data, cache)
    labels, reading = rows.dataset.labels, rows.dataset.reading
    if labels is None or reading is None:
        raise DataError("has no label column", where=data.source, hint="Name it with --label.")
    watched = {
        watch.name: read_watched(watch, data.clean, labels, reading, on_note=progress.note) for watch in config.watch
    }
    progress.finish()
    tell((*rows.dataset.notes, *describe_repairs(rows.repairs, data.clean)), progress)
    return Source(data, rows, labels, reading, watched)


@dataclass(frozen=True)
class Chosen:
    """The rows of a run before leaks are left out.

    Attributes:
        splits: Training, validation and test rows.
        parts: Origin of each split.
        similar: Similar texts of the whole data set, if they were needed to split it.
        absent: Names of the classes without rows in validation and test.
        num_short: Number of training rows left out for too few words.
        num_long: Number of training rows left out for too many words.
        had: Number of training rows of each class before any were left out.
        losses: Number of rows of each class that were left out, by setting.
    """

    splits: dict[str, list[Record]]
    parts: Parts
    similar: SimilarTexts | None
    absent: dict[str, list[str]]
    num_short: int
    num_long: int
    had: Counter[int]
    losses: dict[str, Counter[int]]


def choose_rows(source: Source, inherited: Digests, cache: Cache, progress: Progress) -> Chosen:
    """Split the rows, leave out rows as the settings say, and report it.

    Args:
        source: The data that was read.
        inherited: Digests of the rows that the starting weights were trained on.
        cache: Cache for the comparison of texts.
        progress: Receiver of the stages.

    Raises:
        DataError: Rows have no label, or there are too few of them.
    """
    data, sets = source.settings, source.rows.dataset.splits
    refuse_unlabelled(sets, str(data.source))
    similar = None
    # With `data.leaks=keep`, similar rows need not be kept together.
    if find_set_to_split(sets) is not None and data.leaks != "keep":
        progress.start("compare texts")
        similar = recall_similar(source.rows.key, cache, lambda: find_similar_texts(sets))
        progress.finish()
    parts = split_dataset(sets, data, similar=similar, trained=inherited)
    if parts.num_known:
        known = describe_count(parts.num_known, "row")
        progress.note(f"{known} of the data stay in training, since the starting run was trained on them")
    for name, count in parts.num_trained.items():
        rows = describe_count(count, "row")
        progress.note(f"{rows} of {name} left out, since the starting run was trained on them")
    worded, num_short, num_long = filter_by_words(parts.train, data)
    train = _sample(worded, data.max_records, data)
    had, left = count_classes(parts.train), count_classes(worded)
    losses = {"data.min_words and data.max_words": had - left, "data.max_records": left - count_classes(train)}
    validation = _sample(parts.validation, data.max_validation_records, data)
    splits = {"train": train, "validation": validation, "test": parts.test}
    absent: dict[str, list[str]] = {}
    labels = source.labels
    for name in ("validation", "test"):
        missing = find_absent_classes(splits[name], train) if splits[name] else []
        if missing:
            absent[name] = [labels.names[label] for label in missing]
            origin = parts.origins[name]
            groups = None if similar is None or origin == name else map_groups(similar, origin, sets[origin])
            progress.note(describe_absent(name, missing, train, labels, groups))
    return Chosen(splits, parts, similar, absent, num_short, num_long, had, losses)


def _sample(records: list[Record], count: int | None, data: DataConfig) -> list[Record]:
    return records if count is None else sample_records(records, count, seed=data.split_seed)


def tell(lines: Iterable[str], progress: Progress) -> None:
    """Note each line."""
    for line in lines:
        progress.note(line)
