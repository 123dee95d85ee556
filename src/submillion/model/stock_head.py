"""A run's linear head as a stock head, for users who have only stock classes, where one can compute the same.

Stock heads read the first state through a dense layer and an activation. A linear layer fits through these without
loss: gelu(z) - gelu(-z) = z and relu(z) - relu(-z) = z for every z, and tanh(e z) / e = z within float32 rounding for
a small e. No stock head reads the mean of the states, and ModernBERT's has a norm that no weights can undo.
"""

from __future__ import annotations

import torch
from torch import nn

from submillion.budget.families import Family, get_family
from submillion.model.stock import quiet_loading
from submillion.model.untyped import Stock

# This is a power of two, so that scaling is exact. The relative error (e z)^2 / 3 is below 1e-5 for z up to 20, and e z
# is still a normal number in float16.
_SMALL = 2.0**-12


def explain_no_stock_head(family: str, *, pooling: str, num_labels: int, hidden_size: int) -> str:
    """Return why no stock class computes a linear head, as the end of a sentence; empty if one does.

    Args:
        family: The base's ``model_type``.
        pooling: Name of the state that the head reads, ``mean`` or ``first``.
        num_labels: Number of classes C.
        hidden_size: Width H of a state.
    """
    if pooling != "first":
        return "its head reads the mean of the states, and stock heads read the first one"
    dense, has_tanh = _find_dense(get_family(family))
    if dense is None:
        return f"the head of {family} has a norm before its last layer"
    if num_labels * (1 if has_tanh else 2) > hidden_size:
        return f"{num_labels} classes are too many for its dense layer of width {hidden_size}"
    return ""


def _find_dense(family: Family) -> tuple[str | None, bool]:
    """Return the full name of the dense layer before a native head's last one, and whether tanh follows it."""
    dense = family.head_dense or (f"{family.prefix}.{family.pooler}" if family.pooler else None)
    activation = family.kernels.head_activation if family.kernels else "tanh"
    return dense, family.head in {"token", "pooler", "plain_pooler"} and activation == "tanh"


def add_stock_head(encoder: Stock, weight: torch.Tensor, bias: torch.Tensor) -> Stock:
    """Return a stock classifier that is equal to an encoder with a linear head on its first state.

    Args:
        encoder: A stock encoder, for which `explain_no_stock_head` is empty.
        weight: The linear head's weight, shape (C, H).
        bias: The linear head's bias, shape (C,).
    """
    from transformers import AutoModelForSequenceClassification

    config = encoder.config
    family = get_family(config.model_type)
    config.num_labels = len(bias)
    if family.head == "context_pooler":
        config.pooler_hidden_act = "gelu"
    with quiet_loading(), torch.random.fork_rng(devices=[]):
        model: Stock = AutoModelForSequenceClassification.from_config(config)
    getattr(model, model.base_model_prefix).load_state_dict(encoder.state_dict(), strict=False)
    dense_name, has_tanh = _find_dense(family)
    assert dense_name is not None
    dense, last = model.get_submodule(dense_name), model.get_submodule(family.head_last)
    with torch.no_grad():
        for layer in (dense, last):
            layer.weight.zero_()
            layer.bias.zero_()
        count = len(bias)
        eye = torch.eye(count)
        if has_tanh:
            dense.weight[:count] = weight * _SMALL
            last.weight[:, :count] = eye / _SMALL
        else:
            dense.weight[: 2 * count] = torch.cat([weight, -weight])
            last.weight[:, : 2 * count] = torch.cat([eye, -eye], dim=1)
        last.bias.copy_(bias)
    return model.eval()


def name_blocking_tensor(family: str) -> str:
    """Return the name of a tensor that makes loading an encoder's folder as a classifier fail.

    The name is that of the stock head's last weights, and the tensor is empty, so it fits no number of classes. Loading
    a classifier then ends in an error instead of a random head. Loading only the encoder ignores it.
    """
    return f"{get_family(family).head_last}.weight"


def list_saved_tensors(encoder: nn.Module, family: str) -> dict[str, torch.Tensor]:
    """Return an encoder's tensors with the empty one that keeps it from being loaded as a classifier."""
    return {**encoder.state_dict(), name_blocking_tensor(family): torch.empty(0)}
