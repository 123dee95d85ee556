"""A command that another process started: it ends with its parent, and leaves its error as data."""

from __future__ import annotations

import sys
from pathlib import Path

from submillion.cli import main
from submillion.launch import follow_parent, write_error


def main_launched() -> int:
    """Run the command whose words follow the parent's process id and the error file, and return its exit code."""
    parent, file, *words = sys.argv[1:]
    # A shell's background job ignores Ctrl-C, and so would the run. Its parent ends it with SIGTERM.
    follow_parent(int(parent))
    sys.argv[1:] = words
    return main(on_error=lambda error: write_error(Path(file), error))


if __name__ == "__main__":
    sys.exit(main_launched())
