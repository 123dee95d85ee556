"""What a search is, and the names of its files."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from submillion.config.run import RunConfig
from submillion.config.search import SearchConfig
from submillion.run.folder import refuse_odd_files
from submillion.search.space import Space


class SearchDir:
    """Paths inside the folder of a search.

    Attributes:
        path: The folder.
        database: The study, where it is kept in no other storage.
        trials: Run folders of the trials, by number.
        confirming: Run folders of the comparison.
        lock: File that the command which works in the folder holds, with the command's name in the study.
        winner: The recipe with the best settings.
        results: All trials and the comparison.
        table: All trials, one a row.
        report: The self-contained HTML report.
        plots: The plots of the report as PNG.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "study.db"
        self.trials = path / "trials"
        self.confirming = path / "confirm"
        self.lock = path / ".lock"
        self.winner = path / "winner.yaml"
        self.results = path / "study.json"
        self.table = path / "trials.csv"
        self.report = path / "report.html"
        self.plots = path / "plots"

    def refuse_links(self) -> None:
        """Refuse a folder in which a link, a pipe or a device takes the place of something that is written here.

        Raises:
            RunError: The first such thing is named.
        """
        queue = self.database.with_name(f"{self.database.name}.queue")
        files = (self.database, queue, self.lock, self.winner, self.results, self.table, self.report)
        refuse_odd_files(files, (self.trials, self.confirming, self.plots))

    def name_owner(self) -> str:
        """Return the name that trials made in this folder carry; only who holds the lock may ask."""
        if not self.lock.stat().st_size:
            self.lock.write_text(uuid.uuid4().hex)  # in place, since the lock is on this very file
        with self.lock.open(encoding="utf-8", errors="replace") as file:
            return file.read(32)


@dataclass(frozen=True)
class Task:
    """A search.

    Attributes:
        config: The recipe; its `search` is complete, with a space.
        base_config: The base model's ``config.json``.
        num_labels: Number of classes C.
        study: Name of the study.
        threads: CPU threads of each trial.
    """

    config: RunConfig
    base_config: Mapping[str, object]
    num_labels: int
    study: str
    threads: int

    @property
    def search(self) -> SearchConfig:
        """How it searches."""
        assert self.config.search is not None
        return self.config.search

    @property
    def space(self) -> Space:
        """Where it searches."""
        return Space(self.config, self.search.space, self.base_config, self.num_labels)
