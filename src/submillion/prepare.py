"""From a data source to clean, checked, split records, with the data doctor's findings written down."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from submillion.cache import Cache, digest_parts, open_cache
from submillion.config import DataConfig, RunConfig
from submillion.data.check import DataReport, check_records
from submillion.data.legibility import Legibility, TokenCounts, describe_legibility, list_loud, measure_legibility
from submillion.data.split import sample_records, split_records
from submillion.data.watched import read_watched
from submillion.data_cache import recall_findings, recall_rows
from submillion.errors import ConfigError, DataError
from submillion.extra_rows import ExtraRows, prepare_extra_rows
from submillion.lengths import ChosenLength, choose_length
from submillion.progress import Progress
from submillion.records import LabelSet, Record, Splits
from submillion.results import hash_records
from submillion.text_encoder import Features, TextEncoder, Tokens, make_features, started_beside
from submillion.token_cache import recall_tokens


@dataclass(frozen=True)
class Prepared:
    """The records of a run.

    Attributes:
        splits: Disjoint training, validation and test rows; the training rows end with the synthetic ones, if any.
        watched: Extra labelled sets by name.
        report: What data.json holds.
        features: Token ids of all these rows: train, validation, test and the watched sets, where they have rows.
        encoder: What made them.
        length: How the encoder's limit was chosen; None where the configuration gives a number.
        legibility: How much of the texts of each set that is scored reaches the model.
    """

    splits: Splits
    watched: dict[str, list[Record]]
    report: dict[str, Any]
    features: dict[str, list[Features]]
    encoder: TextEncoder
    length: ChosenLength | None
    legibility: dict[str, Legibility]


def prepare_data(config: RunConfig, *, encoder: TextEncoder, progress: Progress, window: int | None = None) -> Prepared:
    """Read, clean, split, check and encode the data of a run.

    The test rows are the data's own, or, where the data is a single file, a stratified part of it. Validation rows
    are the data's own or a stratified part of the training rows. Training rows that stand in validation or test are
    then treated as `data.leaks` says. Synthetic rows (`data.extra`, `data.synonyms`) join the training rows last, but
    for those that are too close to what is scored. What does not change from run to run is taken from the cache, with
    the same result.

    Args:
        config: The run's configuration.
        encoder: The tokenizer of its base model. Where `model.max_length` is a rule, its limit is replaced by what
            the rule gives for the training rows, those that leaks may cost them included.
        progress: Told of the stages.
        window: Positions of the base model, which bound what a rule gives; None for no bound.

    Raises:
        ConfigError: No data source.
        DataError: Unreadable files, unlabelled rows, leaks where they are refused, or synthetic rows that do not fit.
    """
    data = config.data
    if data.source is None:
        raise ConfigError("no data is given", where="data.source", hint="Name it: --data FILE_OR_FOLDER")
    cache = open_cache(progress.note)
    progress.start("read")
    dataset, digest = recall_rows(data.source, data, cache)
    if dataset.labels is None or dataset.reading is None:
        raise DataError("has no label column", where=data.source, hint="Name it with --label.")
    watched = {
        watch.name: read_watched(watch, data.clean, dataset.labels, dataset.reading, on_note=progress.note)
        for watch in config.watch
    }
    progress.finish()
    for note in dataset.notes:
        progress.note(note)

    train, validation, test, how = split_dataset(dataset.splits, data, dataset.labels)
    _refuse_unlabelled({"train": train, "validation": validation, "test": test}, data.source)
    train, num_short, num_long = _filter_by_words(train, data)
    train, validation = _sample(train, data.max_records, data), _sample(validation, data.max_validation_records, data)
    splits = {"train": train, "validation": validation, "test": test}
    sets = {**splits, **watched}
    length = None
    if isinstance(config.model.max_length, str):
        progress.start("measure lengths", len(train))
        counts = encoder.count_tokens([record.text for record in train], progress.advance)
        rule = config.model.max_length
        length = choose_length(counts.lengths, rule, window=window, long_texts=encoder.long_texts)
        encoder = encoder.limited_to(length.max_length)
        progress.finish()
        progress.note(length.describe())
    jobs = {name: partial(recall_tokens, encoder, [row.text for row in rows], cache) for name, rows in sets.items()}
    with started_beside(jobs) as wait_for:

        def examine() -> DataReport:
            return check_records(
                splits,
                dataset.labels,
                count_tokens={name: partial(_count_tokens, wait_for[name]) for name in splits},
                max_length=encoder.max_length,
                long_texts=encoder.long_texts,
                column_names=dataset.column_names,
            )

        progress.start("check")
        findings, leaking = recall_findings(_digest_splits(digest, data, encoder), cache, examine)
        progress.finish()
        dropped = _choose_dropped(leaking, train, data)
        progress.start("encode")
        features = {name: make_features(rows, wait_for[name]()) for name, rows in sets.items() if rows}
        legibility = {
            name: _measure(rows, wait_for[name]().counts, dataset.labels, encoder)
            for name, rows in sets.items()
            if rows and name != "train"
        }
        progress.finish()
    held_out = {"validation": validation, "test": test, **watched}
    extra = prepare_extra_rows(
        data, dataset, train=train, leaking=leaking, held_out=held_out, cache=cache, progress=progress
    )
    extra_features = _encode_extra(extra, encoder, cache)
    train = [record for record in train if record.id not in dropped]
    num_train = len(train)
    train += extra.records
    features["train"] = [item for item in features["train"] if item.id not in dropped] + extra_features
    report = {
        "source": data.source,
        "files": dataset.files,
        "labels": list(dataset.labels.names),
        "column_names": list(dataset.column_names),
        "reading": dataset.reading.to_json(),
        "split": how,
        "num_train": num_train,
        "num_validation": len(validation),
        "num_test": len(test),
        "train_sha256": hash_records(train),
        "test_sha256": hash_records(test) if test else None,
        "num_dropped_leaks": len(dropped),
        "num_dropped_short": num_short,
        "num_dropped_long": num_long,
        "leaks_setting": data.leaks,
        "extra": extra.report,
        "watched": {name: len(rows) for name, rows in watched.items()},
        "check": findings,
    }
    known = findings["splits"]["train"]["legibility"]
    told = [describe_legibility(known, what="training texts")]
    told += [
        describe_legibility(figures.to_json(), what=f"{name} texts", loud_only=True, known=list_loud(known))
        for name, figures in legibility.items()
    ]
    for line in chain.from_iterable(told):
        progress.note(line)
    return Prepared(
        Splits(train, validation, test, dataset.labels), watched, report, features, encoder, length, legibility
    )


def _measure(rows: Sequence[Record], counts: TokenCounts, labels: LabelSet, encoder: TextEncoder) -> Legibility:
    return measure_legibility(
        [row.text for row in rows],
        counts,
        [row.label for row in rows],
        labels.names,
        max_length=encoder.max_length,
        long_texts=encoder.long_texts,
    )


def _encode_extra(extra: ExtraRows, encoder: TextEncoder, cache: Cache) -> list[Features]:
    if not extra.records:
        return []
    tokens = recall_tokens(encoder, [record.text for record in extra.records], cache)
    features = make_features(extra.records, tokens)
    return [replace(item, weight=weight) for item, weight in zip(features, extra.weights, strict=True)]


def _sample(records: list[Record], count: int | None, data: DataConfig) -> list[Record]:
    return records if count is None else sample_records(records, count, seed=data.split_seed)


def _count_tokens(wait: Callable[[], Tokens]) -> TokenCounts:
    return wait().counts


def _digest_splits(rows: str | None, data: DataConfig, encoder: TextEncoder) -> str | None:
    """Return a digest of all that the doctor's findings follow from."""
    if rows is None:
        return None
    keys = {"validation_size", "test_size", "split_seed", "min_words", "max_words"}
    settings = data.model_dump(mode="json", include=keys | {"max_records", "max_validation_records"})
    return digest_parts(rows, json.dumps(settings), encoder.sha256, str(encoder.max_length), encoder.long_texts)


