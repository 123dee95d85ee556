"""A search whose runs are pretended, so that what surrounds them can be tested in a moment."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from submillion.config.run import RunConfig, parse_config
from submillion.launch import LaunchedRun
from submillion.model.sources import load_base_config
from submillion.search import trial_worker
from submillion.search.storage import open_storage, require_optuna
from submillion.search.study import open_study, put_back_own
from submillion.search.task import SearchDir, Task
from submillion.search.worker_pool import run_workers
from submillion.storage.files import hold_folder

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


def begin(task: Task, url: str) -> Any:
    """Make the study of a search, or take part in it; return it."""
    require_optuna()
    return open_study(open_storage(url), task.study, task.config, task.space.locate_recipe())


def make_crew(task: Task, folder: Path, url: str, owner: str = "us") -> trial_worker.Crew:
    """Return the state that the workers of a command share."""
    return trial_worker.Crew(task, SearchDir(folder), url, owner)


def pretend_run(config: RunConfig, out: Path, *, on_validation: Any, on_poll: Any, **_: Any) -> LaunchedRun:
    """Take the place of a run: the nearer the learning rate to 1e-3 and the later, the better."""
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


def work(
    task: Task, folder: Path, url: str, *, num_workers: int = 1, on_poll: Callable[[], None] = lambda: None
) -> None:
    """Work as a command does that holds its folder; whoever calls it has put `pretend_run` in the place of runs."""
    files = SearchDir(folder)
    folder.mkdir(exist_ok=True)
    with hold_folder(files.lock, doing="searching"):
        crew = make_crew(task, folder, url, files.name_owner())
        put_back_own(begin(task, url), crew.owner)
        run_workers(open_storage(url), crew, num_workers, on_poll=on_poll)


if __name__ == "__main__":
    setattr(trial_worker, "launch_run", pretend_run)  # noqa: B010 - no type of a run fits what is pretended
    work(make_task(**json.loads(sys.argv[3])), Path(sys.argv[1]), sys.argv[2], num_workers=2)
