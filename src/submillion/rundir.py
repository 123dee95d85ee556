"""The run folder: the name of every file in it, and which of them may be used; and the cache's place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from submillion.files import (
    expand_home,
    explain_odd_file,
    full_disk_is_run_error,
    hold_folder,
    read_json,
    read_log,
    remove_leftovers,
    sync_folder,
    write_atomically,
    write_bytes,
    write_json,
    write_text,
)

__all__ = [
    "CACHE_OFF",
    "CACHE_SETTING",
    "RUN_FORMAT",
    "RunDir",
    "expand_home",
    "explain_odd_file",
    "find_cache_folder",
    "full_disk_is_run_error",
    "hold_folder",
    "read_json",
    "read_log",
    "remove_leftovers",
    "sync_folder",
    "write_atomically",
    "write_bytes",
    "write_json",
    "write_text",
]

RUN_FORMAT = 1

CACHE_SETTING, CACHE_OFF = "SUBMILLION_CACHE", "off"
"""Environment variable that names another folder for the cache; ``off`` keeps nothing of the data."""


@dataclass(frozen=True)
class RunDir:
    """Paths inside one run folder; holds no state of its own."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; replays the run."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """The parameter plan."""
        return self.path / "plan.json"

    @property
    def data(self) -> Path:
        """The data doctor's report, split sizes and digests."""
        return self.path / "data.json"

    @property
    def manifest(self) -> Path:
        """Versions, seeds, threads, digests, machine, state of the run, number of test evaluations."""
        return self.path / "manifest.json"

    @property
    def log(self) -> Path:
        """One JSON line a step or evaluation."""
        return self.path / "log.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the process that trains in the folder."""
        return self.path / ".lock"

    @property
    def checkpoints(self) -> Path:
        """Folder of ``step-N`` checkpoints and the pointer files ``last`` and ``best``."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The best adapter in PEFT's format."""
        return self.path / "adapter"

    @property
    def head(self) -> Path:
        """Weights of a linear head, which is not part of a PEFT adapter."""
        return self.path / "head.safetensors"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that encoded the training rows."""
        return self.path / "tokenizer"

    @property
    def plots(self) -> Path:
        """Plots as PNG."""
        return self.path / "plots"

    @property
    def report(self) -> Path:
        """The self-contained HTML report."""
        return self.path / "report.html"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    def evaluation(self, split: str) -> Path:
        """Figures of one split or watched set, or of its baseline (``<split>.baseline``)."""
        return self.path / "evaluation" / f"{split}.json"

    def predictions(self, split: str) -> Path:
        """Per-record predictions of one split or watched set."""
        return self.path / "evaluation" / f"{split}.predictions.parquet"


def find_cache_folder() -> Path:
    """Return the folder for what can be made again: SUBMILLION_CACHE, or ``submillion`` in the user's cache.

    Raises:
        ConfigError: Nothing says where the user's home is.
    """
    setting = os.environ.get(CACHE_SETTING, "")
    if setting and setting != CACHE_OFF:
        return expand_home(setting, where=CACHE_SETTING)
    # The XDG specification has relative paths ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (
        base
        if base.is_absolute()
        else expand_home(
            "~/.cache", where="the cache", hint=f"Name a folder of your own: {CACHE_SETTING}=/path/to/folder"
        )
    ) / "submillion"
