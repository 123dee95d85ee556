"""A classifier whose adapter has been merged into its encoder: read from an exported folder, without PEFT's layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from submillion.budget.plan import Plan
from submillion.config.run import ModelConfig
from submillion.errors import ModelError
from submillion.model import packed_attention
from submillion.model.adapter import read_safetensors
from submillion.model.dropout import DropoutState
from submillion.model.encoder import Classifier, load_stock, lower_precision
from submillion.model.heads import LinearHead
from submillion.model.sources import BaseModel


class _Unwrapped(nn.Module):
    """Holds a stock model where `Classifier` looks for it inside PEFT's wrapper."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = stock


def load_plain_classifier(
    base: BaseModel, plan: Plan, model: ModelConfig, *, head: Path | None, dtype: torch.dtype
) -> Classifier:
    """Load a merged model for scoring.

    Args:
        base: The exported folder: the encoder, and a native head with it.
        plan: What was trained before it was merged.
        model: Head and pooling.
        head: The linear head's file; None for a native head.
        dtype: Of weights and activations; the head is float32.

    Raises:
        ModelError: A file is missing, damaged or does not fit.
    """
    packed_attention.register()
    # The head stands in the folder like everything else: nothing in it may be new.
    stock: Any = load_stock(base, replace(plan, head_modules=()), model)
    linear = None
    if head is not None:
        linear = LinearHead(stock.config.hidden_size, plan.num_labels, 0.0)
        tensors = read_safetensors(head)
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        wanted = {f"head.{key}": tuple(value.shape) for key, value in linear.linear.state_dict().items()}
        if shapes != wanted:
            raise ModelError(f"holds {shapes}, not {wanted}", where=str(head))
        linear.linear.load_state_dict({key.removeprefix("head."): value for key, value in tensors.items()})
    for parameter in stock.parameters():
        parameter.requires_grad_(False)
    lower_precision(stock, None if linear is not None else stock.base_model_prefix, dtype)
    merged = replace(plan, variant="lora")
    return Classifier(_Unwrapped(stock), merged, linear, model.pooling, DropoutState(), dtype=dtype).eval()
