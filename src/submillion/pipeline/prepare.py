"""From a data source to clean, checked, split records, with the data doctor's findings written down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from submillion.cache import Cache, digest_parts, open_cache
from submillion.config.run import DataConfig, RunConfig
from submillion.data.check import DataReport, check_records
from submillion.data.clean import describe_repairs
from submillion.data.findings import describe_findings
from submillion.data.legibility import Legibility, TokenCounts, describe_legibility, list_loud, measure_legibility
from submillion.data.parts import (
    SPLIT_RULE,
    Parts,
    describe_absent,
    find_absent_classes,
    find_set_to_split,
    map_groups,
    split_dataset,
)
from submillion.data.removals import (
    choose_dropped,
    count_classes,
    describe_classes,
    describe_count,
    filter_by_words,
    refuse_unlabelled,
    require_classes,
)
from submillion.data.similar import SimilarTexts, find_similar_texts, narrow_to
from submillion.data.split import sample_records
from submillion.data.trained_rows import NONE, Digests, TrainedRows, digest_rows
from submillion.data.watched import read_watched
from submillion.encoding.max_length import ChosenLength, choose_length
from submillion.encoding.text_encoder import Features, TextEncoder, Tokens, make_features, started_beside
from submillion.encoding.token_cache import recall_tokens
from submillion.errors import ConfigError, DataError
from submillion.pipeline.cached_data import CleanRows, recall_findings, recall_rows, recall_similar
from submillion.pipeline.synthetic_rows import ExtraRows, prepare_extra_rows
from submillion.progress import Progress
from submillion.records import LabelSet, Record, Splits, hash_records


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
        trained_rows: Digests of the training rows, and of those that the starting weights were trained on.
    """

    splits: Splits
    watched: dict[str, list[Record]]
    report: dict[str, Any]
    features: dict[str, list[Features]]
    encoder: TextEncoder
    length: ChosenLength | None
    legibility: dict[str, Legibility]
    trained_rows: TrainedRows


def prepare_data(
    config: RunConfig,
    *,
    encoder: TextEncoder,
    progress: Progress,
    window: int | None = None,
    inherited: Digests = NONE,
) -> Prepared:
    """Read, clean, split, check and encode the data of a run.

    The test rows are the data's own, or, where the data is a single file, a stratified part of it. Validation rows
    are the data's own or a stratified part of the training rows. Equal and near texts stay together where rows are
    split here; training rows that appear in given validation or test rows are treated as `data.leaks` says. Synthetic
    rows (`data.extra`, `data.synonyms`) join the training rows last, but for those that are too close to what is
    scored. Every class that had training rows has some left. What does not change from run to run is taken from the
    cache, with the same result.

    Args:
        config: The run's configuration.
        encoder: The tokenizer of its base model. Where `model.max_length` is a rule, its limit is replaced by what
            the rule gives for the training rows, those that leaks may cost them included.
        progress: Told of the stages, and of every finding.
        window: Positions of the base model, which bound what a rule gives; None for no bound.
        inherited: Digests of the rows that the starting weights were trained on: no validation or test rows.

    Raises:
        ConfigError: No data source.
        DataError: Unreadable files, unlabelled rows, leaks where they are refused or cost a class most of its rows, or
            synthetic rows that do not fit.
    """
    data = config.data
    if data.source is None:
        raise ConfigError("no data is given", where="data.source", hint="Name it: --data FILE_OR_FOLDER")
    cache = open_cache(progress.note)
    progress.start("read")
    source = recall_rows(data.source, data, cache)
    dataset, labels, reading = source.dataset, source.dataset.labels, source.dataset.reading
    if labels is None or reading is None:
        raise DataError("has no label column", where=data.source, hint="Name it with --label.")
    watched = {
        watch.name: read_watched(watch, data.clean, labels, reading, on_note=progress.note) for watch in config.watch
    }
    progress.finish()
    _tell((*dataset.notes, *describe_repairs(source.repairs, data.clean)), progress)
    chosen = _choose_rows(source, data, inherited, cache, progress)
    splits, parts = chosen.splits, chosen.parts
    train, validation, test = splits["train"], splits["validation"], splits["test"]
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
                labels,
                count_tokens={name: partial(_count_tokens, wait_for[name]) for name in splits},
                max_length=encoder.max_length,
                long_texts=encoder.long_texts,
                column_names=dataset.column_names,
                label_column=reading.label,
                similar=chosen.similar and narrow_to(chosen.similar, dataset.splits, splits, parts.origins),
            )

        progress.start("check")
        key = _digest_splits(source.key, data, encoder, inherited)
        findings, leaking = recall_findings(key, cache, examine)
        progress.finish()
        _tell(describe_findings(findings), progress)
        dropped = choose_dropped(leaking, train, data, labels)
        progress.start("encode")
        features = {name: make_features(rows, wait_for[name]()) for name, rows in sets.items() if rows}
        legibility = {
            name: _measure(rows, wait_for[name]().counts, labels, encoder)
            for name, rows in sets.items()
            if rows and name != "train"
        }
        progress.finish()
    by_leaks = _tell_dropped(dropped, train, labels, progress)
    held_out = {"validation": validation, "test": test, **watched}
    extra = prepare_extra_rows(
        data, dataset, train=train, leaking=leaking, held_out=held_out, cache=cache, progress=progress
    )
    extra_features = _encode_extra(extra, encoder, cache)
    train = [record for record in train if record.id not in dropped]
    num_train = len(train)
    train += extra.records
    features["train"] = [item for item in features["train"] if item.id not in dropped] + extra_features
    require_classes(chosen.had, train, {**chosen.losses, "data.leaks": by_leaks}, data, labels)
    report = {
        "source": data.source,
        "files": dataset.files,
        "labels": list(labels.names),
        "column_names": list(dataset.column_names),
        "reading": reading.to_json(),
        "split": parts.how,
        "split_rule": SPLIT_RULE,
        "num_train": num_train,
        "num_validation": len(validation),
        "num_test": len(test),
        "train_sha256": hash_records(train),
        "test_sha256": hash_records(test) if test else None,
        "num_dropped_leaks": len(dropped),
        "num_dropped_short": chosen.num_short,
        "num_dropped_long": chosen.num_long,
        "num_dropped_trained": dict(parts.num_trained),
        "absent_classes": chosen.absent,
        "leaks_setting": data.leaks,
        "cleaning": {
            rule: {"applied": getattr(data.clean, rule), "num_records": count} for rule, count in source.repairs.items()
        },
        "extra": extra.report,
        "watched": {name: len(rows) for name, rows in watched.items()},
        "check": findings,
    }
    _tell_legibility(findings["splits"]["train"]["legibility"], legibility, progress)
    return Prepared(
        splits=Splits(train, validation, test, labels),
        watched=watched,
        report=report,
        features=features,
        encoder=encoder,
        length=length,
        legibility=legibility,
        trained_rows=TrainedRows(inherited, digest_rows(train)),
    )


