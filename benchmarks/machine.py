"""The setting of a bench: its options, scratch folder, the machine's allowance, the base model and the rows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.cases import Kind
from benchmarks.child import MeasuredProcess, find_cache
from benchmarks.measured_child import Job
from benchmarks.prepare_peers import RANDOM_BASES
from benchmarks.row_source import RowSource, read_rows
from submillion.model.sources import find_base, load_base_config
from submillion.storage.private_folders import find_cache_folder

MAX_LENGTH = 192
"""Number of tokens kept of a text, as in published systems, if the base model has enough positions."""

NUM_RUN_LABELS = 4
"""Number of classes of the shipped news items, which train the run for scoring."""


_NO_ROWS: Mapping[str, Any] = MappingProxyType(
    {"rows": "", "num_warmup": 0, "num_rounds": 0, "round_rows": 0, "num_labels": NUM_RUN_LABELS}
)


@dataclass(frozen=True)
class BenchSettings:
    """Options of a bench.

    Attributes:
        kinds: Kinds of measurement, in order.
        base: A base model, or a key of `RANDOM_BASES`.
        data: Path of a file or folder, or hub id; None takes the shipped news items.
        num_rows: Number of rows in all measured rounds together; None takes the kind's default.
        num_rounds: Number of rounds of each case.
        peers: Whether other libraries are measured too.
        threads: Number of CPU threads of every process; None takes this process's allowance.
        batch_size: Number of records in a training step.
        dropout: Dropout of encoder and adapters; None for the base model's, and none in the adapters.
        bulk_rows: Number of rows of the long prediction.
    """

    kinds: tuple[Kind, ...]
    base: str = "minilm-l6"
    data: str | None = None
    num_rows: int | None = None
    num_rounds: int = 4
    peers: bool = False
    threads: int | None = None
    batch_size: int = 32
    dropout: float | None = None
    bulk_rows: int = 50_000


@dataclass(frozen=True)
class Site:
    """The state that all kinds of one bench share.

    Attributes:
        settings: Options of the bench.
        scratch: Folder for all outputs.
        device: ``cpu`` or ``cuda``.
        threads: Number of CPU threads of every process.
        base: Folder of the base model.
        config: Configuration of the base model.
        source: Source of the rows.
        machine: Description of processor, memory and system, as JSON types.
    """

    settings: BenchSettings
    scratch: Path
    device: str
    threads: int
    base: Path
    config: Mapping[str, Any]
    source: RowSource
    machine: Mapping[str, Any]

    def make_job(self, runner: str, options: Mapping[str, Any], **sizes: Any) -> Job:
        """Return the job of a process; `sizes` are the fields of `Job` that say how much it does."""
        return Job(
            runner=runner,
            options=options,
            base=str(self.base),
            folder=str(self.scratch),
            max_length=self.max_length,
            threads=self.threads,
            device=self.device,
            dropout=self.settings.dropout,
            batch_size=self.settings.batch_size,
            **{**_NO_ROWS, **sizes},
        )

    def prepare(self, *, run: bool = False, peers: bool = False) -> None:
        """Make the requested inputs that do not exist yet.

        Args:
            run: Whether to make a trained run.
            peers: Whether to make its merged stock form, also as ONNX if such peers run on this device.

        Raises:
            RunError: Making them has failed.
        """
        name = self.settings.base
        options = {
            "name": name,
            "random": name if name in RANDOM_BASES and not self.base.exists() else None,
            "run": run and not self.run.exists(),
            "merged": peers,
            "onnx": peers and self.device == "cpu",
        }
        if any(options[key] for key in ("random", "run", "merged")):
            with MeasuredProcess("preparation", self.make_job("prepare", options)) as process:
                process.finish()

    @property
    def max_length(self) -> int:
        """Number of tokens kept of a text."""
        positions = int(self.config.get("max_position_embeddings", MAX_LENGTH))
        # Positions of the RoBERTa family begin after that of padding. For other families the difference hardly matters.
        return min(MAX_LENGTH, positions - int(self.config.get("pad_token_id") or 0) - 1)

    @property
    def run(self) -> Path:
        """The trained run, after it was prepared."""
        return self.scratch / "run"


def open_site(settings: BenchSettings, scratch: Path) -> Site:
    """Find the base model, the rows and the machine's allowance.

    Raises:
        DataError: The rows cannot be read.
        ModelError: The base model cannot be found.
    """
    random = RANDOM_BASES.get(settings.base)
    base = scratch / settings.base if random else find_base(settings.base).folder
    site = Site(
        settings=settings,
        scratch=scratch,
        device="cpu",
        threads=settings.threads or 1,
        base=base,
        config=load_base_config(random or settings.base),
        source=read_rows(settings.data),
        machine={},
    )
    _share_kernels(find_cache(scratch))
    with MeasuredProcess("look", site.make_job("look", {})) as process:
        facts = process.finish()
    threads = settings.threads or facts["threads"]
    machine = {**facts["machine"], "device": facts["device"], "threads": threads}
    return replace(site, device=facts["device"], threads=threads, machine=machine)


def _share_kernels(cache: Path) -> None:
    """Copy the kernels that this machine has built; nothing else of the user's cache is used here."""
    kernels = find_cache_folder() / "kernels"
    if kernels.is_dir():
        shutil.copytree(kernels, cache / "kernels")
