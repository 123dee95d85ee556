"""The run folder: the name of every file in it, and which of them may be used."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from submillion.errors import ConfigError, RunError
from submillion.run.manifest import Manifest
from submillion.storage.files import ODD_HINT, explain_odd_file

RunState = Literal["new", "running", "trained", "finished", "pruned"]
"""How far a run has come: nothing is there; it is under way; its weights and temperature are saved; all of it is done,
figures included; or it was ended early for good."""


@dataclass(frozen=True)
class RunDir:
    """Paths inside one run folder. Each call reads the files again, so nothing here goes stale."""

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
    def trained_rows(self) -> Path:
        """Digests of the rows that the weights were trained on, here and in the run that this one began with."""
        return self.path / "trained_rows.digests"

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
    def trackers(self) -> Path:
        """The ids that the run has in its trackers."""
        return self.path / "trackers.json"

    @property
    def probe(self) -> Path:
        """Texts that a fresh process is asked about, while it is."""
        return self.path / ".probe.json"

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

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a run itself may write at the top of its folder."""
        written = (self.config, self.plan, self.data, self.trained_rows, self.manifest, self.log, self.lock, self.head)
        return (*written, self.report, self.card, self.trackers, self.probe)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that a run itself may write, apart from exports and the folders of its trackers."""
        return (self.checkpoints, self.adapter, self.tokenizer, self.plots, self.path / "evaluation")

    def evaluation(self, split: str) -> Path:
        """Figures of one split or watched set, or of its baseline (``<split>.baseline``)."""
        return self.path / "evaluation" / f"{split}.json"

    def predictions(self, split: str) -> Path:
        """Per-record predictions of one split or watched set."""
        return self.path / "evaluation" / f"{split}.predictions.parquet"

    def state(self) -> RunState:
        """Return how far the run has come, as its manifest and its adapter say.

        Raises:
            RunError: The manifest is damaged or of another run format, or the folder holds links.
        """
        refuse_links(self)
        if not self.manifest.exists():
            return "running" if self.config.exists() else "new"
        manifest = Manifest.read(self.manifest)
        if manifest.state == "pruned":
            return "pruned"
        if manifest.state == "complete":
            return "finished"
        return "trained" if self._holds_weights(manifest) else "running"

    def has_weights(self) -> bool:
        """Return whether the folder holds the weights that its training ended with, and the temperature for them.

        A search removes the weights of finished trials that it does not need.

        Raises:
            RunError: As `state`.
        """
        refuse_links(self)
        return self.manifest.exists() and self._holds_weights(Manifest.read(self.manifest))

    def _holds_weights(self, manifest: Manifest) -> bool:
        return manifest.temperature is not None and self.adapter.is_dir()


def refuse_links(run: RunDir) -> None:
    """Refuse a run folder in which anything that is read or written is a link, a pipe or a device.

    A run folder may come from a stranger. A link in it makes this package read, or overwrite, a file elsewhere, and a
    pipe makes it wait for ever. The folder itself may be reached through a link. What exports and
    trackers keep in their folders is not looked at, but these folders themselves must be real ones.

    Args:
        run: The run folder; files may be absent.

    Raises:
        RunError: With the first such thing.
    """
    others = [run.path / name for name in ("export", "export/merged", "export/adapter", "tensorboard", "wandb")]
    refuse_odd_files(run.files, (*run.folders, *others))
    for folder in run.folders:
        _refuse_links_below(folder)


def refuse_odd_files(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Refuse links, pipes and devices in the places of files and folders, which may be absent.

    Raises:
        RunError: With the first such thing.
    """
    for file in files:
        _refuse_odd(file, is_folder=False)
    for folder in folders:
        _refuse_odd(folder, is_folder=True)


def _refuse_odd(path: Path, *, is_folder: bool) -> None:
    reason = explain_odd_file(path, is_folder=is_folder)
    if reason:
        raise RunError(reason, where=str(path), hint=ODD_HINT)


def _refuse_links_below(folder: Path) -> None:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        _refuse_odd(Path(entry.path), is_folder=is_folder)
        if is_folder:
            _refuse_links_below(Path(entry.path))


def refuse_overwriting(out: Path, inputs: Iterable[Path] = (), *, where: str) -> None:
    """Refuse an output that would take the place of something that is read, or of a part of a run.

    Links and other spellings of a path are seen through, since it is the files themselves that are compared.

    Args:
        out: The file or folder to be written.
        inputs: Files that are read, and folders in which nothing may be written.
        where: Argument that named the output, for messages.

    Raises:
        ConfigError: It is one of them, or lies in one of the folders, or among the files of a run.
    """
    place = Path(os.path.realpath(out))
    for path in inputs:
        if _is_same(out, path) or (path.is_dir() and any(_is_same(parent, path) for parent in place.parents)):
            raise ConfigError(
                f"is read by this command: {path}" if _is_same(out, path) else f"lies in a folder that is read: {path}",
                where=where,
                hint="Name another place; nothing was written.",
            )
    for parent in place.parents:
        run = RunDir(parent)
        inner = place.relative_to(parent).parts[0]
        if (
            inner.lower() in {path.name.lower() for path in (*run.files, *run.folders)}
            and run.config.is_file()
            and run.manifest.is_file()
        ):
            raise ConfigError(
                f"belongs to the run {parent}",
                where=where,
                hint="Name a place outside of the run; nothing was written.",
            )


def _is_same(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)
