"""The protocol by which long work reports its progress; the command line decides how to show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from submillion.budget.plan import Plan


class Progress(Protocol):
    """Receives stages, counts and notes. Stages follow each other and do not nest."""

    def start(self, stage: str, total: int | None = None, done: int = 0) -> None:
        """Begin a stage, for example ``train``, with its number of units, if known, and those done before."""

    def advance(self, done: int, **figures: float) -> None:
        """Report the number of units done so far, and figures to show beside it."""

    def note(self, message: str) -> None:
        """Report something once that a user should know."""

    def on_plan(self, plan: Plan) -> None:
        """Show the plan of the training, which is known once the data, and so the classes, have been read."""

    def finish(self) -> None:
        """End the stage."""


class Silent:
    """A Progress that shows nothing."""

    def start(self, stage: str, total: int | None = None, done: int = 0) -> None:
        """Ignore the stage."""

    def advance(self, done: int, **figures: float) -> None:
        """Ignore the count."""

    def note(self, message: str) -> None:
        """Ignore the note."""

    def on_plan(self, plan: Plan) -> None:
        """Ignore the plan."""

    def finish(self) -> None:
        """Ignore the end."""