def _filter_by_words(train: list[Record], data: DataConfig) -> tuple[list[Record], int, int]:
    """Return the training rows with as many words as are asked for, and how many were too short and too long."""
    if data.min_words is None and data.max_words is None:
        return train, 0, 0
    least, most = data.min_words or 0, data.max_words or sys.maxsize
    counts = [len(record.text.split()) for record in train]
    kept = [record for record, count in zip(train, counts, strict=True) if least <= count <= most]
    if not kept:
        raise DataError(
            f"none of {len(train):,} training rows has {_name_range(data)} words",
            where=str(data.source),
            hint=f"They have {min(counts)} to {max(counts)}; change data.min_words or data.max_words.",
        )
    num_short = sum(count < least for count in counts)
    return kept, num_short, len(train) - len(kept) - num_short


def _name_range(data: DataConfig) -> str:
    if data.max_words is None:
        return f"{data.min_words} or more"
    return f"{data.min_words or 0} to {data.max_words}"


def _choose_dropped(leaking: set[str], train: list[Record], data: DataConfig) -> set[str]:
    """Return the ids of the training rows to leave out."""
    if leaking and data.leaks == "refuse":
        raise DataError(
            f"{len(leaking)} training rows stand in validation or test",
            where=str(data.source),
            hint="`submillion check` lists them; data.leaks=drop leaves them out of training.",
        )
    dropped = leaking if data.leaks == "drop" else set()
    if len(dropped) == len(train):
        raise DataError(
            f"all {len(dropped)} training rows stand in validation or test",
            where=str(data.source),
            hint="Bring training rows of their own; `submillion check` lists the pairs.",
        )
    return dropped


