"""Synthetic training rows: how they are written down, and the ways to make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submillion.augment.generate import generate_rows
    from submillion.augment.prompt_examples import Inputs
    from submillion.config.generate import GenerateSettings
    from submillion.wordnet.synonym_rows import write_synonym_rows

__all__ = ["GenerateSettings", "Inputs", "generate_rows", "write_synonym_rows"]

_MODULES = {
    "GenerateSettings": "submillion.config.generate",
    "Inputs": "submillion.augment.prompt_examples",
    "generate_rows": "submillion.augment.generate",
    "write_synonym_rows": "submillion.wordnet.synonym_rows",
}


def __getattr__(name: str) -> Any:
    """Import what makes rows on first use: a run that only reads them needs none of it."""
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
