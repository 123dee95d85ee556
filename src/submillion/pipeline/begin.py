"""The beginning of a run: everything that it makes before its first step, or reads again when it is resumed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from submillion.budget.plan import Plan, make_plan
from submillion.config.run import RunConfig, dump_config
from submillion.data.trained_rows import NONE, Digests
from submillion.encoding.text_encoder import Features, TextEncoder
from submillion.errors import RunError
from submillion.kernels.native import is_to_be_built
from submillion.model.encoder import KERNELS, Classifier, build_classifier, check_length, find_window
from submillion.model.sources import BaseModel, find_base, load_base_config
from submillion.pipeline.first_manifest import check_unchanged, write_first_manifest
from submillion.pipeline.initial_weights import Origin, check_origin, find_origin, find_trained_rows
from submillion.pipeline.prepare import Prepared, prepare_data
from submillion.progress import Progress
from submillion.records import LabelSet, Record
from submillion.run.folder import RunDir
from submillion.run.reader import read_data_report, read_manifest
from submillion.run.trained_rows import read_trained_rows
from submillion.scoring.validation_figures import find_metric_class
from submillion.storage.files import remove_leftovers, write_bytes, write_json, write_text
from submillion.training.checkpoint import find_checkpoint
from submillion.training.collective import Processes
from submillion.training.device import Device, open_device
from submillion.training.track import check_trackers


@dataclass(frozen=True)
class Ready:
    """Everything that a run makes before its first step and needs at its end.

    Attributes:
        config: Configuration, in which a number replaces a rule for the length.
        device: Device and precision to compute with.
        base: The base model.
        prepared: Prepared records of the run.
        plan: Plan of the trained parameters.
        sets: The rows that are scored at the end, by split or watched name.
        train: Token ids of the training rows, with the synthetic ones last.
        features: Token ids of all rows, by split or watched name.
        classifier: The model.
    """

    config: RunConfig
    device: Device
    base: BaseModel
    prepared: Prepared
    plan: Plan
    sets: dict[str, Sequence[Record]]
    train: list[Features]
    features: dict[str, list[Features]]
    classifier: Classifier

    @property
    def own_rows(self) -> list[Features]:
        """The training rows without the synthetic ones, which follow them."""
        return self.train[: self.prepared.report["num_train"]]


def open_base(
    run: RunDir, config: RunConfig, processes: Processes, progress: Progress
) -> tuple[Device, BaseModel, dict[str, object]]:
    """Return the device, the base model and its configuration; write the manifest, or compare them with it."""
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


def make_ready(
    run: RunDir,
    config: RunConfig,
    device: Device,
    base: BaseModel,
    base_config: dict[str, object],
    *,
    processes: Processes,
    progress: Progress,
) -> Ready:
    """Prepare the data, make the plan, and build the model with its initial weights.

    Args:
        run: The run folder.
        config: Configuration of the run.
        device: Device and precision to compute with.
        base: The base model.
        base_config: Configuration of the base model.
        processes: The processes of the run; the first one writes.
        progress: Receiver of stages, of every finding, and of the plan.

    Raises:
        SubmillionError: Data, plan or weights do not fit, or differ from those that the run started with.
    """
    if processes.is_first:
        remove_leftovers(run.path)
    window = find_window(base_config)
    limit = config.model.max_length
    # If a rule will choose the limit, nothing is encoded with this one.
    length = limit if isinstance(limit, int) else window or sys.maxsize
    tokens = TextEncoder(base.folder, length, config.model.long_texts)
    inherited = _find_inherited_rows(run, config, progress)
    prepared = prepare_data(config, encoder=tokens, progress=progress, window=window, inherited=inherited)
    splits = prepared.splits
    find_metric_class(config.train.metric, splits.labels)
    if processes.is_first:
        _write_data_report(run, prepared)
    config = _fix_length(run, config, prepared, processes)
    plan = _make_plan(config, base, base_config, splits.labels)
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
        _note_origin(run, origin, processes, progress)
    if config.train.gradient_checkpointing:
        classifier.recompute_layers()
    if processes.is_first:
        _note_modules(run, classifier, progress)
    progress.on_plan(plan)
    features = prepared.features
    return Ready(config, device, base, prepared, plan, sets, features["train"], features, classifier)


def _make_plan(config: RunConfig, base: BaseModel, base_config: dict[str, object], labels: LabelSet) -> Plan:
    return make_plan(
        base_config,
        base=base.name,
        num_labels=len(labels),
        model=config.model,
        adapter=config.adapter,
        budget=config.budget,
    )


def _note_origin(run: RunDir, origin: Origin, processes: Processes, progress: Progress) -> None:
    steps = "" if origin.step is None else f" after {origin.step:,} steps"
    progress.note(f"starts from the weights of {origin.kind} {origin.folder}{steps}")
    if processes.is_first:
        replace(read_manifest(run), started_from=origin.describe()).write(run.manifest)


def _find_origin(run: RunDir, config: RunConfig, base: BaseModel, plan: Plan, labels: LabelSet) -> Origin | None:
    """Return the starting weights, or None if there are none or a checkpoint already follows from them."""
    if config.start_from is None or find_checkpoint(run.checkpoints, "last") is not None:
        return None
    origin = find_origin(config.start_from, base)
    check_origin(origin, plan, config.model, labels.names, base)
    return origin


def _find_inherited_rows(run: RunDir, config: RunConfig, progress: Progress) -> Digests:
    """Return the digests of the rows that the starting weights were trained on, as first read by this run."""
    if run.data.exists():
        return read_trained_rows(run).inherited
    if config.start_from is None:
        return NONE
    found = find_trained_rows(config.start_from)
    if found is None:
        progress.note(
            f"nothing is known about the rows that {config.start_from} was trained on: some may be in validation and "
            "test, whose figures would then be too optimistic"
        )
    return NONE if found is None else found


def _fix_length(run: RunDir, config: RunConfig, prepared: Prepared, processes: Processes) -> RunConfig:
    """Replace the rule by the chosen limit, here and in the run folder, so that resumed and repeated runs keep it."""
    if prepared.length is None:
        return config
    model = config.model.model_copy(update={"max_length": prepared.length.max_length})
    config = config.model_copy(update={"model": model})
    if processes.is_first:
        replace(read_manifest(run), max_length=prepared.length.to_json()).write(run.manifest)
        write_text(run.config, dump_config(config))
    return config


def _note_modules(run: RunDir, classifier: Classifier, progress: Progress) -> None:
    """Record which modules compute the encoder, or compare them with the run's earlier ones: they round differently."""
    if is_to_be_built():
        progress.note("building the CPU kernels: some seconds, once on this machine")
    now = classifier.describe_modules()
    manifest = read_manifest(run)
    before = manifest.modules or now
    if (before == KERNELS) != (now == KERNELS):
        raise RunError(
            f"its encoder ran on {before}, but here it would run on {now}",
            where=str(run.manifest),
            hint="Continue it where the encoder runs as before, or start the run again in a new folder.",
        )
    replace(manifest, modules=now).write(run.manifest)
    if now != KERNELS:
        progress.note(f"the encoder runs on {now}")


def _write_data_report(run: RunDir, prepared: Prepared) -> None:
    # A resumed run must see the same rows as before.
    if run.data.exists():
        before, now = read_data_report(run), prepared.report
        before.setdefault("extra", [])  # runs of earlier versions have none
        keys = ("files", "num_train", "test_sha256", "train_sha256", "extra")
        changed = [key for key in keys if before[key] != now[key]]
        if changed and "files" not in changed and before.get("split_rule") != now["split_rule"]:
            raise RunError(
                "was started by an earlier version, which split and cleaned rows differently and so put them into "
                "other parts",
                where=str(run.path),
                hint="Continue it with that version, or start the run again in a new folder.",
            )
        if changed:
            raise RunError(
                f"the data differs from the data that the run started with, in {', '.join(changed)}",
                where=str(now["source"]),
                hint="Restore the data, or start the run again in a new folder.",
            )
        return
    # The rows are written first: if there is a report, another process of this run relies on them.
    write_bytes(run.trained_rows, prepared.trained_rows.to_bytes())
    write_json(run.data, prepared.report)
