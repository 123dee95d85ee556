"""Encoders of the BERT kind on the CPU kernels: embeddings and layers taken from a stock model.

The stock model keeps the parameters; this reads them where they are, so that what trains stays in one place. Other
architectures, other activations and adapters with a forward pass of their own keep the stock modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from submillion.batches import Batch
from submillion.kernels import calls
from submillion.kernels.native import find_kernels
from submillion.model.dropout import KeyedDropout
from submillion.model.fused_layer import AttentionSite, FusedLayer, FusedNorm
from submillion.model.fused_linear import Adapter, FusedLinear, make_mask


@dataclass(frozen=True)
class LayerNames:
    """Names of a layer's modules, below the layer."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention: str = "attention.self"
    attention_output: str = "attention.output.dense"
    attention_output_dropout: str | None = "attention.output.dropout"
    attention_norm: str = "attention.output.LayerNorm"
    ffn_in: str = "intermediate.dense"
    ffn_out: str = "output.dense"
    ffn_output_dropout: str = "output.dropout"
    ffn_norm: str = "output.LayerNorm"
    layers: str = "encoder.layer"


_BERT = LayerNames()
_DISTILBERT = LayerNames(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention="attention",
    attention_output="attention.out_lin",
    attention_output_dropout=None,
    attention_norm="sa_layer_norm",
    ffn_in="ffn.lin1",
    ffn_out="ffn.lin2",
    ffn_output_dropout="ffn.dropout",
    ffn_norm="output_layer_norm",
    layers="transformer.layer",
)
LAYER_NAMES: Mapping[str, LayerNames] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": _DISTILBERT,
}


def explain_stock(config: Any, *, variant: str, dtype: torch.dtype) -> str:
    """Return why an encoder runs on the stock modules, as the end of a sentence; empty if it runs on the kernels.

    Args:
        config: The stock model's configuration.
        variant: The adapters' variant.
        dtype: Of frozen weights and activations.
    """
    if config.model_type not in LAYER_NAMES:
        return f"{config.model_type} encoders have no kernels"
    if dtype != torch.bfloat16:
        return "the kernels compute in bf16"
    if variant == "dora":
        return "DoRA has a forward pass of its own"
    activation = getattr(config, "hidden_act", None) or getattr(config, "activation", None)
    if activation != "gelu" or getattr(config, "position_embedding_type", "absolute") != "absolute":
        return f"the kernels know gelu and absolute positions, not {activation}"
    sizes = read_sizes(config)
    if not calls.supports(*sizes):
        return "its sizes are no multiples of 32"
    return find_kernels().reason


def read_sizes(config: Any) -> tuple[int, int, int]:
    """Return (hidden, intermediate, heads) of a configuration of a family with kernels."""
    if config.model_type == "distilbert":
        return int(config.dim), int(config.hidden_dim), int(config.n_heads)
    return int(config.hidden_size), int(config.intermediate_size), int(config.num_attention_heads)


