"""Processes that take trials from one SQLite study at the same moment."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import optuna

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
