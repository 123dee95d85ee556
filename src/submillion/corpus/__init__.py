"""The shipped news items of the demo: 165 for each of World, Sports, Business and Sci/Tech, written for this project.

`train.jsonl` and `test.jsonl` are in one folder, which is read like any other folder of splits. Every row has `id`,
`split`, `label`, `title` and `description`. Each class has 115 items for training and 50 for the test. `classes.txt`
gives the order of the label ids, which is that of AG News.
"""

from __future__ import annotations

from pathlib import Path

CORPUS_FOLDER = Path(__file__).parent
"""The folder to give as ``data.source``."""
