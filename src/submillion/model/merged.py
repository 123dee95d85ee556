"""A trained classifier for scoring only: adapters are merged into weights that are read directly from safetensors.

W + scaling B A is added in float32 and rounded once, to bfloat16 or to 8-bit integers with one scale per row (Hu et
al., arXiv 2106.09685, section 4.1: no cost at inference). Neither transformers nor peft is imported, so a cold process
starts quickly. A record's states are the same bits whichever records are scored with it; its logits can differ only by
the rounding of the head's float32 products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from submillion.budget.count import read_num_layers
from submillion.budget.families import LayerNames, get_family
from submillion.budget.head_counts import get_model_prefix
from submillion.budget.plan import Plan
from submillion.encoding.batches import Batch
from submillion.errors import ModelError
from submillion.kernels import calls
from submillion.kernels.attention import AttentionCall, attend
from submillion.kernels.calls import Norm
from submillion.kernels.weights import Int8Weight, PackedWeight, pack_weight, quantise_weight
from submillion.model.base_files import read_safetensors
from submillion.model.config_facts import explain_stock, first_position, read_sizes
from submillion.model.copies import drop_copies
from submillion.model.distance_bias import read_distance_bias
from submillion.model.pooling import pool_first, pool_mean

ScorePrecision = Literal["bf16", "int8"]
_Tensors = Mapping[str, torch.Tensor]
# The update of these variants is scaling * B A on the checkpoint's weights.
_MERGEABLE = frozenset({"lora", "rslora"})
_WRAPPER = "base_model.model."
_OLD_NORM_NAMES = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True, eq=False)
class _Linear:
    weight: PackedWeight | Int8Weight
    bias: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Layer:
    qkv: _Linear
    attention_output: _Linear
    ffn_in: _Linear
    ffn_out: _Linear
    attention_norm: Norm
    ffn_norm: Norm


class MergedClassifier(nn.Module):
    """A frozen classifier on the CPU kernels.

    Args:
        plan: Plan of the trained run.
        config: The base model's ``config.json``.
        tensors: All weights: the encoder's by their names in the bare encoder, the head's by their names in the whole
            model.
        pooling: Name of the state that a linear head reads.
        precision: Precision of the encoder's products.
    """

    def __init__(
        self, plan: Plan, config: Mapping[str, object], tensors: _Tensors, pooling: str, precision: ScorePrecision
    ) -> None:
        super().__init__()
        self.plan = plan
        self.precision = precision
        settings = SimpleNamespace(**config)
        self._num_heads = read_sizes(settings)[2]
        self._first_position = first_position(settings)
        epsilon = float(getattr(settings, "layer_norm_eps", 1e-12))
        family = get_family(plan.family)
        names = family.layers
        assert isinstance(names, LayerNames)
        reader = _Reader(tensors, names, epsilon, precision)
        self._layers = [reader.read_layer(number) for number in range(read_num_layers(config))]
        self._words = tensors["embeddings.word_embeddings.weight"].to(torch.bfloat16).contiguous()
        self._places = reader.read_places()
        self._norm = reader.read_norm("embeddings.LayerNorm")
        self._projection = reader.read_projection()
        self._bias = None
        if family.position_bias is not None:
            weight = tensors[f"{family.position_bias.table}.weight"]
            self._bias = read_distance_bias(settings, weight, num_positions=len(self._places)).table
        self._apply_head = _make_head(plan, tensors, pooling)

    @property
    def device(self) -> torch.device:
        """The device, always the CPU."""
        return torch.device("cpu")

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, float32 (B, C), in packed order."""
        num_tokens = batch.num_tokens
        positions = batch.positions[:num_tokens] + self._first_position
        ids = batch.input_ids[:num_tokens]
        hidden = calls.embed(ids, positions, words=self._words, places=self._places, norm=self._norm)
        if self._projection is not None:
            hidden = calls.linear(hidden, self._projection.weight, bias=self._projection.bias)
        for layer in self._layers:
            hidden = self._run_layer(layer, hidden, batch.offsets)
        return self._apply_head(hidden, batch.offsets)

    def _run_layer(self, layer: _Layer, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        qkv = calls.linear(hidden, layer.qkv.weight, bias=layer.qkv.bias)
        scaling = (hidden.shape[1] // self._num_heads) ** -0.5
        context = attend(AttentionCall(qkv, self._num_heads, scaling, offsets, None, None, None, self._bias))
        first = calls.linear_norm(
            context,
            layer.attention_output.weight,
            bias=layer.attention_output.bias,
            residual=hidden,
            norm=layer.attention_norm,
        ).out
        w_in, w_out = layer.ffn_in.weight, layer.ffn_out.weight
        bias_in, bias_out = layer.ffn_in.bias, layer.ffn_out.bias
        if isinstance(w_in, Int8Weight) and isinstance(w_out, Int8Weight):
            return calls.int8_ffn_norm(first, w_in, w_out, bias_in=bias_in, bias_out=bias_out, norm=layer.ffn_norm)
        assert isinstance(w_in, PackedWeight)
        assert isinstance(w_out, PackedWeight)
        return calls.ffn_norm(first, w_in, w_out, bias_in=bias_in, bias_out=bias_out, norm=layer.ffn_norm)[0].out


@dataclass(frozen=True)
class _Reader:
    tensors: _Tensors
    names: LayerNames
    epsilon: float
    precision: ScorePrecision

    def read_layer(self, number: int) -> _Layer:
        names, prefix = self.names, f"{self.names.stack}.{number}."
        return _Layer(
            qkv=self._read_linears([prefix + name for name in (names.query, names.key, names.value)]),
            attention_output=self._read_linears([prefix + names.attention_output]),
            ffn_in=self._read_linears([prefix + names.ffn_in]),
            ffn_out=self._read_linears([prefix + names.ffn_out]),
            attention_norm=self.read_norm(prefix + names.attention_norm),
            ffn_norm=self.read_norm(prefix + names.ffn_norm),
        )

    def read_norm(self, name: str) -> Norm:
        weight, bias = (self.tensors[f"{name}.{part}"].float().contiguous() for part in ("weight", "bias"))
        return Norm(weight, bias, self.epsilon)

    def read_places(self) -> torch.Tensor:
        # Every token is of type 0, so position and type are one table.
        places = self.tensors["embeddings.position_embeddings.weight"].float()
        types = self.tensors.get("embeddings.token_type_embeddings.weight")
        return (places if types is None else places + types.float()[0]).contiguous()

    def read_projection(self) -> _Linear | None:
        name = "embeddings_project"
        if f"{name}.weight" not in self.tensors:
            return None
        weight = pack_weight(self.tensors[f"{name}.weight"].to(torch.bfloat16))
        return _Linear(weight, self.tensors[f"{name}.bias"].float())

    def _read_linears(self, names: list[str]) -> _Linear:
        weight = torch.cat([self.tensors[f"{name}.weight"].float() for name in names])
        bias = torch.cat([self.tensors[f"{name}.bias"].float() for name in names])
        if self.precision == "int8":
            return _Linear(quantise_weight(weight), bias)
        return _Linear(pack_weight(weight.to(torch.bfloat16)), bias)


_ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "relu": torch.relu,
}


def _make_head(plan: Plan, tensors: _Tensors, pooling: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float()

    if plan.head == "linear":
        last = read("head")
        pool = pool_mean if pooling == "mean" else pool_first
        return lambda hidden, offsets: functional.linear(pool(hidden, offsets), *last)
    family = get_family(plan.family)
    dense_name = family.head_dense or family.pooler
    assert dense_name is not None
    assert family.kernels is not None
    activate = _ACTIVATIONS[family.kernels.head_activation]
    dense, last = read(dense_name), read(family.head_last)
    return lambda hidden, offsets: functional.linear(
        activate(functional.linear(pool_first(hidden, offsets), *dense)), *last
    )


def explain_unmerged(plan: Plan, config: Mapping[str, object], *, dtype: torch.dtype) -> str:
    """Return why a plan cannot be scored merged, as the end of a sentence; empty if it can."""
    if plan.variant not in _MERGEABLE:
        return f"{plan.variant} changes more than a low-rank update"
    if not any(name in config for name in get_family(plan.family).sizes.layers):
        return "its configuration does not say how many layers it has"
    return explain_stock(SimpleNamespace(**config), variant=plan.variant, dtype=dtype)


def load_merged(
    plan: Plan,
    config: Mapping[str, object],
    *,
    weights: list[Path],
    adapter: Path,
    head: Path | None,
    pooling: str,
    precision: ScorePrecision = "bf16",
) -> MergedClassifier:
    """Read a base model and an adapter and merge them.

    Args:
        plan: Plan of the trained run, for which `explain_unmerged` must return an empty string.
        config: The base model's ``config.json``.
        weights: The base model's safetensors files.
        adapter: The adapter's safetensors file.
        head: The linear head's file, or None for a native head.
        pooling: Name of the state that a linear head reads.
        precision: Precision of the encoder's products.

    Raises:
        ModelError: A file is missing or damaged, or a tensor is missing or of another shape.
    """
    prefix = get_model_prefix(config)
    tensors: dict[str, torch.Tensor] = {}
    for path in weights:
        tensors.update((_name_in_encoder(name, prefix), tensor) for name, tensor in read_safetensors(path).items())
    trained = drop_copies(read_safetensors(adapter), where=str(adapter))
    if head is not None:
        trained.update(read_safetensors(head))
    _check_names(plan, trained, where=str(adapter))
    for name, tensor in trained.items():
        if ".lora_" not in name:
            bare = _name_in_encoder(name.removeprefix(_WRAPPER), prefix).replace(".base_layer.", ".")
            if bare in tensors and tensors[bare].shape != tensor.shape:
                raise ModelError(
                    f"{name} has shape {tuple(tensor.shape)}, the model needs {tuple(tensors[bare].shape)}",
                    where=str(adapter),
                )
            tensors[bare] = tensor
    try:
        for module in plan.modules:
            a, b = (trained[f"{_WRAPPER}{module.name}.lora_{part}.weight"].float() for part in "AB")
            name = _name_in_encoder(module.name, prefix) + ".weight"
            tensors[name] = torch.add(tensors[name].float(), b @ a, alpha=module.scaling)
        return MergedClassifier(plan, config, tensors, pooling, precision)
    except KeyError as error:
        raise ModelError(
            f"the checkpoint lacks the tensor {error.args[0]!r}", where=", ".join(str(path) for path in weights)
        ) from None


def _check_names(plan: Plan, trained: _Tensors, *, where: str) -> None:
    """Compare the trained tensors' names and shapes with the plan's; biases are only counted."""
    wanted: dict[str, tuple[int, ...]] = {}
    for module in plan.modules:
        stem = f"{_WRAPPER}{module.name}.lora_"
        wanted[f"{stem}A.weight"] = (module.rank, module.in_features)
        wanted[f"{stem}B.weight"] = (module.out_features, module.rank)
    for part in plan.head_modules:
        stem = part.name if plan.head == "linear" else _WRAPPER + part.name
        wanted.update({f"{stem}.{name}": shape for name, shape in part.tensors if not part.provided})
    missing = sorted(wanted.keys() - trained.keys())
    others = trained.keys() - wanted.keys()
    extra = sorted(name for name in others if plan.bias == "none" or not name.endswith("bias"))
    num_biases = sum(trained[name].numel() for name in others)
    if missing or extra or num_biases != plan.bias_params:
        raise ModelError(
            f"does not fit the plan: missing {missing[:3]}, not expected {extra[:3]}"
            f" ({len(missing)} and {len(extra)} in all), {num_biases:,} trained biases, planned {plan.bias_params:,}",
            where=where,
        )
    for name, shape in wanted.items():
        if tuple(trained[name].shape) != tuple(shape):
            raise ModelError(
                f"{name} has shape {tuple(trained[name].shape)}, the model needs {tuple(shape)}", where=where
            )


def _name_in_encoder(name: str, prefix: str) -> str:
    name = name.removeprefix(f"{prefix}.")
    stem, _, last = name.rpartition(".")
    if stem.endswith("LayerNorm") and last in _OLD_NORM_NAMES:
        return f"{stem}.{_OLD_NORM_NAMES[last]}"
    return name
