"""``python -m submillion`` is the command ``submillion``."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # `python -m` puts the working directory first on the path, and a file that lies there would be imported for a
    # module of the same name. The command that is installed does not.
    if not sys.flags.safe_path and sys.path[0] in {"", os.getcwd()}:
        del sys.path[0]
    from submillion.cli import main

    sys.exit(main())
