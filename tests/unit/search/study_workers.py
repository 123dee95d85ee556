"""A search whose runs are pretended, so that what surrounds them can be tested in a moment."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from submillion.config.run import RunConfig, parse_config
from submillion.launch import LaunchedRun
from submillion.model.sources import load_base_config
from submillion.search import trial_worker
from submillion.search.storage import open_storage, require_optuna
from submillion.search.study import describe_search, open_study
from submillion.search.task import STORAGE_VARIABLE, SearchDir, Task

NUM_REPORTS = 4


def make_task(*, study: str = "pretended", **search: Any) -> Task:
    """Return a search over two settings of a recipe on the shipped facts of the small base."""
    space = {
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "adapter.rank": {"type": "rank"},
    }
    values = {"name": "recipe", "search": {"space": space, "reports": NUM_REPORTS, "pruner": "none", **search}}
    config = parse_config(values, where="test")
    return Task(config, load_base_config(config.model.base), 4, study, 1)


def begin(task: Task, folder: Path, url: str) -> Any:
    """Write the task into a folder and make its study; return the study."""
    require_optuna()
    folder.mkdir(parents=True, exist_ok=True)
    task.write(SearchDir(folder).task)
    agreed = describe_search(task.config.model_dump(mode="json"))
    return open_study(open_storage(url), task.study, task.search, agreed, task.space.locate_recipe())


def pretend_run(config: RunConfig, out: Path, *, on_validation: Any, on_poll: Any, **_: Any) -> LaunchedRun:
    """Take the place of a run: the nearer the learning rate to 1e-3 and the later, the better."""
    import math

    distance = abs(math.log10(config.train.learning_rate) + 3) + config.seed / 1000
    validations = []
    for number in range(1, NUM_REPORTS + 1):
        on_poll()
        time.sleep(float(os.environ.get("PRETENDED_S", "0.002")))
        entry = {"step": number, "accuracy": max(0.0, 0.9 - distance / 10 - 0.1 / number), "loss": distance}
        validations.append(entry)
        if on_validation(entry):
            return LaunchedRun(out, "pruned", tuple(validations), {})
    return LaunchedRun(out, "complete", tuple(validations), {})


def work(folder: Path, url: str) -> None:
    """Work as one worker does, with pretended runs."""
    trial_worker.launch_run = pretend_run  # type: ignore[assignment]
    os.environ[STORAGE_VARIABLE] = url
    trial_worker.work(folder)


if __name__ == "__main__":
    require_optuna()
    work(Path(sys.argv[1]), sys.argv[2])
