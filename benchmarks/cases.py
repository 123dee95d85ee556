"""The measured cases: this package's, and the peers', each as its users would set it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from submillion.errors import ConfigError

Kind = Literal["train", "score", "data"]


@dataclass(frozen=True)
class Case:
    """One measured case.

    Attributes:
        name: Name in results and tables.
        kind: Kind of the case.
        runner: A key of `worker.RUNNERS`.
        precision: Precision of the matrix products.
        about: Description of the set-up, for readers of the result.
        options: Options of the runner.
        group: Name in ratios, which is shared by several set-ups of one peer; empty for this package.
        packages: Import names of packages that it needs beyond this package's dependencies.
        pads_to: Length that it pads every row to; 0 if its cost depends on the rows' lengths.
        share: Part of a round's rows that it does; below 1 for slow cases with the same cost in every step.
    """

    name: str
    kind: Kind
    runner: str
    precision: str
    about: str
    options: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    packages: tuple[str, ...] = ()
    pads_to: int = 0
    share: float = 1.0

    @property
    def is_peer(self) -> bool:
        """Whether this belongs to another library."""
        return bool(self.group)


PUBLISHED_LENGTH = 192
"""Number of tokens that the published systems pad every row to."""


def list_cases(kind: Kind, *, device: str, base: str, peers: bool, batch_size: int) -> list[Case]:
    """Return the cases of a kind, with this package's first.

    Args:
        kind: ``train`` or ``score``.
        device: ``cpu`` or ``cuda``.
        base: Name of the base model.
        peers: Whether to include peers.
        batch_size: Number of records in a training step.
    """
    cases = _list_training(device, batch_size) if kind == "train" else _list_scoring(device, base)
    return [case for case in cases if peers or not case.is_peer]


def _list_training(device: str, batch_size: int) -> list[Case]:
    ours = Case("submillion", "train", "train", "bf16", "shuffled rows, packed without padding", {"precision": "auto"})
    low = "bf16" if device == "cpu" else "fp16"
    published = _trainer(
        "Trainer+PEFT, as published",
        "trainer as published",
        "fp32" if device == "cpu" else low,
        f"padded to {PUBLISHED_LENGTH}, {'fp32' if device == 'cpu' else low}",
        mixed=None if device == "cpu" else low,
        pad_to=PUBLISHED_LENGTH,
        micro_batch=batch_size,
        share=0.1 if device == "cpu" else 1.0,
    )
    best = [
        _trainer(
            f"Trainer+PEFT, best, {size} a pass",
            "trainer at its best",
            low,
            f"group_by_length, {low} mixed precision, passes of {size}, steps of {batch_size}",
            mixed=low,
            micro_batch=size,
        )
        for size in (batch_size, *((batch_size // 2, batch_size // 4) if device == "cpu" else ()))
    ]
    tuned = _trainer(
        "Trainer+PEFT, tuned",
        "trainer tuned by hand",
        "bf16",
        f"group_by_length, model loaded in bf16, eager attention, passes of {max(1, batch_size // 4)}",
        weights="bfloat16",
        attention="eager",
        micro_batch=max(1, batch_size // 4),
    )
    return [ours, published, *best, *([tuned] if device == "cpu" else [])]


def _trainer(
    name: str,
    group: str,
    precision: str,
    about: str,
    *,
    micro_batch: int,
    mixed: str | None = None,
    weights: str = "float32",
    attention: str | None = None,
    pad_to: int | None = None,
    share: float = 1.0,
) -> Case:
    options = {"mixed": mixed, "weights": weights, "attention": attention, "pad_to": pad_to, "micro_batch": micro_batch}
    return Case(name, "train", "trainer", precision, about, options, group=group, pads_to=pad_to or 0, share=share)


def _list_scoring(device: str, base: str) -> list[Case]:
    cases = [
        Case("submillion bf16", "score", "score", "bf16", "packed without padding", {"precision": "bf16"}),
        Case("submillion int8", "score", "score", "int8", "packed without padding", {"precision": "int8"}),
    ]
    if device == "cuda":
        cases = [Case("submillion bf16", "score", "score", "bf16", "packed without padding", {"precision": None})]
    pipeline = Case(
        "pipeline",
        "score",
        "pipeline",
        "fp32",
        'pipeline("text-classification", batch_size=32)',
        {"batch_size": 32},
        group="pipeline",
    )
    padded = Case(
        "padded loop bf16",
        "score",
        "padded",
        "bf16",
        "sorted by length, batches of 32 padded to their longest",
        {"weights": "bfloat16", "batch_size": 32},
        group="padded loop bf16",
    )
    cases += [pipeline, padded]
    if device == "cpu":
        # Batches of 8 suit ONNX Runtime better than larger ones, since its activations then fit the caches.
        cases += [
            Case(
                f"ONNX Runtime {name}, batches of {size}",
                "score",
                "onnxruntime",
                name,
                f"{about}, sorted by length, batches of {size} padded to their longest",
                {"name": name, "batch_size": size},
                group=f"ONNX Runtime {name}",
                packages=("onnx", "onnxruntime", "onnxscript"),
            )
            for name, about in (("fp32", "exported"), ("int8", "exported, dynamic quantisation of every channel"))
            for size in (32, 8)
        ]
    if base == "minilm-l6":
        cases.append(
            Case(
                "sentence-transformers",
                "score",
                "sentence_transformers",
                "fp32",
                "encode(batch_size=32), embeddings without a head",
                {"batch_size": 32},
                group="sentence-transformers",
                packages=("sentence_transformers",),
            )
        )
    return cases


def check_packages(cases: Sequence[Case]) -> None:
    """Refuse cases whose packages are not installed.

    Raises:
        ConfigError: Packages are missing. The message names them and says how to install them.
    """
    missing = sorted({name for case in cases for name in case.packages if find_spec(name) is None})
    if missing:
        raise ConfigError(
            f"these peers are not installed: {', '.join(missing)}",
            where="--peers",
            hint="Run `pip install -r benchmarks/requirements.txt`, or leave --peers out.",
        )
