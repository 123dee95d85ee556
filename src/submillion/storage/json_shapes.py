"""The required shapes of a run's JSON files, which are checked before their values are used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from submillion.errors import RunError


@dataclass(frozen=True)
class Number:
    """A finite number.

    Attributes:
        low: Smallest allowed number.
        high: Largest allowed number.
        is_whole: Whether it must be a whole number.
        is_above: Whether it must be above `low`.
    """

    low: float = -math.inf
    high: float = math.inf
    is_whole: bool = False
    is_above: bool = False

    def holds(self, value: object) -> bool:
        """Return whether a JSON value is such a number; true and false are not."""
        if not isinstance(value, int if self.is_whole else (int, float)) or isinstance(value, bool):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        return math.isfinite(number) and self.low <= number <= self.high and not (self.is_above and number == self.low)

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{kind} from {self.low:g} to {self.high:g}"
        if math.isfinite(self.low):
            return f"{kind} {'above' if self.is_above else 'of at least'} {self.low:g}"
        return kind


@dataclass(frozen=True)
class Maybe:
    """A value of some shape, or null."""

    shape: Shape


Shape: TypeAlias = "type | Number | Maybe | list[Shape] | Mapping[str, Shape]"
"""A shape is a type, a `Number`, a list or a dictionary. ``[shape]`` is a list of any length, and ``[shape, shape]`` a
list of just these. A dictionary has the required keys, with ``?`` at the end of optional ones, or ``*`` for all keys.
Other keys are allowed."""

JsonObject: TypeAlias = dict[str, Any]
"""An object of JSON as it is read or written. Its reader checks the values by a shape, or knows who wrote them."""
JsonView: TypeAlias = Mapping[str, Any]
"""The same where it is only looked at."""

SHARE = Number(0, 1)
COUNT = Number(0, 1 << 62, is_whole=True)
ANY_NUMBER = Number()

DAMAGED_HINT = (
    "It is damaged or was edited. Copy the folder from its source again, or start the run again in a new folder."
)
_NAMES = {str: "text", bool: "true or false", list: "a list", dict: "an object", object: "anything"}


def check_shape(value: object, shape: Shape, path: Path) -> None:
    """Refuse a JSON value that does not have a shape.

    Args:
        value: Value from the file.
        shape: Required shape.
        path: Path of the file, for the error message.

    Raises:
        RunError: The value does not fit; the error has the dotted place and the value of the first fault.
    """
    problem = _find_problem(value, shape, "")
    if problem:
        raise RunError(f"is damaged: {problem}", where=str(path), hint=DAMAGED_HINT)


def _find_problem(value: object, shape: Shape, at: str) -> str:
    if isinstance(shape, Maybe):
        return "" if value is None else _find_problem(value, shape.shape, at)
    if isinstance(shape, Number):
        return "" if shape.holds(value) else _describe(at, value, str(shape))
    if isinstance(shape, type):
        return "" if isinstance(value, shape) else _describe(at, value, _NAMES[shape])
    if isinstance(shape, list):
        return _find_in_list(value, shape, at)
    return _find_in_object(value, shape, at)


def _find_in_list(value: object, shape: list[Shape], at: str) -> str:
    if not isinstance(value, list):
        return _describe(at, value, "a list")
    shapes = shape if len(shape) > 1 else shape * len(value)
    if len(shapes) != len(value):
        return _describe(at, value, f"a list of {len(shapes)}")
    pairs = enumerate(zip(value, shapes, strict=True))
    return next(filter(None, (_find_problem(item, inner, f"{at}[{place}]") for place, (item, inner) in pairs)), "")


def _find_in_object(value: object, shape: Mapping[str, Shape], at: str) -> str:
    if not isinstance(value, dict):
        return _describe(at, value, "an object")
    for key, inner in shape.items():
        name = key.removesuffix("?")
        names = list(value) if key == "*" else [name]
        for one in names:
            place = f"{at}.{one}" if at else one
            if one not in value:
                if not key.endswith("?"):
                    return f"{place} is missing"
            elif problem := _find_problem(value[one], inner, place):
                return problem
    return ""


def _describe(at: str, value: object, wanted: str) -> str:
    return f"{at or 'it'} is {value!r:.60}, not {wanted}"
