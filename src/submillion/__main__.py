"""``python -m submillion`` is the command ``submillion``."""

from __future__ import annotations

import sys

from submillion.cli import main

if __name__ == "__main__":
    sys.exit(main())
