"""Synthetic rows that a run also trains on: read, cleaned, and kept away from all scored rows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from submillion.cache import Cache, digest_code, digest_parts, pack_strings
from submillion.config.run import DataConfig, ExtraConfig
from submillion.data.check import check_records
from submillion.data.clean import clean_records
from submillion.data.read import Dataset
from submillion.data.sources import hash_file
from submillion.data.synthetic import (
    REASONS,
    SYNONYMS_PLACE,
    SyntheticRow,
    describe_file,
    digest_text,
    format_row,
    read_rows,
)
from submillion.errors import DataError
from submillion.progress import Progress
from submillion.records import LabelSet, Record
from submillion.storage.files import expand_home

_KIND = "extra"
_SHOWN_ROWS = 10


@dataclass(frozen=True)
class ExtraRows:
    """The synthetic rows of a run.

    Attributes:
        records: Records to train on, file by file.
        weights: Weight of each record in the loss, shape (n,).
        report: Entry of each file in data.json.
    """

    records: list[Record]
    weights: list[float]
    report: list[dict[str, object]]


@dataclass(frozen=True)
class _File:
    """One file that was read, or the rows made in place of one."""

    settings: ExtraConfig
    sha256: str
    rows: list[SyntheticRow]
    records: list[Record]


def prepare_extra_rows(
    data: DataConfig,
    dataset: Dataset,
    *,
    train: Sequence[Record],
    leaking: frozenset[str] | set[str],
    held_out: Mapping[str, Sequence[Record]],
    cache: Cache,
    progress: Progress,
) -> ExtraRows:
    """Read or make the synthetic rows of a run, and leave out those that are too close to scored rows.

    Args:
        data: Settings that name the files, the rows to make and the cleaning rules.
        dataset: Data set of the training rows. Labels of synthetic rows are matched by name.
        train: The data's training rows, including leaking ones.
        leaking: Ids of training rows that are equal or near to validation or test rows. Rows made from them are left
            out as well, and no rows are made from them.
        held_out: Validation rows, test rows and the watched sets.
        cache: Cache for the comparison and for rows that are made.
        progress: Receiver of the stages and of the outcome of each file.

    Raises:
        ConfigError: A library for making rows is not installed.
        DataError: Files are damaged, labels are not classes, ids belong to other rows, or there is no lexicon.
    """
    records: list[Record] = []
    weights: list[float] = []
    report: list[dict[str, object]] = []
    if not data.extra and data.synonyms is None:
        return ExtraRows(records, weights, report)
    labels = dataset.labels
    assert labels is not None
    files = [_read_file(extra, data, labels) for extra in data.extra]
    if data.synonyms is not None:
        # This is the only import of code that makes rows, so that a run without such rows does not load it.
        from submillion.pipeline.synonyms import recall_synonyms

        own = [record for record in train if record.id not in leaking]
        files.append(_make_file(data, recall_synonyms(data.synonyms, own, dataset, cache, progress), labels))
    progress.start("synthetic rows")
    _refuse_repeated_ids(files, train)
    sources = _Sources([*(row for rows in held_out.values() for row in rows), *_pick(train, leaking)])
    for file in files:
        near = _recall_leaks(file.records, held_out, cache)
        reasons = [
            near.get(record.id) or ("source" if sources.hold(row) else None)
            for row, record in zip(file.rows, file.records, strict=True)
        ]
        kept = [record for record, reason in zip(file.records, reasons, strict=True) if reason is None]
        records += kept
        weights += [file.settings.weight] * len(kept)
        report.append(_report_file(file, kept, Counter(reasons), labels))
    progress.finish()
    for entry in report:
        progress.note(describe_file(entry))
    return ExtraRows(records, weights, report)


def _pick(records: Sequence[Record], ids: frozenset[str] | set[str]) -> list[Record]:
    return [record for record in records if record.id in ids]


def _read_file(extra: ExtraConfig, data: DataConfig, labels: LabelSet) -> _File:
    path = expand_home(extra.data)
    rows = read_rows(path)
    strangers = [row for row in rows if row.label not in labels.names]
    if strangers:
        shown = ", ".join(f"{row.label!r} ({row.id})" for row in strangers[:_SHOWN_ROWS])
        raise DataError(
            f"{len(strangers):,} of {len(rows):,} rows have labels that are not classes: {shown}",
            where=str(path),
            hint=f"The classes of the data are {', '.join(labels)[:400]}.",
        )
    return _File(extra, hash_file(path), rows, _to_records(rows, path.name, data, labels))


def _make_file(data: DataConfig, rows: list[SyntheticRow], labels: LabelSet) -> _File:
    """Return an entry in place of a file for rows that the run made."""
    assert data.synonyms is not None
    named = ExtraConfig(data=SYNONYMS_PLACE, weight=data.synonyms.weight)
    digest = hashlib.sha256("".join(map(format_row, rows)).encode()).hexdigest()
    return _File(named, digest, rows, _to_records(rows, SYNONYMS_PLACE, data, labels))


def _to_records(rows: Sequence[SyntheticRow], name: str, data: DataConfig, labels: LabelSet) -> list[Record]:
    ids = {label: number for number, label in enumerate(labels)}
    records = [Record(row.id, (row.text,), ids[row.label], f"{name}:{number}") for number, row in enumerate(rows, 1)]
    return list(clean_records(records, data.clean))


def _refuse_repeated_ids(files: Sequence[_File], train: Sequence[Record]) -> None:
    seen = {record.id for record in train}
    for file in files:
        repeated = [row.id for row in file.rows if row.id in seen]
        if repeated:
            raise DataError(
                f"{len(repeated):,} ids also belong to other training rows: {', '.join(repeated[:_SHOWN_ROWS])}",
                where=file.settings.data,
                hint="Was the same file given twice? Rows made with other settings or another seed have other ids.",
            )
        seen |= {row.id for row in file.rows}


class _Sources:
    """Records that no synthetic row may be made from, by their texts and by their ids and places."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._digests = {digest_text(record.text) for record in records}
        self._places = {(record.id, record.source) for record in records if record.source}

    def hold(self, row: SyntheticRow) -> bool:
        """Return whether a row was made from one of these records; a row without a source was not."""
        origin = row.provenance
        if "source_sha256" not in origin:
            return False
        place = (origin["source_id"], origin["source_place"])
        return origin["source_sha256"] in self._digests or place in self._places


