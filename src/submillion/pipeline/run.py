"""A run from its configuration to its report, in straight lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from submillion.budget.plan import Plan, make_plan
from submillion.config.run import RunConfig, dump_config
from submillion.data.trained_rows import NONE, Digests
from submillion.encoding.text_encoder import TextEncoder
from submillion.errors import BudgetError, ConfigError, DataError, ModelError, RunError
from submillion.kernels.native import is_to_be_built
from submillion.model.encoder import KERNELS, Classifier, build_classifier, check_length, find_window
from submillion.model.sources import BaseModel, find_base, load_base_config
from submillion.pipeline.finish import Ready, RunSummary, conclude_run
from submillion.pipeline.first_manifest import check_unchanged, write_first_manifest
from submillion.pipeline.fit import Fitting
from submillion.pipeline.initial_weights import Origin, check_origin, find_origin, find_trained_rows
from submillion.pipeline.prepare import Prepared, prepare_data
from submillion.progress import Progress, Silent
from submillion.records import LabelSet
from submillion.run.checked_files import read_config, read_data_report, read_manifest
from submillion.run.folder import RunDir, refuse_links, refuse_overwriting
from submillion.run.manifest import read_trained_rows, update_manifest
from submillion.scoring.validation_figures import find_metric_class
from submillion.storage.files import hold_folder, remove_leftovers, write_bytes, write_json, write_text
from submillion.training.checkpoint import find_checkpoint
from submillion.training.collective import Processes, open_processes
from submillion.training.device import Device, open_device
from submillion.training.track import check_trackers


def start_run(config: RunConfig, out: Path | None = None, *, progress: Progress | None = None) -> RunSummary:
    """Carry out a run in a new folder.

    Args:
        config: The complete configuration.
        out: The run folder, empty or absent; ``runs/<name>-<time>`` if None.
        progress: Told of stages, steps and notes.

    Raises:
        SubmillionError: Of the fitting kind; what was written so far stays resumable.
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
        device, base, base_config = _open_base(run, config, processes, progress)
    with processes.acting_together():
        ready = _make_ready(run, config, device, base, base_config, processes=processes, progress=progress)
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
    return conclude_run(run, config, ready, fitted, processes=processes, progress=progress, started=started)


def _open_base(
    run: RunDir, config: RunConfig, processes: Processes, progress: Progress
) -> tuple[Device, BaseModel, dict[str, Any]]:
    """Return the device, the base model and its configuration; write the manifest, or hold them against it."""
    check_trackers(config.track)
    device = open_device(config.model.precision, config.threads, num_sharing=processes.local_count)
    base = find_base(config.model.base, config.model.revision)
    base_config = load_base_config(config.model.base, config.model.revision)
    check_length(base_config, config.model.max_length)
    if processes.is_first:
        if run.manifest.exists():
            check_unchanged(run, base, device, processes)
        else:
            write_first_manifest(run, config, base, device, processes)
    for note in device.notes:
        progress.note(note)
    return device, base, base_config


def _make_ready(
    run: RunDir,
    config: RunConfig,
    device: Device,
    base: BaseModel,
    base_config: dict[str, Any],
    *,
    processes: Processes,
    progress: Progress,
) -> Ready:
    if processes.is_first:
        remove_leftovers(run.path)
    window = find_window(base_config)
    limit = config.model.max_length
    # Where a rule is to choose the limit, nothing is encoded with this one.
    length = limit if isinstance(limit, int) else window or sys.maxsize
    tokens = TextEncoder(base.folder, length, config.model.long_texts)
    inherited = _find_inherited_rows(run, config, progress)
    prepared = prepare_data(config, encoder=tokens, progress=progress, window=window, inherited=inherited)
    splits = prepared.splits
    find_metric_class(config.train.metric, splits.labels)
    if processes.is_first:
        _write_data_report(run, prepared)
    config = _fix_length(run, config, prepared, processes)
    plan = make_plan(
        base_config,
        base=base.name,
        num_labels=len(splits.labels),
        model=config.model,
        adapter=config.adapter,
        budget=config.budget,
    )
    if processes.is_first:
        write_json(run.plan, plan.to_json())

    sets = {"validation": splits.validation, "test": splits.test, **prepared.watched}
    sets = {name: rows for name, rows in sets.items() if rows and (name != "test" or config.final.test)}

    origin = _find_origin(run, config, base, plan, splits.labels)
    classifier = build_classifier(
        base, plan, config.model, adapter_dropout=config.adapter.dropout, dtype=device.dtype, seed=config.seed
    )
    classifier.to(device.device)
    if origin is not None:
        origin.load(classifier)
        steps = "" if origin.step is None else f" after {origin.step:,} steps"
        progress.note(f"begins with the weights of {origin.kind} {origin.folder}{steps}")
        if processes.is_first:
            update_manifest(run, {"started_from": origin.describe()})
    if config.train.gradient_checkpointing:
        classifier.recompute_layers()
    if processes.is_first:
        _note_modules(run, classifier, progress)
    features = prepared.features
    return Ready(config, device, base, prepared, plan, sets, features["train"], features, classifier)


