"""Names for values of torch, transformers and PEFT that have no types."""

from __future__ import annotations

from typing import Any, TypeAlias

Stock: TypeAlias = Any
"""A module, configuration or tokenizer of transformers or PEFT, whose attributes depend on the family."""

Context: TypeAlias = Any
"""What autograd hands from the forward pass of a function to its backward pass."""
