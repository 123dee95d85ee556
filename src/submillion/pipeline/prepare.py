"""Preparation of a data source: records are cleaned, checked, split and encoded, and the findings are recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from submillion.cache import Cache, digest_parts, open_cache
from submillion.config.run import DataConfig, RunConfig
from submillion.data.check import DataReport, check_records
from submillion.data.findings import describe_findings
from submillion.data.legibility import Legibility, TokenCounts, describe_legibility, list_loud, measure_legibility
from submillion.data.parts import SPLIT_RULE
from submillion.data.removals import (
    choose_dropped,
    count_classes,
    describe_classes,
    describe_count,
    require_classes,
)
from submillion.data.similar import narrow_to
from submillion.data.trained_rows import NONE, Digests, TrainedRows, digest_rows
from submillion.encoding.max_length import ChosenLength, choose_length
from submillion.encoding.text_encoder import Features, TextEncoder, Tokens, make_features, started_beside
from submillion.encoding.token_cache import recall_tokens
from submillion.pipeline.cached_data import recall_findings
from submillion.pipeline.choose_rows import Chosen, Source, choose_rows, read_source, tell
from submillion.pipeline.synthetic_rows import ExtraRows, prepare_extra_rows
from submillion.progress import Progress
from submillion.records import LabelSet, Record, Splits, hash_records
from submillion.storage.json_shapes import JsonObject


@dataclass(frozen=True)
class Prepared:
    """The records of a run.

    Attributes:
        splits: Disjoint training, validation and test rows; synthetic rows, if any, are last in the training rows.
        watched: Extra labelled sets by name.
        report: Contents of data.json.
        features: Token ids of all these rows by set: train, validation, test and the watched sets, if they have rows.
        encoder: Text encoder that made the features.
        length: Choice of the encoder's limit; None if the configuration gives a number.
        legibility: Counts of how much of the texts reaches the model, for each scored set.
        trained_rows: Digests of the training rows, and of those that the starting weights were trained on.
    """

    splits: Splits
    watched: dict[str, list[Record]]
    report: JsonObject
    features: dict[str, list[Features]]
    encoder: TextEncoder
    length: ChosenLength | None
    legibility: dict[str, Legibility]
    trained_rows: TrainedRows


def prepare_data(
    config: RunConfig, *, encoder: TextEncoder, progress: Progress, window: int | None = None, inherited: Digests = NONE
) -> Prepared:
    """Read, clean, split, check and encode the data of a run.

    The test rows are the data's test split or, for a single file, a stratified part of it. The validation rows are the
    data's validation split or a stratified part of the training rows. When rows are split here, equal and near texts
    are kept together. Training rows that appear in given validation or test rows are treated as `data.leaks` says.
    Synthetic rows (`data.extra`, `data.synonyms`) join the training rows last, except those that are too close to
    scored rows. Every class that had training rows has some left. Results that do not change between runs are taken
    from the cache.

    Args:
        config: Configuration of the run.
        encoder: Text encoder of the base model. If `model.max_length` is a rule, the limit becomes the rule's result
            for the training rows, including rows that leaks may remove later.
        progress: Receiver of the stages and of every finding.
        window: Number of positions of the base model, which bounds the result of a rule; None for no bound.
        inherited: Digests of the rows that the starting weights were trained on; they cannot be validation or test
            rows.

    Raises:
        ConfigError: No data source is given.
        DataError: Files are unreadable, rows are unlabelled, leaks are refused or would remove most rows of a class, or
            synthetic rows do not fit.
    """
    cache = open_cache(progress.note)
    source = read_source(config, cache, progress)
    chosen = choose_rows(source, inherited, cache, progress)
    train = chosen.splits["train"]
    encoder, length = _limit_length(config, encoder, train, window, progress)
    read = _examine(source, chosen, encoder, inherited=inherited, cache=cache, progress=progress)
    dropped = read.dropped
    by_leaks = _tell_dropped(dropped, train, source.labels, progress)
    extra = prepare_extra_rows(
        config.data,
        source.rows.dataset,
        train=train,
        leaking=read.leaking,
        held_out={"validation": chosen.splits["validation"], "test": chosen.splits["test"], **source.watched},
        cache=cache,
        progress=progress,
    )
    own = [record for record in train if record.id not in dropped]
    train = own + extra.records
    encoded = [item for item in read.features["train"] if item.id not in dropped]
    features = {**read.features, "train": encoded + _encode_extra(extra, encoder, cache)}
    require_classes(chosen.had, train, {**chosen.losses, "data.leaks": by_leaks}, config.data, source.labels)
    report = _make_report(source, chosen, read, train=train, num_train=len(own), extra=extra)
    _tell_legibility(read.findings["splits"]["train"]["legibility"], read.legibility, progress)
    return Prepared(
        splits=Splits(train, chosen.splits["validation"], chosen.splits["test"], source.labels),
        watched=source.watched,
        report=report,
        features=features,
        encoder=encoder,
        length=length,
        legibility=read.legibility,
        trained_rows=TrainedRows(inherited, digest_rows(train)),
    )


def _limit_length(
    config: RunConfig, encoder: TextEncoder, train: Sequence[Record], window: int | None, progress: Progress
) -> tuple[TextEncoder, ChosenLength | None]:
    """Return the encoder with the limit that a rule gives for the training rows, and how it was chosen."""
    rule = config.model.max_length
    if not isinstance(rule, str):
        return encoder, None
    progress.start("measure lengths", len(train))
    counts = encoder.count_tokens([record.text for record in train], progress.advance)
    length = choose_length(counts.lengths, rule, window=window, long_texts=encoder.long_texts)
    progress.finish()
    progress.note(length.describe())
    return encoder.limited_to(length.max_length), length


@dataclass(frozen=True)
class _Examined:
    """The findings on the rows of a run, and their token ids.

    Attributes:
        findings: Findings for data.json.
        leaking: Ids of the training rows that are in validation or test, exactly or nearly.
        dropped: Ids of the training rows that are left out.
        features: Token ids of all rows, by split or watched name.
        legibility: Counts of how much of the texts reaches the model, for each set except the training rows.
    """

    findings: JsonObject
    leaking: set[str]
    dropped: set[str]
    features: dict[str, list[Features]]
    legibility: dict[str, Legibility]


def _examine(
    source: Source, chosen: Chosen, encoder: TextEncoder, *, inherited: Digests, cache: Cache, progress: Progress
) -> _Examined:
    """Examine and encode all rows; tokens are counted at the same time."""
    data = source.settings
    splits, labels, dataset = chosen.splits, source.labels, source.rows.dataset
    sets = {**splits, **source.watched}
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
                label_column=source.reading.label,
                similar=chosen.similar and narrow_to(chosen.similar, dataset.splits, splits, chosen.parts.origins),
            )

        progress.start("check")
        key = _digest_splits(source.rows.key, data, encoder, inherited)
        findings, leaking = recall_findings(key, cache, examine)
        progress.finish()
        tell(describe_findings(findings), progress)
        dropped = choose_dropped(leaking, splits["train"], data, labels)
        progress.start("encode")
        features = {name: make_features(rows, wait_for[name]()) for name, rows in sets.items() if rows}
        legibility = {
            name: _measure(rows, wait_for[name]().counts, labels, encoder)
            for name, rows in sets.items()
            if rows and name != "train"
        }
        progress.finish()
    return _Examined(findings, leaking, dropped, features, legibility)


def _make_report(
    source: Source, chosen: Chosen, read: _Examined, *, train: Sequence[Record], num_train: int, extra: ExtraRows
) -> JsonObject:
    """Return the contents of data.json."""
    data = source.settings
    dataset, parts, test = source.rows.dataset, chosen.parts, chosen.splits["test"]
    return {
        "source": data.source,
        "files": dataset.files,
        "labels": list(source.labels.names),
        "column_names": list(dataset.column_names),
        "reading": source.reading.to_json(),
        "split": parts.how,
        "split_rule": SPLIT_RULE,
        "num_train": num_train,
        "num_validation": len(chosen.splits["validation"]),
        "num_test": len(test),
        "train_sha256": hash_records(train),
        "test_sha256": hash_records(test) if test else None,
        "num_dropped_leaks": len(read.dropped),
        "num_dropped_short": chosen.num_short,
        "num_dropped_long": chosen.num_long,
        "num_dropped_trained": dict(parts.num_trained),
        "absent_classes": chosen.absent,
        "leaks_setting": data.leaks,
        "cleaning": {
            rule: {"applied": getattr(data.clean, rule), "num_records": count}
            for rule, count in source.rows.repairs.items()
        },
        "extra": extra.report,
        "watched": {name: len(rows) for name, rows in source.watched.items()},
        "check": read.findings,
    }


def _tell_dropped(dropped: set[str], train: list[Record], labels: LabelSet, progress: Progress) -> Counter[int]:
    """Report and return how many training rows of each class are left out for leaks."""
    counts = count_classes(record for record in train if record.id in dropped)
    if dropped:
        progress.note(
            f"{describe_count(len(dropped), 'training row')} left out, equal or near to validation or test rows "
            f"(data.leaks=drop): {describe_classes(counts, labels)}"
        )
    return counts


def _tell_legibility(known: JsonObject, legibility: Mapping[str, Legibility], progress: Progress) -> None:
    told = [describe_legibility(known, what="training texts")]
    told += [
        describe_legibility(figures.to_json(), what=f"{name} texts", loud_only=True, known=list_loud(known))
        for name, figures in legibility.items()
    ]
    tell(chain.from_iterable(told), progress)


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


def _count_tokens(wait: Callable[[], Tokens]) -> TokenCounts:
    return wait().counts


def _digest_splits(rows: str | None, data: DataConfig, encoder: TextEncoder, inherited: Digests) -> str | None:
    """Return a digest of everything that the findings depend on."""
    if rows is None:
        return None
    keys = {"validation_size", "test_size", "split_seed", "min_words", "max_words", "leaks"}
    settings = data.model_dump(mode="json", include=keys | {"max_records", "max_validation_records"})
    reading = (encoder.sha256, str(encoder.max_length), encoder.long_texts)
    return digest_parts(rows, json.dumps(settings), *reading, inherited.tobytes())
