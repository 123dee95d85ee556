"""Read a run folder into one typed structure. Parts that a run does not have are empty, never invented."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import parquet

from submillion.budget.plan import Plan
from submillion.config.run import load_yaml
from submillion.errors import RunError
from submillion.run import shapes
from submillion.run.folder import RunDir
from submillion.run.manifest import Manifest
from submillion.run.reader import read_config_text, read_manifest
from submillion.storage.files import read_json, read_log, read_plain

MAX_PREDICTIONS_BYTES = 4 << 30
MAX_PREDICTIONS = 20_000_000
FIRST_SPLITS = ("test", "validation")  # the order of reading; watched sets follow by name

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Per-record outcomes of one split, in the order of its rows.

    Attributes:
        ids: Record ids, n of them.
        labels: True label ids, shape (n,).
        predicted: Predicted label ids, shape (n,).
        confidence: Probability of the prediction, shape (n,).
        probabilities: Of every class, shape (n, C).
        texts: Texts as the model read them.
        sources: Where each row stands, ``file:line``.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: FloatArray
    probabilities: FloatArray
    texts: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, shape (n,)."""
        return np.asarray(self.labels == self.predicted)


@dataclass(frozen=True)
class LoadedRun:
    """What a run folder holds.

    Attributes:
        path: The folder.
        title: Short name for tables and legends.
        config: The resolved settings.
        plan: The parameter plan; empty if there is none.
        data: The data doctor's findings, split sizes, digests; empty if there are none.
        manifest: Versions, seeds, machine; None if there is none.
        steps: One array a numeric field of the log's steps; all of one length.
        learning_rates: One array a parameter group.
        evaluations: Log entries of the evaluations during training, by split or watched set.
        notes: Messages of the log.
        results: Figures after training, by split or watched set, test first.
        baselines: Figures of the baseline, by split.
        labels: Class names in label order; empty if nothing names them.
        train_sample: Figures of the training rows that were scored at the end; empty if none were.
        kind: ``run`` for a run folder, ``trainer`` for what `transformers.Trainer` leaves behind.
        facts: What else its files say, by name; for a table.
        num_skipped: Figures of the log that are not finite, and so in no plot.
        set_sizes: Rows of the sets evaluated during training, where another trainer's files tell them.
    """

    path: Path
    title: str
    config: dict[str, Any]
    plan: dict[str, Any]
    data: dict[str, Any]
    manifest: Manifest | None
    steps: dict[str, FloatArray]
    learning_rates: dict[str, FloatArray]
    evaluations: dict[str, list[dict[str, Any]]]
    notes: tuple[str, ...]
    results: dict[str, dict[str, Any]]
    baselines: dict[str, dict[str, Any]]
    labels: tuple[str, ...]
    train_sample: dict[str, Any] = field(default_factory=dict)
    kind: Literal["run", "trainer"] = "run"
    facts: dict[str, Any] = field(default_factory=dict)
    num_skipped: int = 0
    set_sizes: dict[str, int] = field(default_factory=dict)

    def count_evaluated(self, split: str) -> int | None:
        """Return the rows of a set that was evaluated during training, if anything says so."""
        known = self.set_sizes.get(split, self.results.get(split, {}).get("num_records"))
        if known is None and split == "validation":
            known = self.data.get("num_validation")
        return known if isinstance(known, int) and known > 0 else None

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation that chose the checkpoint: the last one marked best."""
        marked = [entry for entry in self.evaluations.get("validation", []) if entry.get("best")]
        return marked[-1] if marked else None

    @property
    def train_s(self) -> float | None:
        """Seconds of training, validations included: the manifest's, else up to the last entry of the log."""
        if self.manifest is not None and self.manifest.train_s is not None:
            return float(self.manifest.train_s)
        entries = [self.steps["elapsed_s"][-1]] if len(self.steps.get("elapsed_s", ())) else []
        entries += [values[-1]["elapsed_s"] for values in self.evaluations.values() if "elapsed_s" in values[-1]]
        return float(max(entries)) if entries else None

    @property
    def records_per_s(self) -> float | None:
        """Training records per second of training steps, validations left out: the manifest's, else the log's."""
        if self.manifest is not None and self.manifest.rows_per_s is not None:
            return float(self.manifest.rows_per_s)
        seconds, records = self.steps.get("step_s"), self.steps.get("num_records")
        if seconds is None or records is None or not seconds.sum():
            return None
        return float(records.sum() / seconds.sum())


def load_run(path: Path) -> LoadedRun:
    """Read a run folder.

    Raises:
        RunError: The folder is none of a run, or a file in it is damaged.
    """
    run = RunDir(path)
    if not path.is_dir() or not os.path.lexists(run.config):
        raise RunError("is not a run folder: it has no config.yaml", where=str(path), hint="Give a folder under runs/.")
    config = load_yaml(read_config_text(run), where=str(run.config))
    shapes.check_settings(config, run.config)
    entries = read_log(run.log)
    shapes.check_log(entries, run.log)
    data = _read_optional(run.data)
    shapes.check_data(data, find_part(data, "num_exact_duplicates", "splits"), run.data)
    plan = _read_optional(run.plan)
    if plan:
        Plan.from_json(plan, where=str(run.plan))
    sample = _read_optional(run.evaluation("train.sample"))
    if sample:
        shapes.check_sample(sample, run.evaluation("train.sample"))
    steps = [entry for entry in entries if entry.get("kind") == "step"]
    evaluations: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry.get("kind") == "evaluation":
            evaluations.setdefault(str(entry.get("split", "validation")), []).append(entry)
    results, baselines = _read_results(path / "evaluation")
    return LoadedRun(
        path=path,
        title=path.resolve().name,
        config=config,
        plan=plan,
        data=data,
        manifest=read_manifest(run) if run.manifest.exists() else None,
        steps=gather(steps),
        learning_rates=gather(entry.get("learning_rates") or {} for entry in steps),
        evaluations=evaluations,
        notes=tuple(str(entry.get("message", "")) for entry in entries if entry.get("kind") == "note"),
        results=results,
        baselines=baselines,
        labels=_find_labels(config, results),
        train_sample=sample,
    )


