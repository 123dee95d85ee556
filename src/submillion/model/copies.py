"""Tensors that PEFT writes twice."""

from __future__ import annotations

import re

import torch

from submillion.budget.folder import is_copy
from submillion.errors import ModelError

_SAVED = re.compile(r"\.modules_to_save\.(?:default\.)?")


def drop_copies(tensors: dict[str, torch.Tensor], *, where: str) -> dict[str, torch.Tensor]:
    """Return an adapter's tensors without the copies that PEFT writes beside trained biases.

    Args:
        tensors: Tensors by their names in the file.
        where: The file, for messages.

    Raises:
        ModelError: A copy differs from its trained tensor, so it is unknown which of them is right.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not is_copy(name)}
    for name, tensor in tensors.items():
        twin = kept.get(_SAVED.sub(".", name))
        if name not in kept and twin is not None and not torch.equal(tensor, twin):
            raise ModelError(f"{name} differs from the tensor that it is a copy of", where=where)
    return kept
