"""What passes between the bench and the processes that it measures: one JSON object a line, over two pipes.

A process gets ready (imports, loads, warms up), says so, and then makes a round each time that it is told to. Between
its rounds it waits, while others make theirs.
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
    """Everything that a measured process is told at its start.

    Attributes:
        runner: Name of what it runs, a key of `worker.RUNNERS`.
        options: Settings of that runner.
        base: Folder of the base model.
        folder: Scratch folder shared by all processes of the bench, with what `prepare` made.
        rows: File of rows: those to warm up with first.
        num_warmup: Rows to warm up with.
        num_rounds: Rounds to make.
        round_rows: Rows of one round.
        batch_size: Records of a training step.
        max_length: Number of tokens kept of a text.
        threads: CPU threads.
        device: ``cpu`` or ``cuda``.
        dropout: Of encoder and adapters; None leaves the base model's own and none in the adapters.
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
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Round:
    """What one round came to.

    Attributes:
        seconds: Wall time.
        num_rows: Rows done.
        lengths: Their real tokens, as this process encoded them; empty where it does not see them.
        predicted: Label ids in the order of the rows, where rows were scored.
        figures: Anything else that was measured.
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
    """The measured process's end.

    Args:
        commands: Each line is an order to make a round.
        answers: Where facts and rounds are written to.
    """

    def __init__(self, commands: IO[str], answers: IO[str]) -> None:
        self._commands = commands
        self._answers = answers

    def say_ready(self) -> None:
        """Say that warming up is over."""
        self._send({"ready": True})

    def wait(self) -> None:
        """Wait for the order to make a round.

        Raises:
            EOFError: The bench is gone.
        """
        if not self._commands.readline():
            raise EOFError("the bench has ended")

    def report(self, result: Round) -> None:
        """Hand over a round."""
        self._send(asdict(result))

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Hand over what is known at the end."""
        self._send(facts)

    def fail(self, error: Exception) -> None:
        """Say why nothing more will come."""
        if not isinstance(error, SubmillionError):
            error = RunError(f"{type(error).__name__}: {error}")
        self._send({"failed": error.to_json()})

    def _send(self, values: Mapping[str, Any]) -> None:
        self._answers.write(json.dumps(values) + "\n")
        self._answers.flush()
