"""SQLite studies: processes that take trials at the same moment, and damage."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from submillion.errors import RunError
from submillion.search.storage import open_storage

ROOT = Path(__file__).parents[3]
NUM_TRIALS, NUM_PROCESSES = 24, 4

TAKER = """
import sys, time
from pathlib import Path
import optuna
from tests.unit.search import study_workers
from submillion.search.storage import open_storage, taking_alone
from submillion.search.trial_worker import take_trial
url, begin, wanted = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
optuna.logging.set_verbosity(optuna.logging.ERROR)
crew = study_workers.make_crew(study_workers.make_task(trials=wanted), Path("nowhere"), url)
study = optuna.load_study(storage=open_storage(url), study_name="s")
time.sleep(max(0.0, begin - time.time()))
while True:
    with taking_alone(url):
        trial = take_trial(study, crew)
    if trial is None:
        break
    print(trial.number, flush=True)
"""


def test_each_waiting_trial_is_taken_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name="s")
    for number in range(NUM_TRIALS):
        study.enqueue_trial({"x": number})
    begin = str(time.time() + 4)
    words = [sys.executable, "-c", TAKER, url, begin, str(NUM_TRIALS)]
    takers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(NUM_PROCESSES)]
    taken = [int(line) for taker in takers for line in taker.communicate(timeout=120)[0].split()]
    assert [taker.returncode for taker in takers] == [0] * NUM_PROCESSES
    assert sorted(taken) == list(range(NUM_TRIALS))


@pytest.mark.parametrize("size", [1, 100, 511])
def test_what_is_left_of_a_database_is_not_taken_for_a_new_one(tmp_path: Path, size: int) -> None:
    """SQLite makes a new database of a file that is shorter than a page, and the trials would be gone in silence."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_storage(url)
    whole = (tmp_path / "study.db").read_bytes()
    (tmp_path / "study.db").write_bytes(whole[:size])
    with pytest.raises(RunError, match="is damaged"):
        open_storage(url)