def name_runs(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    """Title several runs by recipe and seed where that tells them apart; otherwise they keep their folders' names."""
    titles = [
        run.title if run.kind == "trainer" else f"{run.config.get('name', run.title)} seed {run.config.get('seed', 0)}"
        for run in runs
    ]
    if len(runs) == 1 or len(set(titles)) < len(runs):
        return list(runs)
    return [replace(run, title=title) for run, title in zip(runs, titles, strict=True)]


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _read_results(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    results: dict[str, dict[str, Any]] = {}
    baselines: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.json")):
        split, _, kind = file.stem.partition(".")
        if not kind:
            results[split] = read_json(file)
            shapes.check_result(results[split], file)
        elif kind == "baseline":
            baselines[split] = read_json(file)
            shapes.check_baseline(baselines[split], file)
    order = [split for split in FIRST_SPLITS if split in results] + sorted(set(results) - set(FIRST_SPLITS))
    return {split: results[split] for split in order}, baselines


def find_part(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return the first mapping in a tree, the tree itself included, that holds all of the keys; else an empty one."""
    if all(key in values for key in keys):
        return dict(values)
    for value in values.values():
        if isinstance(value, Mapping) and (found := find_part(value, *keys)):
            return found
    return {}


def gather(rows: Iterable[Mapping[str, Any]]) -> dict[str, FloatArray]:
    """Return one array for each numeric field of any row, NaN where a row does not have it."""
    listed = list(rows)
    keys = dict.fromkeys(key for row in listed for key, value in row.items() if is_number(value))
    return {
        key: np.array([row[key] if is_number(row.get(key)) else np.nan for row in listed], dtype=np.float64)
        for key in keys
    }


def is_number(value: object) -> bool:
    """Return whether a value of JSON is a number, infinities included."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _find_labels(config: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    for result in results.values():
        if result.get("per_class"):
            return tuple(str(entry["label"]) for entry in result["per_class"])
    return tuple(str(name) for name in (config.get("data") or {}).get("labels") or ())


def read_predictions(path: Path, split: str) -> Predictions | None:
    """Read the per-record predictions of one split, or None where the run has none.

    Args:
        path: The run folder.
        split: Split or watched set.

    Raises:
        RunError: The file is damaged or lacks a column.
    """
    file = RunDir(path).predictions(split)
    if not os.path.lexists(file):
        return None
    try:
        content = _read_table(file)
        probabilities = sorted(
            (name for name in content.column_names if name.startswith("probability_")), key=lambda n: int(n[12:])
        )
        scores = np.stack([content[name].to_numpy().astype(np.float64) for name in probabilities], axis=1)
        labels, predicted = (content[name].to_numpy().astype(np.int64) for name in ("label_id", "predicted_id"))
        for name, values in (("label_id", labels), ("predicted_id", predicted)):
            if len(values) and not 0 <= values.min() <= values.max() < scores.shape[1]:
                raise ValueError(f"{name} holds ids outside of its {scores.shape[1]} classes")
        if not ((scores >= 0) & (scores <= 1 + 1e-6)).all():
            raise ValueError("probabilities are not all between 0 and 1")
        ids, texts, sources = (tuple(content[name].to_pylist()) for name in ("id", "text", "source"))
        if not all(isinstance(text, str) for text in (*ids, *texts, *sources)):
            raise ValueError("id, text or source holds something else than text")
    except (KeyError, ValueError, IndexError, OSError, TypeError, OverflowError, pyarrow.ArrowException) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"is damaged: {error}", where=str(file), hint="Evaluate the run again to rewrite it.") from None
    return Predictions(
        ids=ids,
        labels=labels,
        predicted=predicted,
        confidence=scores[np.arange(len(predicted)), predicted],
        probabilities=scores,
        texts=texts,
        sources=sources,
    )


def _read_table(file: Path) -> pyarrow.Table:
    content = parquet.ParquetFile(pyarrow.BufferReader(read_plain(file, MAX_PREDICTIONS_BYTES)))
    size = sum(content.metadata.row_group(number).total_byte_size for number in range(content.num_row_groups))
    if size > MAX_PREDICTIONS_BYTES or content.metadata.num_rows > MAX_PREDICTIONS:
        raise ValueError(f"{content.metadata.num_rows:,} rows of {size:,} bytes are more than a report takes")
    table = content.read()
    table.validate(full=True)
    return table


def read_scored_texts(run: RunDir, split: str) -> list[str]:
    """Return the texts of a split that was scored, in order, as the model read them.

    Args:
        run: The run folder.
        split: Name of the set.

    Raises:
        RunError: The split has not been scored, or the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run.predictions(split)
    hint = f"Continue the run to its end: submillion train --resume {run.path}"
    if not path.exists():
        raise RunError(f"has no scored {split} rows to compare the export on", where=str(path), hint=hint)
    try:
        texts: list[str] = pq.read_table(path, columns=["text"]).column("text").to_pylist()
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError("its column text holds no texts")
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise RunError(f"is damaged: {str(error).splitlines()[0][:200]}", where=str(path), hint=hint) from None
    return texts
