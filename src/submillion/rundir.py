"""The run folder: the name of every file in it, and which of them may be used; and the cache's place."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from submillion.errors import ConfigError, RunError
from submillion.files import (
    ODD_HINT,
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
from submillion.private_folders import HOMELESS

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

_OWN_NAMES = frozenset(
    {
        *("config.yaml", "plan.json", "data.json", "manifest.json", "log.jsonl", ".lock", "head.safetensors"),
        *("checkpoints", "adapter", "tokenizer", "plots", "evaluation", "report.html", "README.md", "rows.parquet"),
        *("trained_rows.digests", "trackers.json", ".probe.json"),
    }
)

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

    def evaluation(self, split: str) -> Path:
        """Figures of one split or watched set, or of its baseline (``<split>.baseline``)."""
        return self.path / "evaluation" / f"{split}.json"

    def predictions(self, split: str) -> Path:
        """Per-record predictions of one split or watched set."""
        return self.path / "evaluation" / f"{split}.predictions.parquet"


def refuse_links(run: RunDir) -> None:
    """Refuse a run folder in which anything that is read or written is a link, a pipe or a device.

    A run folder may come from a stranger. A link in it makes this package read, or overwrite, a file elsewhere, and a
    pipe makes it wait for ever. The folder itself may be reached through a link. What trackers and exports keep in
    folders of their own is theirs; these folders themselves must be none of the kind.

    Args:
        run: The run folder; files may be absent.

    Raises:
        RunError: With the first such thing.
    """
    files = (run.config, run.plan, run.data, run.manifest, run.log, run.lock, run.head, run.report, run.card)
    trackers = [run.path / name for name in ("export", "export/merged", "export/adapter", "tensorboard", "wandb")]
    own = (run.checkpoints, run.adapter, run.tokenizer, run.plots, run.evaluation("test").parent)
    refuse_odd_files((*files, run.trackers, run.probe, run.trained_rows), (*own, *trackers))
    for folder in own:
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


def find_cache_folder() -> Path:
    """Return the folder for what can be made again: SUBMILLION_CACHE, or ``submillion`` in the user's cache.

    Where nothing says what the user's home is, it is one in which nothing can lie (see `explain_distrust`).

    Raises:
        ConfigError: SUBMILLION_CACHE begins with the home of a user that there is not.
    """
    setting = os.environ.get(CACHE_SETTING, "")
    if setting and setting != CACHE_OFF:
        return expand_home(setting, where=CACHE_SETTING)
    # The XDG specification has relative paths ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        # Without a home nothing is kept; it is no reason to fail.
        base = HOMELESS if os.path.expanduser("~") == "~" else Path("~/.cache").expanduser()
    return base / "submillion"


def refuse_overwriting(out: Path, inputs: Iterable[Path] = (), *, where: str) -> None:
    """Refuse an output that would take the place of something that is read, or of a part of a run.

    Links and other spellings of a path are seen through, since it is the files themselves that are compared.

    Args:
        out: The file or folder to be written.
        inputs: Files that are read, and folders in which nothing may be written.
        where: What the output was given as, for messages.

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
        if inner.lower() in {name.lower() for name in _OWN_NAMES} and run.config.is_file() and run.manifest.is_file():
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
