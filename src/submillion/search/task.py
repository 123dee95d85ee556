"""What a search is, written down once: all that its workers need, and the names of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submillion.config.run import RunConfig, parse_config
from submillion.config.search import SearchConfig
from submillion.run.folder import refuse_odd_files
from submillion.search.space import Space
from submillion.storage.files import read_json, write_json
from submillion.storage.json_shapes import COUNT, Shape, check_shape

STORAGE_VARIABLE = "SUBMILLION_STUDY_STORAGE"
"""Environment variable in which workers are told the storage: its password belongs into no file."""


_TASK: Shape = {"config": dict, "base_config": dict, "num_labels": COUNT, "study": str, "threads": COUNT}


@dataclass(frozen=True)
class SearchDir:
    """Paths inside the folder of a search; holds no state of its own."""

    path: Path

    @property
    def task(self) -> Path:
        """What is searched, for the workers."""
        return self.path / "search.json"

    @property
    def database(self) -> Path:
        """The study, where it is kept in no other storage."""
        return self.path / "study.db"

    @property
    def trials(self) -> Path:
        """Run folders of the trials, by number."""
        return self.path / "trials"

    @property
    def confirming(self) -> Path:
        """Run folders of the comparison."""
        return self.path / "confirm"

    @property
    def lock(self) -> Path:
        """Held by the command that works in the folder."""
        return self.path / ".lock"

    @property
    def winner(self) -> Path:
        """The recipe with the best settings."""
        return self.path / "winner.yaml"

    @property
    def results(self) -> Path:
        """All trials and the comparison."""
        return self.path / "study.json"

    @property
    def table(self) -> Path:
        """All trials, one a row."""
        return self.path / "trials.csv"

    @property
    def report(self) -> Path:
        """The self-contained HTML report."""
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        """The plots of the report as PNG."""
        return self.path / "plots"

    def refuse_links(self) -> None:
        """Refuse a folder in which a link, a pipe or a device stands in the place of something that is written here.

        Raises:
            RunError: With the first such thing.
        """
        files = (self.task, self.database, self.lock, self.winner, self.results, self.table, self.report)
        queue = self.database.with_name(f"{self.database.name}.queue")
        refuse_odd_files((*files, queue), (self.trials, self.confirming, self.plots))


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
    base_config: Mapping[str, Any]
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

    def write(self, path: Path) -> None:
        """Write it for the workers."""
        values = {
            "config": self.config.model_dump(mode="json"),
            "base_config": dict(self.base_config),
            "num_labels": self.num_labels,
            "study": self.study,
            "threads": self.threads,
        }
        write_json(path, values)

    @classmethod
    def read(cls, path: Path) -> Task:
        """Read what `write` has written.

        Raises:
            RunError: The file is missing or damaged.
        """
        values = read_json(path)
        check_shape(values, _TASK, path)
        return cls(
            config=parse_config(values["config"], where=str(path)),
            base_config=values["base_config"],
            num_labels=int(values["num_labels"]),
            study=str(values["study"]),
            threads=int(values["threads"]),
        )
