"""Synthetic training rows: how they are written down, and the ways to make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submillion.augment.synonym_rows import write_synonym_rows

__all__ = ["write_synonym_rows"]


def __getattr__(name: str) -> Any:
    """Import what makes rows on first use: a run that only reads them needs none of it."""
    if name == "write_synonym_rows":
        from submillion.augment.synonym_rows import write_synonym_rows

        return write_synonym_rows
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
