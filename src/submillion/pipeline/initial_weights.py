"""The trained weights that a run begins with: those of another run, of one of its checkpoints, or of a PEFT adapter.

Only weights are taken: optimizer, schedule and order of the rows are the new run's own. They mean what they meant
only on the same frozen weights, with the same ranks and scalings and with classes in the same order, so each of these
is compared first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from submillion.budget.adapter_settings import CONFIG_NAME, read_adapter_base
from submillion.budget.folder import HEAD_NAME, WEIGHTS_NAME, plan_adapter_folder
from submillion.budget.plan import Plan
from submillion.config.run import ModelConfig
from submillion.data.trained_rows import Digests
from submillion.errors import ConfigError, ModelError, RunError
from submillion.model.base_files import digest_file
from submillion.model.sources import BaseModel, load_base_config
from submillion.run.folder import RunDir
from submillion.run.reader import read_config, read_data_report, read_manifest, read_plan
from submillion.run.trained_rows import read_trained_rows
from submillion.training import checkpoint

if TYPE_CHECKING:
    from submillion.model.encoder import Classifier


@dataclass(frozen=True)
class Origin:
    """Where trained weights lie.

    Attributes:
        kind: A finished ``run``, a ``checkpoint`` of any run, or an ``adapter`` folder in PEFT's format.
        folder: The run, the checkpoint or the adapter.
        plan: Plan of the trained run.
        files: The files with the weights.
        step: Optimizer steps that they have seen, where that is known.
        run: The run that they are part of; None for an adapter folder.
    """

    kind: Literal["run", "checkpoint", "adapter"]
    folder: Path
    plan: Plan
    files: tuple[Path, ...]
    step: int | None
    run: RunDir | None

    def load(self, classifier: Classifier) -> None:
        """Put the weights into a classifier of the same plan.

        Raises:
            ModelError: A file is missing, damaged, or does not fit.
            RunError: The same of a checkpoint.
        """
        if self.kind == "checkpoint":
            is_averaged = checkpoint.has_average(self.folder)
            checkpoint.load_parameters(self.folder, classifier.trainable_parameters(), averaged=is_averaged)
        else:
            classifier.load(self.files[0].parent, self.files[1] if self.plan.head == "linear" else None)

    def describe(self) -> dict[str, object]:
        """Return what the manifest of the new run keeps of it."""
        values: dict[str, object] = {
            "kind": self.kind,
            "path": str(self.folder.resolve()),
            "step": self.step,
            "sha256": {path.name: digest_file(path) for path in self.files},
        }
        if self.run is not None:
            manifest = read_manifest(self.run)
            values |= {"recipe": manifest.recipe, "created": manifest.created, "seed": manifest.seed}
        return values


def find_origin(path: str, base: BaseModel) -> Origin:
    """Return the weights that a run folder, a checkpoint folder or an adapter folder holds.

    Of a run that came to its end these are the ones it ended with, the best; of another run those of its last
    checkpoint. Where a checkpoint has moving averages, they are what is taken.

    Args:
        path: The folder.
        base: Base model of the run that is to begin with them.

    Raises:
        ConfigError: Nothing of the kind is there.
        RunError: A run without a checkpoint, or a damaged one.
        ModelError: A damaged adapter, or one that does not fit the base model.
    """
    folder = Path(path)
    if (folder / "manifest.json").exists():
        return _find_in_run(RunDir(folder))
    if (folder / checkpoint.STATE_NAME).exists() and (folder.parent.parent / "manifest.json").exists():
        return _describe_checkpoint(RunDir(folder.parent.parent), folder)
    if (folder / CONFIG_NAME).exists():
        config = load_base_config(base.name, base.revision)
        # The budget limits runs trained with this tool, not adapters from elsewhere.
        plan = plan_adapter_folder(folder, config, budget=sys.maxsize, base=read_adapter_base(folder))
        return Origin("adapter", folder, plan, _list_adapter_files(folder, plan), None, None)
    raise _explain_no_weights(path)


def _explain_no_weights(path: str) -> ConfigError:
    return ConfigError(
        "is no run, no checkpoint of a run and no adapter folder" if Path(path).exists() else "there is no such folder",
        where=f"start_from: {path}",
        hint="Give a run folder, RUN/checkpoints/step-N, or a folder that PEFT saved an adapter in.",
    )


def find_trained_rows(path: str) -> Digests | None:
    """Return the digests of all rows that the weights in a folder were trained on; None where nothing says so.

    Args:
        path: A run, a checkpoint of a run, or an adapter folder, also that inside a run.

    Raises:
        ConfigError: There is no such folder, or it holds no weights to begin with.
        RunError: The run's list of rows is damaged.
    """
    folder = Path(path)
    if not any((folder / name).exists() for name in ("manifest.json", checkpoint.STATE_NAME, CONFIG_NAME)):
        raise _explain_no_weights(path)
    for place in (folder, folder.parent, folder.parent.parent):
        if (place / "manifest.json").exists() and RunDir(place).trained_rows.exists():
            return read_trained_rows(RunDir(place)).all
    return None


def _find_in_run(run: RunDir) -> Origin:
    if run.has_weights():
        plan = read_plan(run)
        files = (run.adapter / WEIGHTS_NAME, *([run.head] if plan.head == "linear" else []))
        return Origin("run", run.path, plan, files, read_manifest(run).best_step, run)
    found = checkpoint.find_checkpoint(run.checkpoints, "last")
    if found is None:
        raise RunError(
            "has no trained weights yet: neither an adapter nor a checkpoint",
            where=str(run.path),
            hint=f"Continue it: submillion train --resume {run.path}",
        )
    return _describe_checkpoint(run, found)


def _describe_checkpoint(run: RunDir, folder: Path) -> Origin:
    position = checkpoint.read_position(folder)
    file = checkpoint.find_weights(folder)
    return Origin("checkpoint", folder, read_plan(run), (file,), position.step, run)


def _list_adapter_files(folder: Path, plan: Plan) -> tuple[Path, ...]:
    if plan.head != "linear":
        return (folder / WEIGHTS_NAME,)
    inside = folder / HEAD_NAME
    return folder / WEIGHTS_NAME, inside if inside.exists() else folder.parent / HEAD_NAME


def check_origin(origin: Origin, plan: Plan, model: ModelConfig, labels: Sequence[str], base: BaseModel) -> None:
    """Refuse weights that would mean something else in the run that is to begin with them.

    Args:
        origin: The weights.
        plan: Plan of the new run.
        model: Head and pooling of the new run.
        labels: Class names of the new run, in order.
        base: Base model of the new run.

    Raises:
        ModelError: Another base model, or another adapter or head than planned.
        ConfigError: Classes of other names or in another order, or a head that read another state.
    """
    differences = _compare_plans(origin.plan, plan)
    if differences:
        raise ModelError(
            f"these weights do not fit this run's plan: {'; '.join(differences[:3])}"
            + (f" ({len(differences)} differences in all)" if len(differences) > 3 else ""),
            where=f"start_from: {origin.folder}",
            hint="Plan the same adapter and head, for example with the recipe that they were trained with.",
        )
    if origin.run is None:
        return
    theirs = read_manifest(origin.run).base
    if theirs.weights_sha256 != base.weights_sha256:
        raise ModelError(
            f"these weights were trained on {theirs.name} ({theirs.weights_sha256[:12]}…), this run has"
            f" {base.name} ({base.weights_sha256[:12]}…)",
            where=f"start_from: {origin.folder}",
            hint="Name the same base model: --base",
        )
    settings = read_config(origin.run)
    if model.head == "linear" and settings.model.pooling != model.pooling:
        raise ConfigError(
            f"the head was trained on the {settings.model.pooling} state, this run has {model.pooling}",
            where="model.pooling",
            hint=f"Set it likewise: --set model.pooling={settings.model.pooling}",
        )
    names = read_data_report(origin.run)["labels"]
    if list(labels) != names:
        raise ConfigError(
            f"the head knows the classes {names}, this run's data has {list(labels)}",
            where="data.labels",
            hint=f"The same names in the same order are needed: --set 'data.labels=[{', '.join(names)}]'",
        )


def _compare_plans(theirs: Plan, ours: Plan) -> list[str]:
    differences = [
        f"{name} is {getattr(theirs, name)} there and {getattr(ours, name)} here"
        for name in ("family", "num_labels", "head", "variant", "bias")
        if getattr(theirs, name) != getattr(ours, name)
    ]
    there = {module.name: module for module in theirs.modules}
    here = {module.name: module for module in ours.modules}
    differences += [f"{name} has an adapter only there" for name in there if name not in here]
    differences += [f"{name} has an adapter only here" for name in here if name not in there]
    for name in there.keys() & here.keys():
        mine, other = here[name], there[name]
        for field in ("out_features", "in_features", "rank", "scaling"):
            if getattr(mine, field) != getattr(other, field):
                differences.append(f"{name} has {field} {getattr(other, field)} there and {getattr(mine, field)} here")
    return differences
