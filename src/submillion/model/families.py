"""Encoders of the BERT kind as the CPU kernels know them: names of their parts, sizes, and what keeps others away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from submillion.kernels import calls
from submillion.kernels.native import find_kernels


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


def first_position(config: Any) -> int:
    """Return the position id of a record's first token: RoBERTa's count from padding_idx + 1, others from 0."""
    if config.model_type in {"roberta", "xlm-roberta", "camembert"}:
        return int(config.pad_token_id) + 1
    return 0
