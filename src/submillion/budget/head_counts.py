"""The table of classification heads: their modules and shapes, and the parts that a usual checkpoint contains.

A head module that the base model's checkpoint contains is frozen and not counted as trained. Every other module starts
at random values, so all of it is trained, saved and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from submillion.budget.count import read_hidden_size
from submillion.budget.families import read_family
from submillion.errors import ModelError

HeadKind = Literal["native", "linear"]


@dataclass(frozen=True, slots=True)
class HeadModule:
    """One module of a classification head.

    Attributes:
        name: Module name in the whole model; for native heads, that of the stock ``*ForSequenceClassification``.
        tensors: Name and shape of each parameter, weight first.
        provided: Whether a usual pre-training checkpoint contains it, so that it is frozen.
    """

    name: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    provided: bool = False

    @property
    def params(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for _, shape in self.tensors)

    @property
    def num_biases(self) -> int:
        """Number of biases among the parameters."""
        return sum(math.prod(shape) for name, shape in self.tensors if name == "bias")


def get_model_prefix(config: Mapping[str, object]) -> str:
    """Return the name under which a stock classification model holds its encoder, such as ``roberta``."""
    return read_family(config).prefix


def uses_pooler(config: Mapping[str, object], head: HeadKind) -> bool:
    """Return whether the head reads the encoder's pooler, which then belongs to the (frozen) encoder."""
    return head == "native" and read_family(config).head_reads_pooler


def list_head_modules(config: Mapping[str, object], *, head: HeadKind, num_labels: int) -> list[HeadModule]:
    """List the modules of a head in the order of computation.

    The last module gives the C class logits. Poolers inside the encoder are not part of the list.

    Args:
        config: The model's ``config.json``.
        head: ``native`` for the architecture's head; ``linear`` for one layer H -> C named ``head`` on a pooled state.
        num_labels: Number of classes C.

    Raises:
        ModelError: The family is not supported, or the configuration is damaged.
    """
    family = read_family(config)
    hidden = read_hidden_size(config)
    if head == "linear":
        return [_make_linear("head", hidden, num_labels)]
    if family.head == "prediction":
        return _list_prediction_head(config, hidden, num_labels)
    modules = []
    if family.head_dense:
        width = config.get("pooler_hidden_size", hidden) if family.head == "context_pooler" else hidden
        if width != hidden:
            raise ModelError(f"pooler_hidden_size {width!r} is not the hidden size {hidden}", where="config.json")
        modules.append(_make_linear(family.head_dense, hidden, hidden))
    modules.append(_make_linear(family.head_last, hidden, num_labels))
    return modules


def _list_prediction_head(config: Mapping[str, object], hidden: int, num_labels: int) -> list[HeadModule]:
    # The masked-language checkpoint contains head.dense and head.norm under the same names.
    dense = _make_linear("head.dense", hidden, hidden, bias=bool(config.get("classifier_bias", False)), provided=True)
    norm: tuple[tuple[str, tuple[int, ...]], ...] = (("weight", (hidden,)),)
    if config.get("norm_bias", False):
        norm += (("bias", (hidden,)),)
    return [dense, HeadModule("head.norm", norm, provided=True), _make_linear("classifier", hidden, num_labels)]


def _make_linear(name: str, width_in: int, width_out: int, *, bias: bool = True, provided: bool = False) -> HeadModule:
    tensors: tuple[tuple[str, tuple[int, ...]], ...] = (("weight", (width_out, width_in)),)
    if bias:
        tensors += (("bias", (width_out,)),)
    return HeadModule(name, tensors, provided)
