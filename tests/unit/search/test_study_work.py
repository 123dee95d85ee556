"""Several commands on one study, in each kind of storage: no trial is lost or made twice, and the dead are found."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from submillion.errors import ConfigError, DivergedError, RunError
from submillion.search import trial_worker
from submillion.search.samplers import make_sampler
from submillion.search.storage import choose_driver, mask_url, open_storage
from submillion.search.study import OWNER, RUNS, SEEN, SETTINGS, StaleTrials, count_taken, put_back
from submillion.search.trial_results import count_states, find_best, list_rows
from submillion.search.trial_worker import take_trial
from tests.unit.search import study_workers

SCRIPT = Path(study_workers.__file__)
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
WAIT_S = 120


def start_command(folder: Path, url: str, *, slow_s: float = 0.002, **search: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PRETENDED_S": str(slow_s)}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), url, json.dumps(search)], env=environment)


def await_true(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of an empty database on a server of its own, which listens on a socket in its folder alone."""
    initdb = POSTGRES[-1]
    root = Path(tmp_path_factory.mktemp("pg"))
    # The server refuses to run as root, and others must reach its folder.
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    options: dict[str, Any] = {"user": user, "cwd": "/"} if os.geteuid() == 0 else {"cwd": "/"}
    home = Path("/tmp") / f"submillion-pg-{os.getpid()}"
    home.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(home, user)
    data = home / "data"
    command: list[str | Path] = [
        initdb,
        "-D",
        data,
        "-U",
        "searcher",
        "--auth=trust",
        "--no-sync",
        "--locale=C",
        "--encoding=UTF8",
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert made.returncode == 0, made.stderr
    words: list[str | Path] = [
        initdb.with_name("postgres"),
        "-D",
        data,
        "-k",
        home,
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
    ]
    with (root / "log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, **options)
    url = f"postgresql://searcher@/postgres?host={home}"
    try:
        ready = [str(initdb.with_name("pg_isready")), "-h", str(home)]
        await_true(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(home)


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        if not POSTGRES:
            pytest.skip("no PostgreSQL server is installed (Debian: apt install postgresql)")
        return str(request.getfixturevalue("postgresql"))
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else f"journal:{tmp_path}/study.log"


def test_two_commands_make_exactly_the_trials_that_were_asked_for(url: str, tmp_path: Path) -> None:
    search: dict[str, Any] = {"trials": 12, "study": "both"}
    study = study_workers.begin(study_workers.make_task(**search), url)
    commands = [start_command(tmp_path / name, url, slow_s=0.05, **search) for name in "ab"]
    assert [process.wait(WAIT_S) for process in commands] == [0, 0]
    rows = list_rows(study)
    assert count_states(rows) == {"complete": 12, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert rows[0].is_recipe
    assert rows[0].settings["train.learning_rate"] == 5e-4
    assert all(len(row.reports) == study_workers.NUM_REPORTS for row in rows)
    assert len({json.dumps(row.params) for row in rows}) == 12
    owners = {trial.user_attrs[OWNER] for trial in study.trials if trial.state.name == "COMPLETE"}
    assert owners == {(tmp_path / name / ".lock").read_text() for name in "ab"}


def test_the_trials_of_a_killed_command_are_made_by_its_next_call(url: str, tmp_path: Path) -> None:
    search: dict[str, Any] = {"trials": 4, "study": "killed"}
    study = study_workers.begin(study_workers.make_task(**search), url)
    first = start_command(tmp_path / "b", url, slow_s=0.5, **search)
    try:
        await_true(lambda: sum(RUNS in trial.user_attrs for trial in study.get_trials(deepcopy=False)) == 2)
    finally:
        first.kill()
        first.wait()
    assert count_states(list_rows(study))["running"] == 2
    assert start_command(tmp_path / "b", url, **search).wait(WAIT_S) == 0
    rows = list_rows(study)
    assert count_states(rows) == {"complete": 4, "pruned": 0, "failed": 2, "running": 0, "waiting": 0}
    for failed in (row for row in rows if row.state == "failed"):
        (again,) = (row for row in rows if row.retry_of == failed.number)
        assert (again.settings, again.is_recipe, again.runs) == (failed.settings, failed.is_recipe, failed.runs)


def test_a_trial_that_nobody_marks_any_more_is_put_back(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = study_workers.make_task(study="gone")
    study = study_workers.begin(task, url)
    crew = study_workers.make_crew(task, tmp_path, url)
    taken = [take_trial(study, crew) for _ in range(2)]
    unmarked = study.ask()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stale = StaleTrials()

    def look(later_s: float) -> list[str]:
        nonlocal now
        now += later_s
        stale.put_back(study)
        return [trial.state.name for trial in study.trials]

    assert look(0.0) == look(59.0) == ["RUNNING"] * 3
    assert look(2.0) == ["RUNNING", "RUNNING", "FAIL", "WAITING"]
    assert taken[1] is not None
    taken[1].set_user_attr(SEEN, 0.0)
    assert look(530.0) == ["RUNNING", "RUNNING", "FAIL", "WAITING"]
    assert look(10.0) == ["FAIL", "RUNNING", "FAIL", "WAITING", "WAITING"]
    assert [row.retry_of for row in list_rows(study)] == [None, unmarked.number, 0]
    assert look(600.0)[1] == "FAIL"


def test_a_trial_that_was_put_back_twice_says_which_it_repeats(tmp_path: Path) -> None:
    task = study_workers.make_task()
    url = f"journal:{tmp_path}/study.log"
    study = study_workers.begin(task, url)
    crew = study_workers.make_crew(task, tmp_path, url)
    for number in range(2):
        trial = take_trial(study, crew)
        assert trial is not None
        trial.set_user_attr(SETTINGS, task.space.draw(trial))
        put_back(study, number)
        put_back(study, number)
    rows = list_rows(study)
    assert [(row.state, row.retry_of, row.is_recipe) for row in rows] == [
        ("failed", None, True),
        ("failed", 0, True),
        ("waiting", 1, True),
    ]
    assert rows[0].params == rows[1].params == rows[2].params


def test_a_trial_that_others_put_back_meanwhile_is_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a machine was asleep: nothing of the trial counts, and the worker continues."""
    task = study_workers.make_task(trials=2)
    url = f"sqlite:///{tmp_path}/study.db"
    study = study_workers.begin(task, url)

    def oversleep(config: Any, out: Path, **options: Any) -> Any:
        if out.name == "0000" and len(study.trials) == 1:
            put_back(study, 0)
        return study_workers.pretend_run(config, out, **options)

    monkeypatch.setattr(trial_worker, "launch_run", oversleep)
    study_workers.work(task, tmp_path, url)
    assert count_states(list_rows(study)) == {"complete": 2, "pruned": 0, "failed": 1, "running": 0, "waiting": 0}


def test_a_trial_too_many_is_given_up_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = study_workers.make_task(trials=1)
    url = f"journal:{tmp_path}/study.log"
    study = study_workers.begin(task, url)
    crew = study_workers.make_crew(task, tmp_path, url)
    assert take_trial(study, crew) is not None
    # Another command has taken the last one after this one has counted.
    counts = [0]
    monkeypatch.setattr(
        trial_worker, "count_taken", lambda *_, **how: counts.pop() if counts else count_taken(*_, **how)
    )
    assert take_trial(study, crew) is None
    assert counts == []
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "FAIL"]
    assert [row.number for row in list_rows(study)] == [0]


def test_a_command_that_is_asked_to_stop_puts_all_its_trials_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = study_workers.make_task(trials=4)
    url = f"sqlite:///{tmp_path}/study.db"
    study = study_workers.begin(task, url)
    monkeypatch.setattr(trial_worker, "launch_run", study_workers.pretend_run)
    monkeypatch.setenv("PRETENDED_S", "0.5")

    def interrupt() -> None:
        if sum(RUNS in trial.user_attrs for trial in study.get_trials(deepcopy=False)) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_workers.work(task, tmp_path, url, num_workers=2, on_poll=interrupt)
    states = count_states(list_rows(study))
    assert (states["failed"], states["waiting"], states["running"]) == (2, 2, 0)


def test_a_diverged_trial_counts_and_a_broken_machine_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    task = study_workers.make_task(trials=3)
    study = study_workers.begin(task, url)
    calls: list[int] = []

    def fail(config: Any, out: Path, **options: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 1:
            raise DivergedError("the loss of step 3 is nan", where="train")
        if len(calls) == 2:
            raise RunError("No space left on device", where="disk")
        return study_workers.pretend_run(config, out, **options)

    monkeypatch.setattr(trial_worker, "launch_run", fail)
    with pytest.raises(RunError, match="No space left"):
        study_workers.work(task, tmp_path, url)
    assert [row.state for row in list_rows(study)] == ["pruned", "failed", "waiting"]
    study_workers.work(task, tmp_path, url)
    rows = list_rows(study)
    assert count_states(rows) == {"complete": 2, "pruned": 1, "failed": 1, "running": 0, "waiting": 0}
    assert "is nan" in rows[0].error
    assert find_best(rows, "accuracy").state == "complete"


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"pruner": "median"}, "pruned"),
        ({"pruner": "hyperband"}, "pruned"),
        ({"pruner": "wilcoxon", "repeats": 6}, "ended by"),
        ({"pruner": "none"}, None),
    ],
)
def test_pruners_end_trials_early(
    search: dict[str, Any], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"journal:{tmp_path}/study.log"
    task = study_workers.make_task(trials=16, sampler="random", **search)
    study = study_workers.begin(task, url)
    monkeypatch.setattr(trial_worker, "launch_run", study_workers.pretend_run)
    study_workers.work(task, tmp_path, url)
    rows = list_rows(study)
    ended = [row for row in rows if row.state == "pruned"]
    if expected == "ended by":
        short = [trial for trial in study.trials if "ended by" in trial.user_attrs]
        assert short
        assert all(4 <= len(trial.intermediate_values) < 6 for trial in short)
        assert ended == []
    elif expected == "pruned":
        assert ended
        assert all(0 < len(row.reports) < study_workers.NUM_REPORTS for row in ended)
        best = find_best(rows, "accuracy").value
        assert best is not None
        assert best > max(row.value or 0.0 for row in ended)
    else:
        assert ended == []


def test_a_search_by_loss_looks_for_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"journal:{tmp_path}/study.log"
    task = study_workers.make_task(trials=8, metric="loss", startup=3)
    study = study_workers.begin(task, url)
    monkeypatch.setattr(trial_worker, "launch_run", study_workers.pretend_run)
    study_workers.work(task, tmp_path, url)
    rows = list_rows(study)
    assert find_best(rows, "loss").value == min(row.value for row in rows if row.value is not None) == study.best_value


def test_what_is_drawn_follows_from_the_seed_and_the_trials_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_worker, "launch_run", study_workers.pretend_run)
    drawn = []
    for name, parts in (("whole", (9,)), ("parts", (3, 6, 9))):
        url = f"journal:{tmp_path}/{name}.log"
        for trials in parts:
            task = study_workers.make_task(trials=trials, startup=4)
            study = study_workers.begin(task, url)
            study_workers.work(task, tmp_path / name, url)
        drawn.append([row.params for row in list_rows(study)])
    assert drawn[0] == drawn[1]
    assert make_sampler(study_workers.make_task(sampler="random").search, 0, 0).__class__.__name__ == "RandomSampler"


def test_another_search_of_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"journal:{tmp_path}/study.log"
    study_workers.begin(study_workers.make_task(trials=2), url)
    study_workers.begin(study_workers.make_task(trials=5, seeds=1), url)
    with pytest.raises(ConfigError, match=r"search\.steps differ"):
        study_workers.begin(study_workers.make_task(trials=2, steps=7), url)
    optuna.create_study(storage=open_storage(url), study_name="foreign")
    monkeypatch.setattr("submillion.search.study._AGREE_S", 0.0)
    with pytest.raises(RunError, match="never made ready"):
        study_workers.begin(study_workers.make_task(study="foreign"), url)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("study.db", ConfigError, "is no storage"),
        ("nosuchbase://x/y", ConfigError, "nosuchbase"),
        ("mysql+pymysql://u:secret@h/d", ConfigError, "no driver"),
        ("journal:/nowhere/at/all.log", ConfigError, "folder that exists"),
        ("postgresql://u:secret@127.0.0.1:1/d", RunError, "the storage fails"),
        ("sqlite:////nowhere/at/all.db", RunError, "the storage fails"),
    ],
)
def test_storages_that_are_none_are_told_without_their_password(url: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


def test_passwords_stay_out_of_files_and_psycopg_is_the_driver() -> None:
    assert mask_url("postgresql://me:secret@host/base") == "postgresql://me:***@host/base"
    assert mask_url("journal:a.log") == "journal:a.log"
    assert choose_driver("postgres://me@host/base") == "postgresql+psycopg://me@host/base"
    assert choose_driver("sqlite:///a.db") == "sqlite:///a.db"
