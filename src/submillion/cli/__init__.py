"""The command line: `main` runs one command and returns its exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from submillion.errors import ConfigError, RunError, SubmillionError

if TYPE_CHECKING:
    from typer import Typer

DEBUG_FLAG = "--debug"
# This is how often a thread of libgomp looks for work before it sleeps, read when torch is loaded. At the default of
# 300,000, waiting threads take the cores from the threads that they wait for as soon as anything else runs. With this
# value, three runs on two cores of AMD Zen 4 train at 43 rows per second each instead of 22, and a single run at 131
# instead of 132.
_SPINS = ("GOMP_SPINCOUNT", "3000")


def main(arguments: Sequence[str] | None = None, *, on_error: Callable[[SubmillionError], None] | None = None) -> int:
    """Run one command of submillion; `run_program` describes arguments and exit codes."""
    return run_program(_load_commands, "submillion", arguments, on_error=on_error)


def _load_commands() -> Typer:
    from submillion.cli.app import app

    return app


def run_program(
    load_app: Callable[[], Typer],
    name: str,
    arguments: Sequence[str] | None = None,
    *,
    on_error: Callable[[SubmillionError], None] | None = None,
) -> int:
    """Run one command of a program.

    Args:
        load_app: Function that returns the program's commands. Its imports happen here, so that their errors are
            explained.
        name: Name of the program.
        arguments: Words after the program's name; those of the process if None.
        on_error: Function called with the error that ends the command, after it has been printed.

    Returns:
        The exit code: 0 success, 1 bug, 2 usage or configuration, 3 data, 4 budget, 5 model, 6 run, 130 interrupted,
        141 the reader of stdout has closed it.
    """
    if arguments is None and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*_SPINS)
    words, debug = _take_debug(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets an escape sequence instead of an error.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        result = _run(load_app(), name, words)
        return result if isinstance(result, int) else 0
    except Exception as error:
        from submillion.cli.console import print_note, print_submillion_error

        if debug:
            print_note(traceback.format_exc())
        failure, code = _explain(error)
        print_submillion_error(failure)
        if on_error is not None:
            on_error(failure)
        return code


def _take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Remove ``--debug`` anywhere before a ``--``."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != DEBUG_FLAG]
    return kept + words[end:], len(kept) < end


def _run(app: Typer, name: str, words: list[str]) -> object:
    from typer.main import get_command

    return get_command(app).main(args=words, prog_name=name, standalone_mode=False)


def _explain(error: Exception) -> tuple[SubmillionError, int]:
    """Return the error as one message, and its exit code."""
    import typer

    if isinstance(error, SubmillionError):
        return error, error.exit_code
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        hint = f"Try '{context.command_path} --help'." if context is not None else ""
        return ConfigError(error.format_message(), hint=hint), error.exit_code
    failure: SubmillionError
    if isinstance(error, OSError):
        failure = RunError(
            str(error.strerror or error),
            where=str(error.filename) if error.filename else "",
            hint=f"{DEBUG_FLAG} shows where this happened.",
        )
    elif isinstance(error, MemoryError):
        failure = RunError("out of memory", hint="Use less memory: --set train.micro_batch_tokens=1024, or fewer rows.")
    else:
        cause = error.__cause__ if isinstance(error, typer.Abort) and error.__cause__ is not None else error
        failure = SubmillionError(
            f"unexpected {type(cause).__name__}: {cause}",
            hint=f"This is a bug. Run the command again with {DEBUG_FLAG} to see where it happened.",
        )
    return failure, failure.exit_code
