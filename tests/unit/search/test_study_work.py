"""Several processes on one study, in each kind of storage: no trial is lost or made twice, and the dead are found."""

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
from submillion.search.samplers import make_sampler
from submillion.search.storage import choose_driver, mask_url, open_storage
from submillion.search.study import RETRY, RUNS, describe_search, open_study
from submillion.search.trial_results import count_states, find_best, list_rows

sys.path.insert(0, str(Path(__file__).parent))
import study_workers

SCRIPT = Path(study_workers.__file__)
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
WAIT_S = 120


def start_worker(folder: Path, url: str, *, slow_s: float = 0.002) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PRETENDED_S": str(slow_s)}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), url], env=environment)


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
    command = [initdb, "-D", data, "-U", "searcher", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert made.returncode == 0, made.stderr
    words = [initdb.with_name("postgres"), "-D", data, "-k", home, "-c", "listen_addresses=", "-c", "fsync=off"]
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


def test_two_processes_make_exactly_the_trials_that_were_asked_for(url: str, tmp_path: Path) -> None:
    study = study_workers.begin(study_workers.make_task(trials=12, study="both"), tmp_path / "a", url)
    workers = [start_worker(tmp_path / "a", url, slow_s=0.02) for _ in range(2)]
    assert [process.wait(WAIT_S) for process in workers] == [0, 0]
    rows = list_rows(study)
    assert count_states(rows) == {"complete": 12, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert rows[0].is_recipe
    assert rows[0].settings["train.learning_rate"] == 5e-4
    assert all(len(row.reports) == study_workers.NUM_REPORTS for row in rows)
    assert len({json.dumps(row.params) for row in rows}) == 12
    holders = {trial.user_attrs["holder"]["pid"] for trial in study.trials if "surplus" not in trial.user_attrs}
    assert holders == {process.pid for process in workers}


def test_the_trial_of_a_killed_process_is_put_back_and_made_by_another(url: str, tmp_path: Path) -> None:
    study = study_workers.begin(study_workers.make_task(trials=4, study="killed"), tmp_path / "b", url)
    first = start_worker(tmp_path / "b", url, slow_s=0.5)
    try:
        await_true(lambda: any(RUNS in trial.user_attrs for trial in study.get_trials(deepcopy=False)))
    finally:
        first.kill()
        first.wait()
    assert count_states(list_rows(study))["running"] == 1
    assert start_worker(tmp_path / "b", url).wait(WAIT_S) == 0
    rows = list_rows(study)
    assert count_states(rows) == {"complete": 4, "pruned": 0, "failed": 1, "running": 0, "waiting": 0}
    (failed,) = (row for row in rows if row.state == "failed")
    (again,) = (row for row in rows if row.retry_of == failed.number)
    assert (again.settings, again.is_recipe, again.runs) == (failed.settings, failed.is_recipe, failed.runs)


def test_an_interrupted_worker_puts_its_trial_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = study_workers.begin(study_workers.make_task(trials=2), tmp_path, url)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study_workers, "pretend_run", interrupt)
    monkeypatch.setattr(study_workers.trial_worker, "launch_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        study_workers.work(tmp_path, url)
    states = count_states(list_rows(study))
    assert (states["failed"], states["waiting"], states["running"]) == (1, 1, 0)
    assert study.trials[1].user_attrs[RETRY] == 0


def test_a_diverged_trial_counts_and_a_broken_machine_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = study_workers.begin(study_workers.make_task(trials=3), tmp_path, url)
    calls: list[int] = []

    def fail(config: Any, out: Path, **options: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 1:
            raise DivergedError("the loss of step 3 is nan", where="train")
        if len(calls) == 2:
            raise RunError("No space left on device", where="disk")
        return original(config, out, **options)

    original = study_workers.pretend_run
    monkeypatch.setattr(study_workers, "pretend_run", fail)
    monkeypatch.setattr(study_workers.trial_worker, "launch_run", fail)
    with pytest.raises(RunError, match="No space left"):
        study_workers.work(tmp_path, url)
    assert [row.state for row in list_rows(study)] == ["pruned", "failed", "waiting"]
    study_workers.work(tmp_path, url)
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
    url = f"sqlite:///{tmp_path}/study.db"
    study = study_workers.begin(study_workers.make_task(trials=16, sampler="random", **search), tmp_path, url)
    monkeypatch.setattr(study_workers.trial_worker, "launch_run", study_workers.pretend_run)
    study_workers.work(tmp_path, url)
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
    url = f"sqlite:///{tmp_path}/study.db"
    study = study_workers.begin(study_workers.make_task(trials=8, metric="loss", startup=3), tmp_path, url)
    monkeypatch.setattr(study_workers.trial_worker, "launch_run", study_workers.pretend_run)
    study_workers.work(tmp_path, url)
    rows = list_rows(study)
    assert find_best(rows, "loss").value == min(row.value for row in rows if row.value is not None) == study.best_value


def test_what_is_drawn_follows_from_the_seed_and_the_trials_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_workers.trial_worker, "launch_run", study_workers.pretend_run)
    drawn = []
    for name, parts in (("whole", (9,)), ("parts", (3, 6, 9))):
        url = f"sqlite:///{tmp_path}/{name}.db"
        for trials in parts:
            task = study_workers.make_task(trials=trials, startup=4)
            study = study_workers.begin(task, tmp_path / name, url)
            study_workers.work(tmp_path / name, url)
        drawn.append([row.params for row in list_rows(study)])
    assert drawn[0] == drawn[1]
    assert make_sampler(study_workers.make_task(sampler="random").search, 0, 0).__class__.__name__ == "RandomSampler"


def test_another_search_of_the_same_name_is_refused(tmp_path: Path) -> None:
    url = f"journal:{tmp_path}/study.log"
    task = study_workers.make_task(trials=2)
    study_workers.begin(task, tmp_path, url)
    study_workers.begin(study_workers.make_task(trials=5, seeds=1), tmp_path, url)
    other = study_workers.make_task(trials=2, steps=7)
    with pytest.raises(ConfigError, match=r"search\.steps differ"):
        study_workers.begin(other, tmp_path, url)
    agreed = describe_search(task.config.model_dump(mode="json"))
    optuna.create_study(storage=open_storage(url), study_name="foreign")
    from submillion.search import study as study_module

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(study_module, "_AGREE_S", 0.0)
    with pytest.raises(RunError, match="never made ready"), monkeypatch.context():
        open_study(open_storage(url), "foreign", task.search, agreed, None)
    monkeypatch.undo()


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
