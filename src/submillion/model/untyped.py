"""Names for what torch, transformers and PEFT leave without a type."""

from __future__ import annotations

from typing import Any, TypeAlias

Stock: TypeAlias = Any
"""A module, a configuration or a tokenizer of transformers or PEFT: its attributes depend on the family."""

Context: TypeAlias = Any
"""What autograd hands from the forward pass of a function to its backward pass."""