def _recall_leaks(records: Sequence[Record], held_out: Mapping[str, Sequence[Record]], cache: Cache) -> dict[str, str]:
    """Return the reason why records are in scored sets, ``exact`` or ``near``, by their ids."""
    parts = {"extra": records, **held_out}
    key = digest_parts(
        digest_code("data", "pipeline/synthetic_rows.py"),
        *(packed for rows in parts.values() for packed in pack_strings([_spell(row) for row in rows])),
    )
    stored = cache.load(_KIND, key)
    if stored is None:
        leaks = check_records({"extra": records}, None, against=held_out).leaks
        found = {reason: sorted({i for leak in leaks if leak.kind == reason for i in leak.ids}) for reason in REASONS}
        stored = {"values": np.frombuffer(json.dumps(found).encode(), np.uint8)}
        cache.store(_KIND, key, stored)
    reasons: dict[str, list[str]] = json.loads(stored["values"].tobytes())
    # A row can be near to one set and equal to a row of another.
    return {record_id: reason for reason in reversed(list(REASONS)) for record_id in reasons[reason]}


def _spell(record: Record) -> str:
    return "\0".join((record.id, *record.columns))


def _report_file(
    file: _File, kept: Sequence[Record], reasons: Mapping[str | None, int], labels: LabelSet
) -> dict[str, object]:
    classes = Counter(record.label for record in kept)
    return {
        "data": file.settings.data,
        "weight": file.settings.weight,
        "sha256": file.sha256,
        "methods": dict(sorted(Counter(str(row.provenance["method"]) for row in file.rows).items())),
        "num_records": len(file.rows),
        "num_used": len(kept),
        "num_dropped": {reason: reasons.get(reason, 0) for reason in REASONS},
        "class_counts": {name: classes[label] for label, name in enumerate(labels)},
    }
