"""The folder of a generation under way: what it was begun with, the language model, every draft and its verdict."""

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
"""Where the adapted model lies in the work folder."""


@dataclass(frozen=True)
class WorkDir:
    """Paths of one generation; holds no state of its own.

    Attributes:
        out: The file that the rows will stand in.
    """

    out: Path

    @property
    def path(self) -> Path:
        """The folder beside the output."""
        return self.out.with_name(f"{self.out.name}.work")

    @property
    def counts(self) -> Path:
        """The file beside the output that says what was kept and dropped."""
        return self.out.with_name(f"{self.out.stem}.counts.json")

    @property
    def begun(self) -> Path:
        """What the generation was begun with: settings and digests."""
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
        """One line a batch."""
        return self.path / "drafts.jsonl"


@contextmanager
def open_work(work: WorkDir, begun: JsonView) -> Iterator[bool]:
    """Hold the work folder for this process; yield whether it was begun before.

    Args:
        work: The folder.
        begun: What this generation is made with. One that was begun with other values is not gone on with.

    Raises:
        ConfigError: The output exists, or the work was begun with other settings or files.
        RunError: Another process is at it, or the disk is full.
    """
    for path in (work.out, work.counts):
        if path.exists():
            raise ConfigError("exists already", where=str(path), hint="Name another file with --out.")
    with full_disk_is_run_error(work.path):
        work.path.mkdir(parents=True, exist_ok=True)
    with hold_folder(work.path / ".lock", doing="generating"):
        remove_leftovers(work.path)
        # Where nothing has been made yet, nothing is lost by other settings.
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
            hint="Give those of before, another --out, or delete the folder.",
        )


def read_batches(work: WorkDir) -> list[JsonObject]:
    """Return the batches that were sampled and judged before, and cut off a line that a kill has left unfinished.

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
    """Write down a batch; when this returns, it is on the disk.

    Raises:
        RunError: The disk is full.
    """
    line = json.dumps(batch, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with full_disk_is_run_error(work.drafts), work.drafts.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
