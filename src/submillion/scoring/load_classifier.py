"""Loading of classifiers for scoring: merged on the CPU kernels if possible, otherwise with stock modules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from submillion.budget.folder import WEIGHTS_NAME
from submillion.budget.plan import Plan
from submillion.config.run import ModelConfig
from submillion.errors import ConfigError
from submillion.model.base_files import list_weights
from submillion.model.merged import MergedClassifier, ScorePrecision, explain_unmerged, load_merged
from submillion.model.sources import BaseModel, load_base_config
from submillion.training.device import Device

if TYPE_CHECKING:  # transformers and peft are imported only if the stock modules run
    from submillion.model.encoder import Classifier


def load_scorer(
    base: BaseModel,
    plan: Plan,
    model: ModelConfig,
    adapter: Path,
    head: Path | None,
    *,
    device: Device,
    precision: ScorePrecision | None = None,
) -> Classifier | MergedClassifier:
    """Load a trained classifier for scoring.

    Args:
        base: The base model.
        plan: Plan of the trained run.
        model: Head, pooling and dropout settings.
        adapter: The adapter's folder.
        head: The linear head's file; None for a native head, which is part of the adapter.
        device: Device and precision to compute with.
        precision: Precision of the encoder's products; None for the device's precision.

    Raises:
        ConfigError: The precision is not available for this run on this machine.
        ModelError: A file is missing, damaged, or does not fit.
    """
    reason = explain_stock_scoring(base, plan, device, precision)
    if reason == "":
        return load_merged_scorer(base, plan, model, adapter, head, precision=precision or "bf16")
    if precision is not None and precision != device.precision:
        raise ConfigError(f"{precision} scoring is not available for this run on this machine: {reason}")
    from submillion.model.encoder import build_classifier

    classifier = build_classifier(base, plan, model, adapter_dropout=0.0, dtype=device.dtype, seed=0)
    classifier.load(adapter, head)
    return classifier.to(device.device).eval()


def explain_stock_scoring(base: BaseModel, plan: Plan, device: Device, precision: ScorePrecision | None = None) -> str:
    """Return why the stock modules score a run, as the end of a sentence; empty if the kernels do."""
    if device.device.type != "cpu":
        return "it runs on a GPU"
    config = load_base_config(base.name, base.revision)
    return explain_unmerged(plan, config, dtype=torch.bfloat16 if precision else device.dtype)


def load_merged_scorer(
    base: BaseModel, plan: Plan, model: ModelConfig, adapter: Path, head: Path | None, *, precision: ScorePrecision
) -> MergedClassifier:
    """Load a classifier with its adapter merged, with the arguments and errors of `load_scorer`."""
    names = list_weights([path.name for path in base.folder.iterdir()])
    return load_merged(
        plan,
        load_base_config(base.name, base.revision),
        weights=[base.folder / name for name in names],
        adapter=adapter / WEIGHTS_NAME,
        head=head,
        pooling=model.pooling,
        precision=precision,
    ).eval()
