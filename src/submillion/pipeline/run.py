"""A run from its configuration to its report, in straight lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from submillion.config.run import RunConfig, dump_config
from submillion.errors import BudgetError, ConfigError, DataError, ModelError, RunError
from submillion.pipeline.begin import make_ready, open_base
from submillion.pipeline.finish import RunSummary, conclude_run
from submillion.pipeline.fit import Fitting
from submillion.progress import Progress, Silent
from submillion.run.folder import RunDir, refuse_links, refuse_overwriting
from submillion.run.reader import read_config
from submillion.storage.files import hold_folder, write_text
from submillion.training.checkpoint import find_checkpoint
from submillion.training.collective import Processes, open_processes


def start_run(config: RunConfig, out: Path | None = None, *, progress: Progress | None = None) -> RunSummary:
    """Carry out a run in a new folder.

    Args:
        config: The complete configuration.
        out: The run folder, empty or absent; ``runs/<name>-<time>`` if None.
        progress: Receiver of stages, steps and notes.

    Raises:
        SubmillionError: Its kind says what is wrong; the run so far can be resumed.
    """
    processes = open_processes()
    is_new = out is None or not out.exists()
    run = RunDir(out if out is not None else choose_folder(config))
    with processes.acting_together():
        if processes.is_first:
            _require_empty(run)
            run.path.mkdir(parents=True, exist_ok=True)
    with _only_writer(run, processes):
        with processes.acting_together():
            if processes.is_first:
                # Another run may have begun here since, and be over.
                _require_empty(run)
                write_text(run.config, dump_config(config))
        with processes.acting_together():
            _require_sight(run, processes)
        try:
            return _carry_out(run, config, processes, progress or Silent())
        except (ConfigError, DataError, BudgetError, ModelError):
            # Nothing to resume: with these settings and this data the run can never begin.
            if processes.is_first and not run.checkpoints.exists():
                _remove_files(run, and_folder=is_new)
            raise


def choose_folder(config: RunConfig) -> Path:
    """Make an empty folder ``runs/<name>-<time>`` that no other run has, and return it; the same in all processes.

    Raises:
        RunError: It cannot be made.
    """
    processes = open_processes()
    folder = ""
    with processes.acting_together():
        if processes.is_first:
            folder = str(_make_folder(Path("runs") / f"{config.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"))
    return Path(str(processes.share(folder)))


def _make_folder(wanted: Path) -> Path:
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if not folder.exists():  # something else than a folder stands above it
                raise
            continue
        return folder
    raise AssertionError


def _require_empty(run: RunDir) -> None:
    refuse_links(run)
    refuse_overwriting(run.path, where=str(run.path))
    if run.path.exists() and (not run.path.is_dir() or any(path != run.lock for path in run.path.iterdir())):
        raise ConfigError(
            "exists and is not an empty folder",
            where=str(run.path),
            hint=f"Choose another folder, or continue that run: submillion train --resume {run.path}",
        )


def _require_sight(run: RunDir, processes: Processes) -> None:
    if not run.config.exists():
        raise RunError(
            f"process {processes.rank} of {processes.count} does not see what the first one has written here",
            where=str(run.path.absolute()),
            hint="With several machines, give a folder that all of them share: --out DIR",
        )


def _remove_files(run: RunDir, *, and_folder: bool) -> None:
    for path in (run.config, run.manifest, run.trained_rows, run.data, run.plan, run.log, run.lock):
        path.unlink(missing_ok=True)
    if and_folder:
        with suppress(OSError):  # something else has been put there
            run.path.rmdir()


def resume_run(folder: Path, *, progress: Progress | None = None) -> RunSummary:
    """Continue a run from its last checkpoint, or from the start where it has none, to the same end.

    Raises:
        RunError: No run folder, or weights, threads, precision or data other than it began with.
    """
    processes = open_processes()
    run = RunDir(folder)
    with processes.acting_together():
        read_config(run)
    with _only_writer(run, processes):
        with processes.acting_together():
            config = read_config(run)
            _require_whole(run)
        return _carry_out(run, config, processes, progress or Silent())


def _require_whole(run: RunDir) -> None:
    """Refuse a run that has trained and lacks a file that says on what, and how."""
    if find_checkpoint(run.checkpoints, "last") is None:
        return
    for path in (run.manifest, run.data, run.plan, run.log):
        if not path.exists():
            raise RunError(
                "is missing, though the run has checkpoints",
                where=str(path),
                hint="Without it nothing shows that the run would continue as it began; start again in a new folder.",
            )


def _carry_out(run: RunDir, config: RunConfig, processes: Processes, progress: Progress) -> RunSummary:
    started = time.perf_counter()
    if not processes.is_first:
        progress = Silent()
    with processes.acting_together():
        device, base, base_config = open_base(run, config, processes, progress)
    with processes.acting_together():
        ready = make_ready(run, config, device, base, base_config, processes=processes, progress=progress)
    config = ready.config
    processes.require_same(
        {
            "base model": base.weights_sha256,
            "precision": device.precision,
            "training data": ready.prepared.report["train_sha256"],
        },
        "Give all machines the same files, and a precision that each of them has.",
    )
    watched = {name: ready.features[name] for name in ready.prepared.watched}
    labels = ready.prepared.splits.labels
    fitting = Fitting(ready.classifier, config, run, progress, labels=labels, processes=processes)
    fitted = fitting.fit(ready.train, ready.features["validation"], watched)
    return conclude_run(run, ready, fitted, processes=processes, progress=progress, started=started)


@contextmanager
def _only_writer(run: RunDir, processes: Processes) -> Iterator[None]:
    """Hold the run folder for the first process of this run; another run in the same folder would damage both."""
    with ExitStack() as stack:
        with processes.acting_together():
            if processes.is_first:
                stack.enter_context(hold_folder(run.lock, doing="training"))
        yield