def _tell(lines: Iterable[str], progress: Progress) -> None:
    for line in lines:
        progress.note(line)


def _tell_dropped(dropped: set[str], train: list[Record], labels: LabelSet, progress: Progress) -> Counter[int]:
    """Return how many training rows of each class leaks cost, and say so."""
    counts = count_classes(record for record in train if record.id in dropped)
    if dropped:
        progress.note(
            f"{describe_count(len(dropped), 'training row')} left out, equal or near to validation or test rows "
            f"(data.leaks=drop): {describe_classes(counts, labels)}"
        )
    return counts


def _tell_legibility(known: dict[str, Any], legibility: Mapping[str, Legibility], progress: Progress) -> None:
    told = [describe_legibility(known, what="training texts")]
    told += [
        describe_legibility(figures.to_json(), what=f"{name} texts", loud_only=True, known=list_loud(known))
        for name, figures in legibility.items()
    ]
    _tell(chain.from_iterable(told), progress)


def _measure(rows: Sequence[Record], counts: TokenCounts, labels: LabelSet, encoder: TextEncoder) -> Legibility:
    return measure_legibility(
        [row.text for row in rows],
        counts,
        [row.label for row in rows],
        labels.names,
        max_length=encoder.max_length,
        long_texts=encoder.long_texts,
    )


@dataclass(frozen=True)
class _Chosen:
    """The rows of a run before leaks are left out.

    Attributes:
        splits: Training, validation and test rows.
        parts: How they came about.
        similar: What is known of the texts of the whole data set, where that was needed to split it.
        absent: Names of the classes without rows in validation and test.
        num_short: Training rows left out for too few words.
        num_long: Those with too many.
        had: Training rows of each class before any were left out.
        losses: How many of each class were left out, by setting.
    """

    splits: dict[str, list[Record]]
    parts: Parts
    similar: SimilarTexts | None
    absent: dict[str, list[str]]
    num_short: int
    num_long: int
    had: Counter[int]
    losses: dict[str, Counter[int]]


def _choose_rows(source: CleanRows, data: DataConfig, inherited: Digests, cache: Cache, progress: Progress) -> _Chosen:
    """Split the rows and leave out those that settings leave out; say what became of them."""
    sets = source.dataset.splits
    refuse_unlabelled(sets, str(data.source))
    similar = None
    # With `data.leaks=keep` every row is on its own.
    if find_set_to_split(sets) is not None and data.leaks != "keep":
        progress.start("compare texts")
        similar = recall_similar(source.key, cache, lambda: find_similar_texts(sets))
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
    labels = source.dataset.labels
    assert labels is not None
    for name in ("validation", "test"):
        missing = find_absent_classes(splits[name], train) if splits[name] else []
        if missing:
            absent[name] = [labels.names[label] for label in missing]
            origin = parts.origins[name]
            groups = None if similar is None or origin == name else map_groups(similar, origin, sets[origin])
            progress.note(describe_absent(name, missing, train, labels, groups))
    return _Chosen(splits, parts, similar, absent, num_short, num_long, had, losses)


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


def _digest_splits(rows: str | None, data: DataConfig, encoder: TextEncoder, inherited: Digests) -> str | None:
    """Return a digest of all that the doctor's findings follow from."""
    if rows is None:
        return None
    keys = {"validation_size", "test_size", "split_seed", "min_words", "max_words", "leaks"}
    settings = data.model_dump(mode="json", include=keys | {"max_records", "max_validation_records"})
    reading = (encoder.sha256, str(encoder.max_length), encoder.long_texts)
    return digest_parts(rows, json.dumps(settings), *reading, inherited.tobytes())
