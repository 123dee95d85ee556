"""All that a run folder says about a run, in one typed structure. Missing parts are None or empty."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from submillion.budget.plan import Plan
from submillion.config.run import RunConfig
from submillion.errors import RunError
from submillion.run import shapes
from submillion.run.figures import BaselineFigures, DataFile, Findings, SampleFigures, SetFigures
from submillion.run.folder import RunDir
from submillion.run.manifest import Manifest
from submillion.run.reader import read_config, read_manifest, read_plan
from submillion.storage.files import read_json, read_log
from submillion.storage.json_shapes import JsonObject, JsonView

FIRST_SPLITS = ("test", "validation")  # the order of reading; watched sets follow by name
_PLACE = ("kind", "step", "epoch", "split", "best", "elapsed_s")

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Validation:
    """One evaluation during training, on the validation rows or on a watched set.

    Attributes:
        step: Optimizer steps made before it.
        figures: Measured figures by name, in the order of the log.
        epoch: Passes over the training rows made before it, if the log tells.
        elapsed_s: Seconds since training began, if the log tells.
        is_best: Whether its checkpoint was the best so far.
    """

    step: float
    figures: Mapping[str, float]
    epoch: float | None = None
    elapsed_s: float | None = None
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class RunHistory:
    """What is known of a run.

    Attributes:
        path: The folder.
        title: Short name for tables and legends.
        config: The resolved settings; None for a run of `transformers.Trainer`, whose files hold none.
        plan: The parameter plan, if there is one.
        data: Split sizes, digests and the data doctor's findings; empty if there are none.
        manifest: Versions, seeds and machine, if there is one.
        steps: One array a numeric field of the log's steps; all of one length.
        learning_rates: One array a parameter group.
        evaluations: Evaluations during training, by split or watched set.
        notes: Messages of the log.
        results: Figures after training, by split or watched set, test first.
        baselines: Figures of the baseline, by split.
        labels: Class names in label order; empty if nothing names them.
        train_sample: Figures of the training rows that were scored at the end, if any were.
        facts: Other facts in the files of another trainer, by name.
        num_skipped: Figures of another trainer's log that are not finite, and so in no plot.
        set_sizes: Rows of the sets evaluated during training, where another trainer's files tell them.
    """

    path: Path
    title: str
    config: RunConfig | None = None
    plan: Plan | None = None
    data: DataFile = field(default_factory=DataFile)
    manifest: Manifest | None = None
    steps: Mapping[str, FloatArray] = field(default_factory=dict)
    learning_rates: Mapping[str, FloatArray] = field(default_factory=dict)
    evaluations: Mapping[str, Sequence[Validation]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    results: Mapping[str, SetFigures] = field(default_factory=dict)
    baselines: Mapping[str, BaselineFigures] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    train_sample: SampleFigures | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    num_skipped: int = 0
    set_sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether submillion trained it; otherwise it is a run of `transformers.Trainer`."""
        return self.config is not None

    @property
    def main_split(self) -> str | None:
        """The set that a verdict rests on: test, else validation, else any that was evaluated."""
        return next(iter(self.results), None)

    @property
    def watched(self) -> list[str]:
        """The sets that were evaluated at the end beside test and validation."""
        return [split for split in self.results if split not in FIRST_SPLITS]

    @property
    def findings(self) -> Findings | None:
        """What the data doctor found, if it was asked."""
        return self.data.get("check")

    @property
    def digests(self) -> list[tuple[str, str]]:
        """The files that were read, synthetic rows last, with the SHA-256 of each; empty where the run names none."""
        extra = [(file["data"], file["sha256"]) for file in self.data.get("extra") or []]
        return [*self.data["files"].items(), *extra] if self.data.get("files") else []

    @property
    def num_looks(self) -> int | None:
        """How often this run looked at its test split, if the manifest says so."""
        return None if self.manifest is None else self.manifest.num_test_evaluations

    @property
    def best(self) -> Validation | None:
        """The validation that chose the checkpoint: the last one marked best."""
        marked = [row for row in self.evaluations.get("validation", ()) if row.is_best]
        return marked[-1] if marked else None

    @property
    def train_s(self) -> float | None:
        """Seconds of training, validations included: the manifest's, else up to the last entry of the log."""
        if self.manifest is not None and self.manifest.train_s is not None:
            return float(self.manifest.train_s)
        steps = self.steps.get("elapsed_s", np.empty(0))
        entries = [float(end) for end in steps[-1:]]
        entries += [end for rows in self.evaluations.values() if (end := rows[-1].elapsed_s) is not None]
        return max(entries) if entries else None

    @property
    def records_per_s(self) -> float | None:
        """Training records per second of training steps, validations left out: the manifest's, else the log's."""
        if self.manifest is not None and self.manifest.rows_per_s is not None:
            return float(self.manifest.rows_per_s)
        seconds, records = self.steps.get("step_s"), self.steps.get("num_records")
        if seconds is None or records is None or not seconds.sum():
            return None
        return float(records.sum() / seconds.sum())

    def count_evaluated(self, split: str) -> int | None:
        """Return the rows of a set that was evaluated during training, if anything says so."""
        known = self.set_sizes.get(split)
        if known is None and split in self.results:
            known = self.results[split]["num_records"]
        if known is None and split == "validation":
            known = self.data.get("num_validation")
        return known or None