class FusedEncoder:
    """The forward pass of an encoder on the kernels.

    Args:
        encoder: The stock encoder, on the CPU, frozen weights in bfloat16.
        adapter: Name of the adapter inside PEFT's layers.
    """

    def __init__(self, encoder: Any, adapter: str) -> None:
        config = encoder.config
        self._embeddings = encoder.embeddings
        self._projection: nn.Linear | None = getattr(encoder, "embeddings_project", None)
        names = LAYER_NAMES[config.model_type]
        num_heads = read_sizes(config)[2]
        reader = _LayerReader(names, adapter, num_heads)
        self.layers = [reader.read(layer) for layer in encoder.get_submodule(names.layers)]
        self._places = _join_places(self._embeddings)
        norm = self._embeddings.LayerNorm
        self._norm = FusedNorm(norm.weight, norm.bias, norm.eps)

    def __call__(self, batch: Batch, first_position: int) -> torch.Tensor:
        """Return the last states, (N, H) bfloat16, without filler.

        Args:
            batch: A packed batch on the CPU.
            first_position: Position id of a record's first token.
        """
        hidden = self.embed(batch, first_position)
        longest = batch.groups[-1].length
        for layer in self.layers:
            hidden = layer(hidden, batch.offsets, longest)
        return hidden

    def embed(self, batch: Batch, first_position: int) -> torch.Tensor:
        """Return the states that enter the first layer, (N, H) bfloat16."""
        num_tokens = batch.num_tokens
        ids = batch.input_ids[:num_tokens]
        positions = batch.positions[:num_tokens] + first_position
        words = self._embeddings.word_embeddings.weight
        norm = self._norm
        if norm.bias.requires_grad or words.shape[1] % 32 or self._projection is not None:
            return self._embed_stock(batch, first_position)
        mask = make_mask(_as_keyed(self._embeddings.dropout), words.shape[1])
        return calls.embed(ids, positions, words=words.detach(), places=self._places, norm=norm.read(), mask=mask)

    def _embed_stock(self, batch: Batch, first_position: int) -> torch.Tensor:
        # Whole, with filler: dropout masks are made for all rows.
        hidden: torch.Tensor = self._embeddings(
            input_ids=batch.input_ids[None], position_ids=(batch.positions + first_position)[None]
        )
        if self._projection is not None:
            hidden = self._projection(hidden)
        return hidden[0, : batch.num_tokens].contiguous()


def _join_places(embeddings: Any) -> torch.Tensor:
    # Every token is of type 0, so position and type are one table; float32, as the sum is.
    places = embeddings.position_embeddings.weight.detach().float()
    types = getattr(embeddings, "token_type_embeddings", None)
    return (places if types is None else places + types.weight.detach().float()[0]).contiguous()


def _as_keyed(module: Any) -> KeyedDropout | None:
    return module if isinstance(module, KeyedDropout) else None


@dataclass(frozen=True)
class _LayerReader:
    names: LayerNames
    adapter: str
    num_heads: int

    def read(self, layer: nn.Module) -> FusedLayer:
        names = self.names
        attention = layer.get_submodule(names.attention)
        dropout = _as_keyed(getattr(attention, "dropout", None))
        return FusedLayer(
            qkv=self._join([layer.get_submodule(name) for name in (names.query, names.key, names.value)]),
            attention_output=self._join([layer.get_submodule(names.attention_output)]),
            ffn_in=self._join([layer.get_submodule(names.ffn_in)]),
            ffn_out=self._join([layer.get_submodule(names.ffn_out)]),
            attention_norm=_read_norm(layer.get_submodule(names.attention_norm)),
            ffn_norm=_read_norm(layer.get_submodule(names.ffn_norm)),
            num_heads=self.num_heads,
            attention_site=AttentionSite(dropout, 0 if dropout is None else dropout.site),
            attention_output_dropout=self._find_dropout(layer, names.attention_output_dropout),
            ffn_output_dropout=self._find_dropout(layer, names.ffn_output_dropout),
        )

    @staticmethod
    def _find_dropout(layer: nn.Module, name: str | None) -> KeyedDropout | None:
        return None if name is None else _as_keyed(layer.get_submodule(name))

    def _join(self, linears: list[nn.Module]) -> FusedLinear:
        weights, biases, adapters, column = [], [], [], 0
        for linear in linears:
            frozen: Any = getattr(linear, "base_layer", linear)
            weights.append(frozen.weight.detach())
            biases.append(frozen.bias)
            if frozen is not linear:
                adapters.append(self._read_adapter(linear, column))
            column += frozen.weight.shape[0]
        return FusedLinear(torch.cat(weights), biases, adapters)

    def _read_adapter(self, linear: Any, column: int) -> Adapter:
        return Adapter(
            first_column=column,
            a=linear.lora_A[self.adapter].weight,
            b=linear.lora_B[self.adapter].weight,
            scaling=float(linear.scaling[self.adapter]),
            dropout=_as_keyed(linear.lora_dropout[self.adapter]),
        )


def _read_norm(norm: Any) -> FusedNorm:
    return FusedNorm(norm.weight, norm.bias, norm.eps)
