"""Output of commands: results on stdout, everything else on stderr, and untrusted text never as markup."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from submillion.errors import SubmillionError
from submillion.plain_text import clean_controls

PIPED_WIDTH = 160
"""Width without a terminal, so that tables are not folded in files and pipes."""


class CleanConsole(Console):
    """A console that shows no control characters, whatever text a command prints."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the cleaned segments; rich's own control codes for the terminal are unchanged."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(clean_controls(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Pass the error on, since rich would exit with 1, which means a bug here.

        Raises:
            BrokenPipeError: The one that rich has caught.
        """
        raise  # noqa: PLE0704  # rich calls this where it handles the error


def make_text(text: object, style: str = "") -> Text:
    """Return anything as text that is shown literally, without markup or control characters."""
    return Text(clean_controls(str(text)), style=style)


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on the current stdout or stderr that interprets nothing."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return CleanConsole(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def print_result(result: RenderableType) -> None:
    """Print a result on stdout; plain strings are cleaned and never folded."""
    if isinstance(result, str):
        open_console().print(make_text(result), soft_wrap=True)
    else:
        open_console().print(result)


def print_raw(text: str) -> None:
    """Write text to stdout unchanged, for other programs; a terminal gets it without control characters."""
    sys.stdout.write(clean_controls(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_json(value: Mapping[str, object] | Sequence[Any]) -> None:
    """Print one JSON value on stdout, in ASCII, so that no encoding can break it."""
    print_raw(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_note(note: RenderableType) -> None:
    """Print a note, which is not part of the result, on stderr."""
    if isinstance(note, str):
        open_console(stderr=True).print(make_text(note), soft_wrap=True)
    else:
        open_console(stderr=True).print(note)


def print_error(message: str, *, hint: str = "") -> None:
    """Print `error: message` on stderr, with the hint below."""
    text = Text("error: ", style="bold red").append_text(make_text(message))
    if hint:
        text.append("\n").append_text(make_text(hint))
    open_console(stderr=True).print(text, soft_wrap=True)


def print_submillion_error(error: SubmillionError) -> None:
    """Print one of this package's errors: place, message, hint."""
    where = f"{error.where}: " if error.where else ""
    print_error(f"{where}{error.message}", hint=error.hint)


def silence_stdout() -> None:
    """Discard the rest of stdout after its reader has closed it."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
