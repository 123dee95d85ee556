"""From a data source to clean, checked, split records, with the data doctor's findings written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from submillion.config import DataConfig, RunConfig
from submillion.data.check import check_records
from submillion.data.clean import clean_records
from submillion.data.columns import Columns
from submillion.data.read import join_labels, read_dataset, read_records
from submillion.data.split import sample_records, split_records
from submillion.errors import ConfigError, DataError
from submillion.progress import Progress
from submillion.records import LabelSet, Record, Splits
from submillion.results import hash_records


@dataclass(frozen=True)
class Prepared:
    """The records of a run.

    Attributes:
        splits: Disjoint training, validation and test rows.
        watched: Extra labelled sets by name.
        report: What data.json holds.
    """

    splits: Splits
    watched: dict[str, list[Record]]
    report: dict[str, Any]


def columns_of(data: DataConfig) -> Columns:
    """Return the columns that a configuration asks for."""
    return Columns(text=data.text, label=data.label, id=data.id)


def prepare_data(
    config: RunConfig,
    *,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    progress: Progress,
) -> Prepared:
    """Read, clean, split and check the data of a run.

    The test rows are the data's own, or, where the data is a single file, a stratified part of it. Validation rows
    are the data's own or a stratified part of the training rows. Training rows that stand in validation or test are
    then treated as `data.leaks` says.

    Args:
        config: The run's configuration.
        count_tokens: Lengths of texts in tokens, for the length figures.
        progress: Told of the stages.

    Raises:
        ConfigError: No data source.
        DataError: Unreadable files, unlabelled rows, or leaks where they are refused.
    """
    data = config.data
    if data.source is None:
        raise ConfigError("no data is given", where="data.source", hint="Name it: --data FILE_OR_FOLDER")
    progress.start("read")
    given = LabelSet(data.labels) if data.labels else None
    dataset = read_dataset(data.source, columns_of(data), labels=given, revision=data.revision)
    if dataset.labels is None:
        raise DataError("has no label column", where=data.source, hint="Name it with --label.")
    parts = {name: list(clean_records(rows, data.clean)) for name, rows in dataset.splits.items()}
    watched = {watch.name: _read_watched(watch.data, watch.labels, config, dataset.labels) for watch in config.watch}
    progress.finish()

    train, validation, test, how = _split(parts, data, dataset.labels)
    _refuse_unlabelled({"train": train, "validation": validation, "test": test}, data.source)
    if data.max_records is not None:
        train = sample_records(train, data.max_records, seed=data.split_seed)
    progress.start("check")
    checked = check_records(
        {"train": train, "validation": validation, "test": test},
        dataset.labels,
        count_tokens=count_tokens,
        max_length=config.model.max_length,
        column_names=dataset.column_names,
    )
    progress.finish()
    leaking = checked.leaking_ids("train")
    if leaking and data.leaks == "refuse":
        raise DataError(
            f"{len(leaking)} training rows stand in validation or test",
            where=data.source,
            hint="`submillion check` lists them; data.leaks=drop leaves them out of training.",
        )
    dropped = leaking if data.leaks == "drop" else frozenset()
    train = [record for record in train if record.id not in dropped]
    if not train:
        raise DataError(
            f"all {len(dropped)} training rows stand in validation or test",
            where=data.source,
            hint="Bring training rows of their own; `submillion check` lists the pairs.",
        )
    report = {
        "source": data.source,
        "files": dataset.files,
        "labels": list(dataset.labels.names),
        "column_names": list(dataset.column_names),
        "split": how,
        "num_train": len(train),
        "num_validation": len(validation),
        "num_test": len(test),
        "train_sha256": hash_records(train),
        "test_sha256": hash_records(test) if test else None,
        "num_dropped_leaks": len(dropped),
        "leaks_setting": data.leaks,
        "watched": {name: len(rows) for name, rows in watched.items()},
        "check": checked.to_json(),
    }
    return Prepared(Splits(train, validation, test, dataset.labels), watched, report)


def _split(
    parts: dict[str, list[Record]], data: DataConfig, labels: LabelSet
) -> tuple[list[Record], list[Record], list[Record], str]:
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


def _read_watched(source: str, labels_file: str | None, config: RunConfig, labels: LabelSet) -> list[Record]:
    # Watched files have columns of their own making; they are found by name.
    if labels_file is None:
        records = read_records(source, labels=labels)
    else:
        records = join_labels(read_records(source), labels_file, labels)
    missing = [record.source for record in records if record.label is None]
    if missing or not records:
        raise DataError(
            f"{len(missing)} rows have no label" if records else "has no rows",
            where=source,
            hint="Watched sets need labels: give watch.labels, a CSV with id,label.",
        )
    return list(clean_records(records, config.data.clean))
