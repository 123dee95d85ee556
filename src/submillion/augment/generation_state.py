"""The work folder of a generation: its settings and digests, the language model, and every draft with its verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from submillion.config.nested import list_changes
from submillion.errors import ConfigError
from submillion.storage.files import (
    full_disk_is_run_error,
    hold_folder,
    read_json,
    read_log,
    remove_leftovers,
    write_json,
)
from submillion.storage.json_shapes import JsonObject, JsonView

WORK_FORMAT = 1
MODEL_PATH = "language-model/model"
"""Place of the adapted model in the work folder."""


@dataclass(frozen=True)
class WorkDir:
    """Paths of one generation, without any state.

    Attributes:
        out: File for the rows.
    """

    out: Path

    @property
    def path(self) -> Path:
        """The folder beside the output."""
        return self.out.with_name(f"{self.out.name}.work")

    @property
    def counts(self) -> Path:
        """The file beside the output with the counts of rows kept and dropped."""
        return self.out.with_name(f"{self.out.stem}.counts.json")

    @property
    def begun(self) -> Path:
        """The file with the settings and digests of the generation."""
        return self.path / "begun.json"

    @property
    def scratch(self) -> Path:
        """The untrained model of ``from_scratch``."""
        return self.path / "scratch"

    @property
    def language_model(self) -> Path:
        """Folder of fine-tuning; the model itself is its ``model``."""
        return (self.path / MODEL_PATH).parent

    @property
    def drafts(self) -> Path:
        """The file of drafts, with one line a batch."""
        return self.path / "drafts.jsonl"


@contextmanager
def open_work(work: WorkDir, begun: JsonView) -> Iterator[bool]:
    """Hold the work folder for this process; yield whether it was begun before.

    Args:
        work: Work folder.
        begun: Settings and digests of this generation. Work that was begun with others is not continued.

    Raises:
        ConfigError: The output exists, or the work was begun with other settings or files.
        RunError: Another process holds the folder, or the disk is full.
    """
    for path in (work.out, work.counts):
        if path.exists():
            raise ConfigError("exists already", where=str(path), hint="Name another file with --out.")
    with full_disk_is_run_error(work.path):
        work.path.mkdir(parents=True, exist_ok=True)
    with hold_folder(work.path / ".lock", doing="generating"):
        remove_leftovers(work.path)
        # Before anything has been made, other settings lose nothing.
        is_made = any(path.exists() for path in (work.scratch, work.language_model, work.drafts))
        is_resumed = is_made and work.begun.exists()
        now = json.loads(json.dumps({"format": WORK_FORMAT, **begun}))
        if is_resumed:
            _compare(read_json(work.begun), now, work)
        else:
            write_json(work.begun, now)
        yield is_resumed


def _compare(before: JsonView, now: JsonView, work: WorkDir) -> None:
    changes = [f"{path}: {old!r:.80} before, {new!r:.80} now" for path, old, new in list_changes(before, now)]
    if changes:
        raise ConfigError(
            "was begun with other settings or files:\n" + "\n".join(changes),
            where=str(work.path),
            hint="Give the earlier ones or another --out, or delete the folder.",
        )


def read_batches(work: WorkDir) -> list[JsonObject]:
    """Return the batches that were sampled and judged before, and cut off a last line that a kill left unfinished.

    Raises:
        RunError: A line before the last is damaged.
    """
    batches = read_log(work.drafts)
    if work.drafts.exists():
        whole = work.drafts.read_bytes().rfind(b"\n") + 1
        with work.drafts.open("r+b") as file:
            file.truncate(whole)
    return batches


def append_batch(work: WorkDir, batch: JsonView) -> None:
    """Write a batch; when this returns, it is on the disk.

    Raises:
        RunError: The disk is full.
    """
    line = json.dumps(batch, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with full_disk_is_run_error(work.drafts), work.drafts.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
