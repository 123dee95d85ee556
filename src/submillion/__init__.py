"""Fine-tune a text classifier with fewer than a million trainable parameters, and know exactly what you got."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submillion import report
    from submillion.api import export, load, plan, predict, train, tune
    from submillion.budget_curve.curve import curve
    from submillion.data.from_python import read_dataset, read_records
    from submillion.estimator import SubmillionClassifier

__version__ = "0.1.0"
__all__ = [
    "SubmillionClassifier",
    "__version__",
    "curve",
    "export",
    "load",
    "plan",
    "predict",
    "read_dataset",
    "read_records",
    "report",
    "train",
    "tune",
]

_PLACES = {
    **dict.fromkeys(("export", "load", "plan", "predict", "train", "tune"), "submillion.api"),
    **dict.fromkeys(("read_dataset", "read_records"), "submillion.data.from_python"),
    "curve": "submillion.budget_curve.curve",
    "SubmillionClassifier": "submillion.estimator",
}


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that importing the package costs nothing."""
    if name == "report":
        return import_module("submillion.report")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
