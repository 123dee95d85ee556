"""Fine-tune a text classifier with fewer than a million trainable parameters, and know exactly what you got."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submillion import report
    from submillion.api import export, load, plan, train, tune
    from submillion.budget_curve.curve import curve
    from submillion.estimator import SubmillionClassifier

__version__ = "0.1.0"
__all__ = ["SubmillionClassifier", "__version__", "curve", "export", "load", "plan", "report", "train", "tune"]


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that importing the package costs nothing."""
    if name in ("export", "load", "plan", "train", "tune"):
        from submillion import api

        return getattr(api, name)
    if name == "curve":
        from submillion.budget_curve.curve import curve

        return curve
    if name == "SubmillionClassifier":
        from submillion.estimator import SubmillionClassifier

        return SubmillionClassifier
    if name == "report":
        return import_module("submillion.report")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
