"""The manifest of a run: versions, seeds, digests, machine and state; one JSON file, replaced whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from submillion.errors import RunError
from submillion.storage.files import read_json, write_json
from submillion.storage.json_shapes import (
    ANY_NUMBER,
    COUNT,
    DAMAGED_HINT,
    JsonObject,
    JsonView,
    Maybe,
    Number,
    Shape,
    check_shape,
)

RUN_FORMAT = 1
TEMPERATURE = Number(1e-6, 1e6)
"""Divisors of logits that make sense: near 0 one class is certain, and absurdly large ones make all classes equal."""

ManifestState = Literal["running", "complete", "pruned"]

_SHAPE: dict[str, Shape] = {
    "run_format": COUNT,
    "state?": str,
    "recipe?": str,
    "created?": str,
    "seed?": COUNT,
    "split_seed?": COUNT,
    "base": {"name": str, "origin?": Maybe(str), "revision?": Maybe(str), "weights_sha256": str},
    "precision?": str,
    "device?": str,
    "threads?": COUNT,
    "num_processes?": Number(1, is_whole=True),
    "notes?": [str],
    "versions?": {"*": str},
    "machine?": dict,
    "num_test_evaluations?": COUNT,
    "max_length?": {"rule": str, "max_length": COUNT, "num_cut": COUNT, "num_records": Number(1, is_whole=True)},
    "started_from?": dict,
    "modules?": str,
    "temperature?": TEMPERATURE,
    "best_step?": COUNT,
    "proof?": dict,
    "num_steps?": COUNT,
    "train_s?": Maybe(ANY_NUMBER),
    "rows_per_s?": Maybe(ANY_NUMBER),
    "wall_s?": Maybe(ANY_NUMBER),
}


@dataclass(frozen=True)
class ManifestBase:
    """The base model of a run.

    Attributes:
        name: Name or folder of the base, as the configuration gives it.
        weights_sha256: Digest of its weights.
        origin: Where it was found.
        revision: Commit on the hub, if the base came from there.
    """

    name: str
    origin: str | None
    revision: str | None
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the manifest of a run holds, under the same names and in the same order.

    None stands for what the file does not say: a run writes some of it only when it is done, and earlier versions
    wrote less.

    Attributes:
        state: Whether the run is under way, complete, or was ended early for good.
        recipe: Name of the configuration.
        created: When the run began, in UTC.
        seed: Seed of order, dropout and new weights.
        split_seed: Seed of the splits.
        base: The base model.
        precision: Precision of the frozen weights.
        device: Where it computes.
        threads: CPU threads.
        num_processes: Processes that trained together.
        notes: Notes about the device and the processes.
        versions: Versions of this package, Python and the libraries, by name.
        machine: Processor, cores, memory and system.
        num_test_evaluations: How often the test rows were scored.
        max_length: The limit on tokens, where a rule chose it.
        started_from: The weights that it began with, where these were trained before.
        modules: Modules that compute the encoder.
        temperature: Fitted on the validation rows. A run that has one has its adapter, too.
        best_step: Step of the weights that the adapter holds.
        proof: Findings of a fresh process in the saved files.
        num_steps: Optimizer steps made.
        train_s: Seconds of training, validations included.
        rows_per_s: Training rows per second.
        wall_s: Seconds from the data to the report.
        others: Other content of the file, by key.
    """

    state: ManifestState = "running"
    recipe: str | None = None
    created: str | None = None
    seed: int | None = None
    split_seed: int | None = None
    base: ManifestBase
    precision: str | None = None
    device: str | None = None
    threads: int | None = None
    num_processes: int | None = None
    notes: tuple[str, ...] | None = None
    versions: Mapping[str, str] | None = None
    machine: JsonView | None = None
    num_test_evaluations: int | None = None
    max_length: JsonView | None = None
    started_from: JsonView | None = None
    modules: str | None = None
    temperature: float | None = None
    best_step: int | None = None
    proof: JsonView | None = None
    num_steps: int | None = None
    train_s: float | None = None
    rows_per_s: float | None = None
    wall_s: float | None = None
    others: JsonView | None = None

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read manifest.json.

        Raises:
            RunError: It is missing, damaged or of another run format.
        """
        return cls.from_json(read_json(path), path)

    @classmethod
    def from_json(cls, values: JsonObject, path: Path) -> Manifest:
        """Return what `to_json` has given.

        Args:
            values: Content of the file.
            path: The file, for messages.

        Raises:
            RunError: The values are damaged or of another run format.
        """
        if values.get("run_format") != RUN_FORMAT:
            raise RunError(
                f"has run format {values.get('run_format')!r:.40}, this version reads {RUN_FORMAT}",
                where=str(path),
                hint="Use the version of submillion that made the run.",
            )
        check_shape(values, _SHAPE, path)
        if values.get("state", "running") not in get_args(ManifestState):
            problem = f"state is {values['state']!r:.60}, not one of {', '.join(get_args(ManifestState))}"
            raise RunError(f"is damaged: {problem}", where=str(path), hint=DAMAGED_HINT)
        known = {key.removesuffix("?") for key in _SHAPE}
        found = {key: value for key, value in values.items() if key in known - {"run_format", "base", "notes"}}
        base = values["base"]
        return cls(
            base=ManifestBase(base["name"], base.get("origin"), base.get("revision"), base["weights_sha256"]),
            notes=tuple(values["notes"]) if "notes" in values else None,
            others={key: value for key, value in values.items() if key not in known},
            **found,
        )

    def to_json(self) -> JsonObject:
        """Return what manifest.json holds; what is None is left out."""
        values: JsonObject = {"run_format": RUN_FORMAT}
        for field in fields(self):
            value = getattr(self, field.name)
            # A run that makes no step in its last process, and was never timed before, says that it has no rate.
            if value is not None or (field.name == "rows_per_s" and self.num_steps is not None):
                values[field.name] = value
        if self.notes is not None:
            values["notes"] = list(self.notes)
        others = values.pop("others", {})
        return {**values, "base": asdict(self.base), **others}

    def write(self, path: Path) -> None:
        """Write manifest.json, atomically.

        Raises:
            RunError: The disk is full.
        """
        write_json(path, self.to_json())
