"""The bench's side: it starts measured processes and lets each make its rounds in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from benchmarks.measured_child import Job, Round
from submillion.errors import RunError, from_json

ROOT = Path(__file__).parents[1]
_NUM_LINES = 6


def make_environment(threads: int, cache: Path) -> dict[str, str]:
    """Return the environment of every measured process.

    Args:
        threads: Number of threads, the same for all.
        cache: Folder for this package's cache, so that the user's cache neither helps nor changes.
    """
    count = str(threads)
    return {
        **os.environ,
        # A measured process must find this package of the repository wherever it starts.
        "PYTHONPATH": os.pathsep.join((str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")]))),
        "SUBMILLION_CACHE": str(cache),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "RAYON_NUM_THREADS": count,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        # Another value would keep some tokenizers from using threads.
        "TOKENIZERS_PARALLELISM": "true",
    }


def find_cache(scratch: Path) -> Path:
    """Return the cache folder that the processes of a bench share."""
    return scratch / "cache"


class MeasuredProcess:
    """A process that makes rounds on request; leaving the context ends it.

    Args:
        name: Name for messages.
        job: Job of the process.
        cache: Cache folder for `make_environment`; None for the folder that all processes of the bench share.
    """

    def __init__(self, name: str, job: Job, cache: Path | None = None) -> None:
        self.name = name
        scratch = Path(job.folder)
        stem = f"{len(list(scratch.glob('*.job.json'))):03d}"
        self._log = scratch / f"{stem}.log"
        job_file = scratch / f"{stem}.job.json"
        job.write(job_file)
        order_read, order_write = os.pipe()
        answer_read, answer_write = os.pipe()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "benchmarks.worker"),
                    *(str(job_file), str(order_read), str(answer_write)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(order_read, answer_write),
                env=make_environment(job.threads, cache or find_cache(scratch)),
            )
        os.close(order_read)
        os.close(answer_write)
        self._orders: IO[str] = os.fdopen(order_write, "w", encoding="utf-8")
        self._answers: IO[str] = os.fdopen(answer_read, encoding="utf-8")

    def __enter__(self) -> MeasuredProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process if it has not ended."""
        with suppress(BrokenPipeError):
            self._orders.close()
        self._answers.close()
        self._process.terminate()
        self._process.wait()

    def await_ready(self) -> None:
        """Wait until the process has warmed up.

        Raises:
            RunError: The process has failed.
        """
        self._read()

    def make_round(self) -> Round:
        """Let the process make one round.

        Raises:
            RunError: The process has failed.
        """
        with suppress(BrokenPipeError):
            self._orders.write("go\n")
            self._orders.flush()
        return Round.parse(self._read())

    def finish(self) -> dict[str, Any]:
        """Wait for the facts and the end of the process.

        Raises:
            RunError: The process has failed.
        """
        facts = self._read()
        self._process.wait()
        return facts

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        values: dict[str, Any] = json.loads(line) if line else {}
        if line and "failed" not in values:
            return values
        status = self._process.wait()
        error = from_json(values["failed"]) if values else RunError(f"status {status}")
        lines = [text for text in self._log.read_text(errors="replace").splitlines() if text.strip()]
        shown = "\n".join(("Its last lines:", *lines[-_NUM_LINES:])) if lines else ""
        raise type(error)(
            f"{self.name} has failed: {error.message}",
            where=error.where or "bench",
            hint=f"{error.hint}\n{shown}".strip(),
        )
