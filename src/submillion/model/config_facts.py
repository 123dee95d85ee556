"""Facts of a loaded configuration: sizes, positions, and the reason why an encoder cannot run on the CPU kernels."""

from __future__ import annotations

import torch

from submillion.budget.families import get_family
from submillion.kernels import calls
from submillion.kernels.native import find_kernels
from submillion.model.untyped import Stock


def explain_stock(config: Stock, *, variant: str, dtype: torch.dtype) -> str:
    """Return why an encoder runs on the stock modules, as the end of a sentence; empty if it runs on the kernels.

    Args:
        config: The stock model's configuration.
        variant: The adapters' variant.
        dtype: Data type of frozen weights and activations.
    """
    if get_family(config.model_type).kernels is None:
        return f"{config.model_type} encoders have no kernels"
    if dtype != torch.bfloat16:
        return "the kernels compute in bf16"
    if variant == "dora":
        return "DoRA has its own forward pass"
    activation = getattr(config, "hidden_act", None) or getattr(config, "activation", None)
    if activation != "gelu" or getattr(config, "position_embedding_type", "absolute") != "absolute":
        return f"the kernels know gelu and absolute positions, not {activation}"
    sizes = read_sizes(config)
    if not calls.supports(*sizes):
        return "its sizes are not multiples of 32"
    return find_kernels().reason


def read_sizes(config: Stock) -> tuple[int, int, int]:
    """Return (hidden, intermediate, heads) of a configuration."""
    sizes = get_family(config.model_type).sizes
    hidden, intermediate, heads = (
        next(int(getattr(config, name)) for name in names if hasattr(config, name))
        for names in (sizes.hidden, sizes.intermediate, sizes.heads)
    )
    return hidden, intermediate, heads


def first_position(config: Stock) -> int:
    """Return the position id of a record's first token."""
    return int(config.pad_token_id) + 1 if get_family(config.model_type).counts_from_padding else 0
