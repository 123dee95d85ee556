"""Classifiers on tiny bases, features of given lengths, and the same model as the stock libraries run it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from submillion.budget.plan import Plan, make_plan
from submillion.config.run import AdapterConfig, ModelConfig
from submillion.encoding.text_encoder import Features, hash_id
from submillion.model.encoder import Classifier, build_classifier
from submillion.model.sources import find_base, load_base_config
from submillion.run.folder import RunDir

NUM_LABELS = 4
LENGTHS = (5, 9, 40, 9, 3, 17, 64, 9, 33)


@dataclass(frozen=True)
class Tiny:
    """A classifier, its plan and the folder of its base."""

    classifier: Classifier
    plan: Plan
    base: Path


def build_tiny_classifier(
    base: Path,
    *,
    head: str = "native",
    pooling: str = "mean",
    dropout: float | None = None,
    head_dropout: float = 0.0,
    adapter_dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    moved: bool = True,
    **adapter: Any,
) -> Tiny:
    """Build a classifier; `moved` shifts every trained value, as training would: fresh B matrices are zero."""
    settings = {"rank": 4, "targets": ("all",), **adapter}
    model = ModelConfig(
        base=str(base), head=head, pooling=pooling, dropout=dropout, head_dropout=head_dropout, max_length=64
    )
    plan = make_plan(
        load_base_config(str(base)),
        base=str(base),
        num_labels=NUM_LABELS,
        model=model,
        adapter=AdapterConfig(**settings),
        budget=1_000_000,
    )
    classifier = build_classifier(
        find_base(str(base)), plan, model, adapter_dropout=adapter_dropout, dtype=dtype, seed=seed
    )
    if moved:
        move_parameters(classifier)
    return Tiny(classifier.eval(), plan, base)


def move_parameters(classifier: Classifier, std: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():
        for parameter in classifier.trainable_parameters().values():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))


def make_features(lengths: Sequence[int] = LENGTHS, *, seed: int = 0, num_tokens: int = 90) -> list[Features]:
    """Return features of random tokens; none is a special token, so that no model reads one as padding."""
    rng = np.random.default_rng(seed)
    rows = enumerate(lengths)
    return [
        Features(
            id=f"r{row}",
            input_ids=rng.integers(5, num_tokens, size=length).astype(np.int32),
            label=row % NUM_LABELS,
            truncated=False,
            key=hash_id(f"r{row}"),
        )
        for row, length in rows
    ]


def save_run_files(tiny: Tiny, folder: Path) -> RunDir:
    """Write adapter and head as a run does."""
    run = RunDir(folder)
    tiny.classifier.save(run.adapter, run.head)
    return run


def load_stock(tiny: Tiny, adapter: Path | None) -> Any:
    """Load the base with the stock libraries alone, eager attention, and an adapter folder on it by PEFT."""
    kind: Any = AutoModel
    options: dict[str, Any] = {}
    if tiny.plan.head == "native":
        kind, options = AutoModelForSequenceClassification, {"num_labels": NUM_LABELS}
    model = kind.from_pretrained(tiny.base, attn_implementation="eager", dtype=torch.float32, **options)
    return (model if adapter is None else peft.PeftModel.from_pretrained(model, adapter)).eval()


def score_stock(model: Any, tiny: Tiny, features: Sequence[Features], *, pooling: str = "mean") -> torch.Tensor:
    """Return the logits of a stock model, one record at a time and so without any padding, shape (n, C)."""
    rows = []
    with torch.inference_mode():
        for item in features:
            output = model(input_ids=torch.from_numpy(item.input_ids.astype(np.int64))[None])
            if tiny.plan.head == "native":
                rows.append(output.logits[0])
                continue
            states = output.last_hidden_state[0]
            head = tiny.classifier.head
            assert head is not None
            rows.append(head.linear(states.mean(0) if pooling == "mean" else states[0]))
    return torch.stack(rows)


def build_wide_base(tiny: Path, folder: Path) -> Path:
    """Return a random base like a tiny one, with sizes that fit the CPU kernels: H 64, 2 heads, 96 inside."""
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "initializer_range": 0.1}
    config = AutoConfig.from_pretrained(tiny)
    if config.model_type == "distilbert":
        sizes = {"dim": 64, "n_heads": 2, "hidden_dim": 96, "initializer_range": 0.1}
    for name, value in sizes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(21)
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    parameter.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.2)
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    model.save_pretrained(folder)
    return folder