def _find_origin(run: RunDir, config: RunConfig, base: BaseModel, plan: Plan, labels: LabelSet) -> Origin | None:
    """Return the weights to begin with; None where there are none, or where a checkpoint already follows from them."""
    if config.start_from is None or find_checkpoint(run.checkpoints, "last") is not None:
        return None
    origin = find_origin(config.start_from, base)
    check_origin(origin, plan, config.model, labels.names, base)
    return origin


def _find_inherited_rows(run: RunDir, config: RunConfig, progress: Progress) -> Digests:
    """Return the digests of the rows that the starting weights were trained on, as this run first found them."""
    if run.data.exists():
        return read_trained_rows(run).inherited
    if config.start_from is None:
        return NONE
    found = find_trained_rows(config.start_from)
    if found is None:
        progress.note(
            f"nothing is known of the rows that {config.start_from} was trained on: some may be in validation and "
            "test, whose figures would then be too good"
        )
    return NONE if found is None else found


def _fix_length(run: RunDir, config: RunConfig, prepared: Prepared, processes: Processes) -> RunConfig:
    """Put the chosen limit in the rule's place, here and in the run folder: what is resumed or replayed keeps it."""
    if prepared.length is None:
        return config
    model = config.model.model_copy(update={"max_length": prepared.length.max_length})
    config = config.model_copy(update={"model": model})
    if processes.is_first:
        update_manifest(run, {"max_length": prepared.length.to_json()})
        write_text(run.config, dump_config(config))
    return config


def _note_modules(run: RunDir, classifier: Classifier, progress: Progress) -> None:
    """Write down what computes the encoder, or hold it against what the run began with: they round differently."""
    if is_to_be_built():
        progress.note("building the CPU kernels: some seconds, once on this machine")
    now = classifier.describe_modules()
    before = read_manifest(run).get("modules", now)
    if (before == KERNELS) != (now == KERNELS):
        raise RunError(
            f"its encoder ran on {before}, here it would run on {now}",
            where=str(run.manifest),
            hint="Continue where these are as before, or start the run again in a new folder.",
        )
    update_manifest(run, {"modules": now})
    if now != KERNELS:
        progress.note(f"the encoder runs on {now}")


def _write_data_report(run: RunDir, prepared: Prepared) -> None:
    # A run that is resumed must see the rows that it began with.
    if run.data.exists():
        before, now = read_data_report(run), prepared.report
        before.setdefault("extra", [])  # runs of earlier versions had none
        keys = ("files", "num_train", "test_sha256", "train_sha256", "extra")
        changed = [key for key in keys if before[key] != now[key]]
        if changed and "files" not in changed and before.get("split_rule") != now["split_rule"]:
            raise RunError(
                "was begun by an earlier version, which put these rows into other parts, since it split and cleaned "
                "them otherwise",
                where=str(run.path),
                hint="Continue it with that version, or start the run again in a new folder.",
            )
        if changed:
            raise RunError(
                f"the data is not what the run began with: {', '.join(changed)} differ",
                where=str(now["source"]),
                hint="Restore the data, or start the run again in a new folder.",
            )
        return
    # First the rows: where there is a report, another process of this run relies on them.
    write_bytes(run.trained_rows, prepared.trained_rows.to_bytes())
    write_json(run.data, prepared.report)


@contextmanager
def _only_writer(run: RunDir, processes: Processes) -> Iterator[None]:
    """Hold the run folder for the first process of this run; another run in the same folder would damage both."""
    with ExitStack() as stack:
        with processes.acting_together():
            if processes.is_first:
                stack.enter_context(hold_folder(run.lock, doing="training"))
        yield
