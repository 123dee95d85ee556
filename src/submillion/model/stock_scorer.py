"""A classifier whose adapter is merged into its encoder, read from an exported folder without PEFT's layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from submillion.budget.plan import Plan
from submillion.config.run import ModelConfig
from submillion.errors import ModelError
from submillion.model import packed_attention
from submillion.model.base_files import read_safetensors
from submillion.model.dropout import DropoutState
from submillion.model.encoder import Classifier, load_stock, lower_precision
from submillion.model.heads import LinearHead
from submillion.model.sources import BaseModel
from submillion.model.untyped import Stock


class _Unwrapped(nn.Module):
    """A stock model in the place where `Classifier` looks inside PEFT's wrapper."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = stock


def load_plain_classifier(
    base: BaseModel, plan: Plan, model: ModelConfig, *, head: Path | None, dtype: torch.dtype
) -> Classifier:
    """Load a merged model for scoring.

    Args:
        base: The exported folder with the encoder and, if it is native, the head.
        plan: Plan of the run before its adapter was merged.
        model: Settings of head and pooling.
        head: The linear head's file; None for a native head.
        dtype: Data type of weights and activations; the head is float32.

    Raises:
        ModelError: A file is missing, damaged or does not fit.
    """
    packed_attention.register()
    # The folder holds the head as well, so no parameter may be new.
    stock: Stock = load_stock(base, replace(plan, head_modules=()), model)
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