def read_history(path: Path) -> RunHistory:
    """Read a run folder.

    Raises:
        RunError: The folder is none of a run, or a file in it is damaged.
        ConfigError: Its configuration has been edited into something that does not fit.
    """
    run = RunDir(path)
    if not path.is_dir() or not os.path.lexists(run.config):
        raise RunError("is not a run folder: it has no config.yaml", where=str(path), hint="Give a folder under runs/.")
    config = read_config(run)
    entries = read_log(run.log)
    shapes.check_log(entries, run.log)
    data = _read_optional(run.data) or {}
    shapes.check_data(data, run.data)
    sample = _read_optional(run.evaluation("train.sample"))
    if sample is not None:
        shapes.check_sample(sample, run.evaluation("train.sample"))
    steps = [entry for entry in entries if entry.get("kind") == "step"]
    evaluations: dict[str, list[Validation]] = {}
    for entry in entries:
        if entry.get("kind") == "evaluation":
            evaluations.setdefault(str(entry.get("split", "validation")), []).append(_read_validation(entry))
    results, baselines = _read_results(path / "evaluation")
    return RunHistory(
        path=path,
        title=path.resolve().name,
        config=config,
        plan=read_plan(run) if run.plan.exists() else None,
        data=cast("DataFile", data),
        manifest=read_manifest(run) if run.manifest.exists() else None,
        steps=gather(steps),
        learning_rates=gather(entry.get("learning_rates") or {} for entry in steps),
        evaluations=evaluations,
        notes=tuple(str(entry.get("message", "")) for entry in entries if entry.get("kind") == "note"),
        results=results,
        baselines=baselines,
        labels=_find_labels(config, results),
        train_sample=cast("SampleFigures | None", sample),
    )


def name_runs(runs: Sequence[RunHistory]) -> list[RunHistory]:
    """Title several runs by recipe and seed where that tells them apart; otherwise they keep their folders' names."""
    titles = [run.title if run.config is None else f"{run.config.name} seed {run.config.seed}" for run in runs]
    if len(runs) == 1 or len(set(titles)) < len(runs):
        return list(runs)
    return [replace(run, title=title) for run, title in zip(runs, titles, strict=True)]


def _read_optional(path: Path) -> JsonObject | None:
    return read_json(path) if path.exists() else None


def _read_validation(entry: JsonView) -> Validation:
    return Validation(
        step=float(entry["step"]),
        figures={name: to_float(value) for name, value in entry.items() if name not in _PLACE and is_number(value)},
        epoch=entry.get("epoch"),
        elapsed_s=entry.get("elapsed_s"),
        is_best=bool(entry.get("best")),
    )


def _read_results(folder: Path) -> tuple[dict[str, SetFigures], dict[str, BaselineFigures]]:
    results: dict[str, SetFigures] = {}
    baselines: dict[str, BaselineFigures] = {}
    for file in sorted(folder.glob("*.json")):
        split, _, kind = file.stem.partition(".")
        values = read_json(file) if kind in ("", "baseline") else {}
        if not kind:
            shapes.check_result(values, file)
            results[split] = cast("SetFigures", values)
        elif kind == "baseline":
            shapes.check_baseline(values, file)
            baselines[split] = cast("BaselineFigures", values)
    order = [split for split in FIRST_SPLITS if split in results] + sorted(set(results) - set(FIRST_SPLITS))
    return {split: results[split] for split in order}, baselines


def gather(rows: Iterable[Mapping[str, object]]) -> dict[str, FloatArray]:
    """Return one array for each numeric field of any row, NaN where a row does not have it."""
    listed = list(rows)
    keys = dict.fromkeys(key for row in listed for key, value in row.items() if is_number(value))
    return {key: np.array([to_float(row.get(key)) for row in listed], dtype=np.float64) for key in keys}


def is_number(value: object) -> bool:
    """Return whether a value of JSON is a number, infinities included."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def to_float(value: object) -> float:
    """Return a value of JSON as a number: NaN where it is none, infinity where no float can hold it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return float("nan")
    try:
        return float(value)
    except OverflowError:  # whole numbers of JSON have no limit
        return float("inf")


def _find_labels(config: RunConfig, results: Mapping[str, SetFigures]) -> tuple[str, ...]:
    for result in results.values():
        if result["per_class"]:
            return tuple(entry["label"] for entry in result["per_class"])
    return config.data.labels
