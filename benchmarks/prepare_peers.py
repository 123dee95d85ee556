"""The inputs that all measured processes share: a random base model, a trained run, and its merged stock model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measured_child import Gate, Job
from submillion.model.sources import find_base, load_base_config

RANDOM_BASES: Mapping[str, str] = {"roberta-base-random": "roberta-base"}
"""Architectures with random weights, each by name with its shipped configuration."""

ADAPTER: Mapping[str, Any] = {"rank": 8, "alpha": 16, "targets": ["query", "value"]}
"""The adapter of every case."""

# Steps of the run whose scoring is measured, enough to make its logits meaningful for comparing precisions.
_NUM_STEPS: Mapping[str, int] = {"minilm-l6": 60}
_NUM_STEPS_ELSE = 2

_TOKENIZER_BASE = "minilm-l6"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def make_random_base(name: str, folder: Path) -> Path:
    """Write a base model of a known architecture with random weights.

    The tokenizer is MiniLM's, whose ids are all below the vocabulary sizes of these architectures. The number of tokens
    matters for speed, but their ids do not.

    Args:
        name: A key of `RANDOM_BASES`.
        folder: New folder for the model.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    values = dict(load_base_config(RANDOM_BASES[name]))
    config = AutoConfig.for_model(str(values.pop("model_type")), **values)
    torch.manual_seed(0)
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer = find_base(_TOKENIZER_BASE).folder
    for file in _TOKENIZER_FILES:
        shutil.copyfile(tokenizer / file, folder / file)
    return folder


def look(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Return the ``device``, the number of ``threads`` that this machine allows, and the ``machine``."""
    import torch

    from submillion.kernels.native import find_kernels
    from submillion.pipeline.first_manifest import describe_machine
    from submillion.training.device import count_cpus

    machine = describe_machine()
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        machine |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory}
    else:
        machine["kernels"] = find_kernels().reason or "in use"
    return {"device": "cuda" if torch.cuda.is_available() else "cpu", "threads": count_cpus(), "machine": machine}


def prepare(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Make the inputs that the options ask for.

    Options: ``random`` (name of a base to make, or None), ``run``, ``merged`` and ``onnx`` (whether to train a run, to
    save it as a stock model, and to export that), ``name`` (name of the base).
    """
    folder = Path(job.folder)
    base = Path(job.base)
    if job.options["random"] is not None:
        make_random_base(job.options["random"], base)
    if job.options["run"]:
        _train_run(job, folder / "run")
    if job.options["merged"]:
        _merge(base, folder / "run", folder / "merged", job.num_labels)
    if job.options["onnx"]:
        from benchmarks.onnx_export import export_onnx

        export_onnx(folder / "merged", folder)
    return {}


def _train_run(job: Job, run: Path) -> None:
    from submillion.api import train
    from submillion.corpus import CORPUS_FOLDER

    train(
        {
            "name": "bench",
            "data": {"source": str(CORPUS_FOLDER)},
            "model": {"base": job.base, "head": "native", "max_length": job.max_length, "dropout": job.dropout},
            "adapter": {**ADAPTER, "dropout": job.dropout or 0.0},
            "train": {
                "max_steps": _NUM_STEPS.get(job.options["name"], _NUM_STEPS_ELSE),
                "learning_rate": 2e-3,
                "evaluate_every": 1000,
                "interval_unit": "steps",
            },
            "baseline": False,
            "threads": job.threads,
        },
        out=run,
    )


def _merge(base: Path, run: Path, folder: Path, num_labels: int) -> None:
    """Save the run as an ordinary classifier of transformers with merged adapters, as a peer would get it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from benchmarks.trainer_peer import load_adapter

    stock = AutoModelForSequenceClassification.from_pretrained(base, num_labels=num_labels)
    load_adapter(stock, run / "adapter").merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
