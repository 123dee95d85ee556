"""What the files of a run must hold for a report of it. Keys that a report can do without may be absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from submillion.errors import RunError, SubmillionError
from submillion.run.manifest import TEMPERATURE
from submillion.storage.json_shapes import (
    ANY_NUMBER,
    COUNT,
    DAMAGED_HINT,
    SHARE,
    JsonObject,
    JsonView,
    Maybe,
    Number,
    Shape,
    check_shape,
)

_INTERVAL: Shape = [SHARE, SHARE]
_SIZE = Number(1, 1 << 62, is_whole=True)
_BIN: Shape = {"confidence": SHARE, "accuracy": SHARE, "num_records": COUNT}
_CLASS: Shape = {"label": str, "num_records": COUNT, "precision": SHARE, "recall": SHARE, "f1": SHARE}
# Sums of shares can be a rounding error above 1.
_RESULT: Shape = {
    "num_records": _SIZE,
    "accuracy": SHARE,
    "accuracy_interval": _INTERVAL,
    "macro_f1": Number(0, 1.000001),
    "macro_f1_interval": [Number(0, 1.000001), Number(0, 1.000001)],
    "per_class": [_CLASS],
    "confusion": [[COUNT]],
    "ece": SHARE,
    "ece_raw": SHARE,
    "brier": Number(0, 2.000001),
    "num_truncated?": COUNT,
    "temperature?": TEMPERATURE,
    "reliability?": [_BIN],
    "reliability_raw?": [_BIN],
    "coverage?": [{"coverage": SHARE, "threshold": SHARE, "accuracy": SHARE}],
}
_COMPARISON: Shape = {"difference": ANY_NUMBER, "interval": [ANY_NUMBER, ANY_NUMBER], "mcnemar_p": SHARE}
_BASELINE: Shape = {
    "num_records": _SIZE,
    "accuracy": SHARE,
    "accuracy_interval": _INTERVAL,
    "comparison?": Maybe(_COMPARISON),
}
_SAMPLE: Shape = {"num_records": _SIZE, "num_train": _SIZE, "accuracy": SHARE, "accuracy_interval": _INTERVAL}
_ENTRY: Shape = {
    "step?": ANY_NUMBER,
    "epoch?": ANY_NUMBER,
    "elapsed_s?": ANY_NUMBER,
    "split?": str,
    "learning_rates?": Maybe({"*": ANY_NUMBER}),
}
_EVALUATION: Shape = {"step": ANY_NUMBER}
_FOUND: Shape = {"num_records?": COUNT, "examples?": list}
_LENGTHS: Shape = {
    "unit?": str,
    "mean?": ANY_NUMBER,
    "max?": ANY_NUMBER,
    "histogram?": Maybe({"edges": [ANY_NUMBER], "counts": [COUNT]}),
}
_SPLIT: Shape = {
    "num_records": COUNT,
    "class_counts?": Maybe({"*": COUNT}),
    "lengths?": Maybe(_LENGTHS),
    "exact_duplicates?": _FOUND,
    "near_duplicates?": _FOUND,
    "empty?": _FOUND,
    "too_long?": _FOUND,
    "damage?": {"*": _FOUND},
    "legibility?": Maybe(dict),
}
_LEAK: Shape = {"left": str, "right": str, "kind": str, "num_records": COUNT, "examples?": [dict]}
_FINDINGS: Shape = {
    "num_records": COUNT,
    "num_exact_duplicates": COUNT,
    "num_near_duplicates": COUNT,
    "num_label_conflicts?": COUNT,
    "leaks?": Maybe([_LEAK]),
    "splits": {"*": _SPLIT},
    "legibility?": Maybe(dict),
}
_EXTRA: dict[str, Shape] = {"data": str, "sha256": str, "num_used": COUNT, "weight": ANY_NUMBER}
_DATA: Shape = {
    "files?": {"*": str},
    "split?": str,
    "num_train?": COUNT,
    "num_validation?": COUNT,
    "num_test?": COUNT,
    "num_dropped_leaks?": COUNT,
    "num_dropped_short?": COUNT,
    "num_dropped_long?": COUNT,
    "extra?": Maybe([{**_EXTRA, "num_dropped": {"*": COUNT}, "methods": dict}]),
    "check?": _FINDINGS,
}


def check_log(entries: list[JsonObject], path: Path) -> None:
    """Refuse entries of a log that have something else in the place of their numbers."""
    for number, entry in enumerate(entries, start=1):
        check_shape(entry, _ENTRY, Path(f"{path}:{number}"))
        if entry.get("kind") == "evaluation":
            check_shape(entry, _EVALUATION, Path(f"{path}:{number}"))


def check_data(values: JsonView, path: Path) -> None:
    """Refuse a data.json whose figures, or those that the doctor found, are none."""
    check_shape(values, _DATA, path)


def check_result(values: JsonView, path: Path) -> None:
    """Refuse figures of a split that are none, or a matrix that is not of its classes."""
    check_shape(values, _RESULT, path)
    size = len(values["per_class"])
    if len(values["confusion"]) != size or any(len(row) != size for row in values["confusion"]):
        problem = f"confusion is no matrix of the {size} classes of per_class"
        raise RunError(f"is damaged: {problem}", where=str(path), hint=DAMAGED_HINT)


def check_baseline(values: JsonView, path: Path) -> None:
    """Refuse figures of a baseline that are none."""
    check_shape(values, _BASELINE, path)


def check_sample(values: JsonView, path: Path) -> None:
    """Refuse figures of the training sample that are none."""
    check_shape(values, _SAMPLE, path)


@contextmanager
def damage_is_run_error(path: Path) -> Iterator[None]:
    """Turn what drawing trips over into a `RunError`: files that are each whole and contradict each other.

    Raises:
        RunError: With the folder and what did not fit.
    """
    try:
        yield
    except SubmillionError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        told = str(error).splitlines()[0][:200] if str(error) else ""
        raise RunError(
            f"its files contradict each other, so it cannot be drawn ({type(error).__name__}: {told})",
            where=str(path),
            hint=DAMAGED_HINT,
        ) from error
