"""Carry out commands one after the other in one process, and write down how each ended: words and codes as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from submillion.cli import main

if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ended = []
    for words in commands:
        print(">", *words, file=sys.stderr, flush=True)
        ended.append(main(words))
        Path(sys.argv[2]).write_text(json.dumps(ended), encoding="utf-8")
