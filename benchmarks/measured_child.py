"""Messages between the bench and the measured processes: one JSON object per line, over two pipes.

A process gets ready (it imports, loads and warms up), reports this, and then makes a round on each request. Between its
rounds it waits, while others make theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.flops import Lengths
from submillion.errors import RunError, SubmillionError


@dataclass(frozen=True)
class Job:
    """Everything that a measured process gets at its start.

    Attributes:
        runner: Name of the runner, a key of `worker.RUNNERS`.
        options: Options of that runner.
        base: Folder of the base model.
        folder: Scratch folder that all processes of the bench share, with the outputs of `prepare`.
        rows: File of rows, with those for warming up first.
        num_warmup: Number of rows for warming up.
        num_rounds: Number of rounds to make.
        round_rows: Number of rows in one round.
        batch_size: Number of records in a training step.
        max_length: Number of tokens kept of a text.
        threads: Number of CPU threads.
        device: ``cpu`` or ``cuda``.
        dropout: Dropout of encoder and adapters; None for the base model's, and none in the adapters.
        num_labels: Number of classes.
    """

    runner: str
    options: Mapping[str, Any]
    base: str
    folder: str
    rows: str
    num_warmup: int
    num_rounds: int
    round_rows: int
    batch_size: int
    max_length: int
    threads: int
    device: str
    dropout: float | None
    num_labels: int

    def write(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read a job that `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Round:
    """The result of one round.

    Attributes:
        seconds: Wall time.
        num_rows: Number of rows done.
        lengths: Real tokens of the rows, as this process encoded them; empty if it does not see them.
        predicted: Label ids in the order of the rows, if rows were scored.
        figures: Other measured figures.
    """

    seconds: float
    num_rows: int
    lengths: Lengths = field(default_factory=Lengths)
    predicted: list[int] | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Round:
        """Rebuild a round from JSON types."""
        return cls(**{**values, "lengths": Lengths(**values["lengths"])})


class Gate:
    """The measured process's side.

    Args:
        commands: Stream in which each line is an order to make a round.
        answers: Stream for facts and rounds.
    """

    def __init__(self, commands: IO[str], answers: IO[str]) -> None:
        self._commands = commands
        self._answers = answers

    def say_ready(self) -> None:
        """Report that warming up is over."""
        self._send({"ready": True})

    def wait(self) -> None:
        """Wait for the order to make a round.

        Raises:
            EOFError: The bench has ended.
        """
        if not self._commands.readline():
            raise EOFError("the bench has ended")

    def report(self, result: Round) -> None:
        """Report a round."""
        self._send(asdict(result))

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Report the facts at the end."""
        self._send(facts)

    def fail(self, error: Exception) -> None:
        """Report the error that ended the work."""
        if not isinstance(error, SubmillionError):
            error = RunError(f"{type(error).__name__}: {error}")
        self._send({"failed": error.to_json()})

    def _send(self, values: Mapping[str, Any]) -> None:
        self._answers.write(json.dumps(values) + "\n")
        self._answers.flush()
