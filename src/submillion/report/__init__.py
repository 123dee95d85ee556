"""Reports on run folders: a self-contained page, plots as PNG, and the model card."""

from __future__ import annotations

from submillion.report.card import write_card
from submillion.report.write import write_report

__all__ = ["write_card", "write_report"]
