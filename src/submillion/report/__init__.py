"""Reports on run folders: a self-contained page, plots as PNG, and the model card."""

from __future__ import annotations

from submillion.report.write import write_report

__all__ = ["write_report"]
