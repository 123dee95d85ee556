"""Errors that a user can act on, and the exit code of each.

Every message has three parts: what is wrong with the value shown, its place, and what to do about it.
Each error is also a fitting built-in error, so that callers of the library can catch the usual kinds.
"""

from __future__ import annotations

from collections.abc import Mapping


class SubmillionError(Exception):
    """Base of every error that submillion raises on purpose.

    Args:
        message: Description of the fault, with the value shown.
        where: Place of the fault: ``file:row``, a dotted configuration path or a folder.
        hint: Advice to the user.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """Join place, message and hint on one line each."""
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n{self.hint}" if self.hint else text

    def to_json(self) -> dict[str, str]:
        """Return kind, message, place and hint, with which `from_json` makes the same error in another process."""
        return {"kind": type(self).__name__, "message": self.message, "where": self.where, "hint": self.hint}

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild with all three parts when sent between processes."""
        return _rebuild, (type(self), self.message, self.where, self.hint)


def _rebuild(kind: type[SubmillionError], message: str, where: str, hint: str) -> SubmillionError:
    return kind(message, where=where, hint=hint)


class ConfigError(SubmillionError, ValueError):
    """A setting, flag or recipe that cannot be used as given."""

    exit_code = 2


class DataError(SubmillionError, ValueError):
    """Input rows or files that cannot be read, or rows whose labels do not fit."""

    exit_code = 3


class BudgetError(SubmillionError, ValueError):
    """A plan whose trainable parameters reach the budget."""

    exit_code = 4


class ModelError(SubmillionError, RuntimeError):
    """Weights, tokenizers or adapters that are missing, damaged or of an unsupported kind."""

    exit_code = 5


class RunError(SubmillionError, RuntimeError):
    """A run that cannot continue: disk full, non-finite loss, damaged run folder."""

    exit_code = 6


class DivergedError(RunError):
    """A loss or gradients that are not finite, which the settings caused; other errors of a run are accidents."""


KINDS: Mapping[str, type[SubmillionError]] = {
    kind.__name__: kind for kind in (ConfigError, DataError, BudgetError, ModelError, RunError, DivergedError)
}
"""All kinds of errors by their name in `SubmillionError.to_json`."""


def from_json(values: Mapping[str, str]) -> SubmillionError:
    """Return the error that another process described with `SubmillionError.to_json`.

    Args:
        values: Kind, message, place and hint. A kind that is not in `KINDS`, such as that of a bug, ends a run.
    """
    return KINDS.get(values["kind"], RunError)(values["message"], where=values["where"], hint=values["hint"])