def split_dataset(
    parts: dict[str, list[Record]], data: DataConfig, labels: LabelSet
) -> tuple[list[Record], list[Record], list[Record], str]:
    """Return the training, validation and test rows of a data set as a run has them, and how they came about.

    Args:
        parts: Rows by split as `read_dataset` returns them; ``all`` is divided in three.
        data: Sizes and seed.
        labels: The classes, over which the parts are stratified.

    Raises:
        ConfigError: Sizes that leave nothing to train on.
        DataError: There are no training rows.
    """
    seed = data.split_seed
    if "all" in parts:
        rest, test = split_records(parts["all"], data.test_size, seed=seed, labels=labels)
        share = data.validation_size
        # A share is one of the whole file, as test_size is: 0.1 and 0.1 leave 80 %.
        size = share * len(parts["all"]) / len(rest) if share < 1 else share
        if share < 1 <= size:
            raise ConfigError(
                f"validation {share:g} and test {data.test_size:g} leave no rows to train on",
                where="data.validation_size",
                hint="Choose shares that sum to less than 1, such as 0.1 and 0.1.",
            )
        train, validation = split_records(rest, size, seed=seed + 1, labels=labels)
        return train, validation, test, "one file, split into train, validation and test (stratified, seeded)"
    if "train" not in parts:
        raise DataError(f"has no training rows, only {sorted(parts)}", where=str(data.source))
    train, test = parts["train"], parts.get("test", [])
    if "validation" in parts:
        return train, parts["validation"], test, "train, validation and test as given"
    train, validation = split_records(train, data.validation_size, seed=seed, labels=labels)
    return train, validation, test, "validation split off the training rows (stratified, seeded)"


def _refuse_unlabelled(splits: dict[str, list[Record]], source: str) -> None:
    for name, rows in splits.items():
        missing = [record.source for record in rows if record.label is None]
        if missing:
            raise DataError(
                f"{len(missing)} rows of {name} have no label: {', '.join(missing[:5])}",
                where=source,
                hint="Label them, or leave the file out; `submillion predict` is for unlabelled rows.",
            )
