"""Clean rows and data findings that are cached between runs, keyed by the files and settings that they depend on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from submillion.cache import Arrays, Cache, digest_code, digest_parts, pack_strings, unpack_strings
from submillion.config.run import DataConfig
from submillion.data.check import DataReport
from submillion.data.clean import clean_records, count_repairs
from submillion.data.columns import Columns
from submillion.data.labels import Numbering
from submillion.data.read import Dataset, digest_source, read_dataset
from submillion.data.reading import Reading
from submillion.data.similar import SimilarTexts
from submillion.errors import DataError
from submillion.records import LabelSet, Record
from submillion.storage.json_shapes import JsonObject

_ROWS, _TEXTS, _FINDINGS = "rows", "texts", "findings"
_NO_LABEL = -1


def columns_of(data: DataConfig) -> Columns:
    """Return the columns that a configuration asks for."""
    return Columns(text=data.text, label=data.label, id=data.id)


@dataclass(frozen=True)
class CleanRows:
    """The rows of a data source.

    Attributes:
        dataset: The rows, cleaned.
        repairs: Number of rows that each cleaning rule changed, or would change if it were on.
        key: Digest of everything that the rows depend on; None if the files changed while they were read.
    """

    dataset: Dataset
    repairs: dict[str, int]
    key: str | None


def recall_rows(source: str, data: DataConfig, cache: Cache) -> CleanRows:
    """Return the clean rows of a data source from the cache, or read and clean them and keep the result.

    Args:
        source: Path of a file or folder, or name of a hub data set.
        data: Settings for reading and cleaning.
        cache: Cache for the result.

    Raises:
        DataError: `read_dataset` refuses the data.
    """
    key = _digest_rows(source, data)
    stored = None if key is None else cache.load(_ROWS, key)
    if stored is not None:
        return CleanRows(_unpack_rows(stored), _unpack_json(stored["repairs"]), key)
    labels = LabelSet(data.labels) if data.labels else None
    numbering = Numbering.parse(data.numbers)
    dataset = read_dataset(
        source,
        columns_of(data),
        labels=labels,
        numbering=numbering,
        revision=data.revision,
        drops_unlabelled=data.unlabelled == "drop",
    )
    repairs = Counter[str]()
    for rows in dataset.splits.values():
        repairs.update(count_repairs(rows, data.clean))
    splits = {name: list(clean_records(rows, data.clean)) for name, rows in dataset.splits.items()}
    dataset = replace(dataset, splits=splits)
    if key is None or key != _digest_rows(source, data):
        return CleanRows(dataset, dict(repairs), None)
    cache.store(_ROWS, key, {**_pack_rows(dataset), "repairs": _pack_json(repairs)})
    return CleanRows(dataset, dict(repairs), key)


def _digest_rows(source: str, data: DataConfig) -> str | None:
    try:
        content = digest_source(source, columns_of(data), revision=data.revision)
    except (OSError, DataError):  # the reader raises an error that says what is wrong and where
        return None
    settings = data.model_dump(mode="json", include={"labels", "numbers", "unlabelled", "clean"})
    code = digest_code("data", "tables", "pipeline/cached_data.py", "records.py")
    return digest_parts(code, content, json.dumps(settings))


def _pack_rows(dataset: Dataset) -> Arrays:
    arrays: Arrays = {}
    counts = {}
    for name, rows in dataset.splits.items():
        columns = list(zip(*(record.columns for record in rows), strict=True))
        strings = [record.id for record in rows] + [record.source for record in rows]
        arrays[f"{name}.strings"], arrays[f"{name}.ends"] = pack_strings([*strings, *(s for c in columns for s in c)])
        arrays[f"{name}.labels"] = np.array([_NO_LABEL if r.label is None else r.label for r in rows], np.int64)
        counts[name] = len(rows)
    header = {
        "labels": None if dataset.labels is None else dataset.labels.names,
        "files": dataset.files,
        "column_names": dataset.column_names,
        "notes": dataset.notes,
        "reading": None if dataset.reading is None else dataset.reading.to_json(),
        "counts": counts,
    }
    return {**arrays, "header": _pack_json(header)}


def _unpack_rows(arrays: Arrays) -> Dataset:
    header = _unpack_json(arrays["header"])
    splits = {}
    for name, count in header["counts"].items():
        strings = unpack_strings(arrays[f"{name}.strings"], arrays[f"{name}.ends"])
        ids, sources, *columns = (strings[start : start + count] for start in range(0, len(strings), count))
        labels = [None if label == _NO_LABEL else label for label in arrays[f"{name}.labels"].tolist()]
        splits[name] = list(map(Record, ids, zip(*columns, strict=True), labels, sources))
    names = header["labels"]
    return Dataset(
        splits=splits,
        labels=None if names is None else LabelSet(tuple(names)),
        files=header["files"],
        column_names=tuple(header["column_names"]),
        notes=tuple(header["notes"]),
        reading=None if header["reading"] is None else Reading.from_json(header["reading"], where=_ROWS),
    )


def recall_similar(key: str | None, cache: Cache, find: Callable[[], SimilarTexts]) -> SimilarTexts:
    """Return the similar rows of a data source from the cache, or find them and keep the result.

    Args:
        key: Digest of the rows; None if nothing should be kept.
        cache: Cache for the result.
        find: Function that compares the rows.
    """
    if key is not None:
        key = digest_parts(digest_code("data", "tables", "pipeline/cached_data.py"), key)
    stored = None if key is None else cache.load(_TEXTS, key)
    if stored is not None:
        names = [name.removesuffix(".keys") for name in stored if name.endswith(".keys")]
        keys = {name: stored[f"{name}.keys"] for name in names}
        return SimilarTexts(keys, {name: stored[f"{name}.columns"] for name in names}, stored["links"])
    similar = find()
    if key is not None:
        arrays: Arrays = {"links": similar.links}
        for name in similar.keys:
            arrays |= {f"{name}.keys": similar.keys[name], f"{name}.columns": similar.columns[name]}
        cache.store(_TEXTS, key, arrays)
    return similar


def recall_findings(key: str | None, cache: Cache, examine: Callable[[], DataReport]) -> tuple[JsonObject, set[str]]:
    """Return the data findings from the cache, or examine the rows and keep the result.

    Args:
        key: Digest of the rows, their split and the tokenizer; None if nothing should be kept.
        cache: Cache for the result.
        examine: Function that examines the splits of a run.

    Returns:
        The findings as JSON values, and the ids of the training rows that are also in another split.
    """
    if key is not None:
        code = digest_code(
            "data",
            "tables",
            *(f"pipeline/{name}.py" for name in ("cached_data", "prepare", "choose_rows")),
            "encoding/text_encoder.py",
        )
        key = digest_parts(code, key)
    stored = None if key is None else cache.load(_FINDINGS, key)
    if stored is None:
        report = examine()
        leaking = sorted(report.leaking_ids("train"))
        stored = {"values": _pack_json({"findings": report.to_json(), "leaking": leaking})}
        if key is not None:
            cache.store(_FINDINGS, key, stored)
    # Computed results take the same path as cached ones, so that both are exactly equal.
    values = _unpack_json(stored["values"])
    return values["findings"], set(values["leaking"])


def _pack_json(values: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(json.dumps(values, allow_nan=False).encode(), np.uint8)


def _unpack_json(data: np.ndarray[Any, np.dtype[np.uint8]]) -> JsonObject:
    values: JsonObject = json.loads(data.tobytes())
    return values
