from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from submillion.config.run import RunConfig
from submillion.errors import ConfigError
from submillion.pipeline.run import start_run
from submillion.storage.files import read_json
from submillion.training.track import IDS_NAME, Trackers, check_trackers

# tensorboard's own reader imports what its dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SETTINGS = {"train.epochs": 3, "data.text": ("title", "body"), "about": "word " * 400}
EXTRAS = {"tensorboard": "track", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


def test_tensorboard_gets_the_figures_of_their_steps(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = Trackers(["tensorboard"], tmp_path, SETTINGS)
    trackers.log({"train/loss": 0.5, "validation/f1:Sci/Tech": 0.75}, 1)
    trackers.log({"train/loss": 0.25}, 2)
    trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    assert [event.value for event in events.Scalars("validation/f1_Sci/Tech")] == [0.75]
    assert not (tmp_path / IDS_NAME).exists()


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    trackers = Trackers([], tmp_path, {})
    trackers.log({"train/loss": 0.5}, 1)
    trackers.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EXTRAS)
def test_a_missing_package_is_a_config_error_that_names_the_extra(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"accelerate.utils.is_{name}_available", lambda: False)
    with pytest.raises(ConfigError, match=f"{name!r} is not installed") as caught:
        check_trackers([name])
    assert f"submillion[{EXTRAS[name]}]" in caught.value.hint
    with pytest.raises(ConfigError, match="not installed"):
        Trackers([name], tmp_path, {})


def test_a_run_is_refused_before_its_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.utils.is_wandb_available", lambda: False)
    config = RunConfig.model_validate({"track": ["wandb"], "data": {"source": str(tmp_path / "none.csv")}})
    with pytest.raises(ConfigError, match="'wandb' is not installed"):
        start_run(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


class StubRun:
    """The run object of a tracker's package, which notes its calls."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.id = given.get("id", "")
        self.name = given.get("name", "")
        self.info = SimpleNamespace(run_id=given.get("run_id") or "mlflow-made-this")
        self.logged: list[tuple[dict[str, float], int]] = []
        self.settings: dict[str, Any] = {}
        self.is_finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.is_finished = True


def install_stub(name: str, monkeypatch: pytest.MonkeyPatch) -> list[StubRun]:
    """Put a module in the place of a tracker's package; return the runs that it has started."""
    runs: list[StubRun] = []

    def start(**given: Any) -> StubRun:
        runs.append(StubRun(**given))
        return runs[-1]

    def keep(values: dict[str, Any], **_: Any) -> None:
        runs[-1].settings.update(values)

    def log(values: dict[str, float], step: int) -> None:
        runs[-1].log(values, step)

    def end() -> None:
        runs[-1].finish()

    limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=6000, MAX_PARAMS_TAGS_PER_BATCH=100)
    stub: Any = SimpleNamespace(
        init=start,
        config=SimpleNamespace(update=keep),
        search_experiments=lambda filter_string: [],
        create_experiment=lambda name, artifact_location, tags: f"experiment of {name}",
        start_run=start,
        log_params=keep,
        log_metrics=log,
        end_run=end,
        utils=SimpleNamespace(validation=limits),
    )
    monkeypatch.setitem(sys.modules, name, stub)
    monkeypatch.setattr(f"accelerate.utils.is_{name}_available", lambda: True)
    return runs


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_figures_and_settings_reach_a_tracker_and_a_continued_run_goes_on_there(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = install_stub(name, monkeypatch)
    folder = tmp_path / "news-1"
    folder.mkdir()
    for step in (1, 2):
        trackers = Trackers([name], folder, SETTINGS)
        trackers.log({"train/loss": 0.5, "validation/f1:R&D": 0.25}, step)
        trackers.close()
    first, second = runs
    assert first.logged == [({"train/loss": 0.5, "validation/f1_R_D": 0.25}, 1)]
    assert second.logged == [({"train/loss": 0.5, "validation/f1_R_D": 0.25}, 2)]
    assert first.is_finished
    assert second.is_finished
    assert first.settings["train.epochs"] == "3"
    assert len(first.settings["about"]) <= 250
    kept = read_json(folder / IDS_NAME)[name]
    if name == "wandb":
        assert (first.given["project"], first.given["name"], first.given["dir"]) == (
            "submillion",
            "news-1",
            str(folder),
        )
        assert (first.given["id"], second.given["id"], second.given["resume"]) == (kept, kept, "allow")
    elif name == "mlflow":
        assert (first.given["run_id"], second.given["run_id"]) == (None, kept)
        assert (first.given["experiment_id"], first.given["run_name"]) == ("experiment of submillion", "news-1")
    else:
        assert (first.given["project"], first.given["name"], second.given["name"]) == ("submillion", "news-1", "news-1")
        assert second.given["resume"] == "allow"


def test_a_tracker_that_does_not_start_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stub("wandb", monkeypatch)

    def refuse(**_: Any) -> None:
        raise RuntimeError("api_key not configured\nmore")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(ConfigError, match=r"'wandb' does not start: api_key not configured") as caught:
        Trackers(["wandb"], tmp_path, {})
    assert "WANDB_MODE=offline" in caught.value.hint


# ---------------------------------------------------------------------- the packages themselves, where they are there

_SEND = """
import sys
from pathlib import Path
from submillion.training.track import Trackers
for step in (1, 2):
    trackers = Trackers([sys.argv[1]], Path(sys.argv[2]), {"train.epochs": 3, "about": "word " * 400})
    trackers.log({"train/loss": 0.5 / step, "validation/f1:R&D": 0.25}, step)
    trackers.close()
"""


def send(name: str, folder: Path, **environment: str) -> None:
    """Let a separate process track two parts of a run: these packages leave threads and hooks behind."""
    folder.mkdir()
    variables = {**os.environ, "HOME": str(folder.parent), **environment}
    command = [sys.executable, "-c", _SEND, name, str(folder)]
    process = subprocess.run(command, env=variables, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@needs("mlflow")
def test_mlflow_itself(tmp_path: Path) -> None:
    send("mlflow", tmp_path / "news-1", MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'store.db'}")
    with sqlite3.connect(tmp_path / "store.db") as store:
        [(run_id, name)] = store.execute("select run_uuid, name from runs").fetchall()
        rows = store.execute("select key, step, value from metrics order by step, key").fetchall()
        assert dict(store.execute("select key, value from params").fetchall())["train.epochs"] == "3"
    assert (run_id, name) == (read_json(tmp_path / "news-1" / IDS_NAME)["mlflow"], "news-1")
    assert [row for row in rows if row[0] == "train/loss"] == [("train/loss", 1, 0.5), ("train/loss", 2, 0.25)]
    assert ("validation/f1_R_D", 1, 0.25) in rows


@needs("wandb")
def test_wandb_itself_offline(tmp_path: Path) -> None:
    send("wandb", tmp_path / "news-1", WANDB_MODE="offline", WANDB_SILENT="true")
    run_id = read_json(tmp_path / "news-1" / IDS_NAME)["wandb"]
    files = list((tmp_path / "news-1" / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert files
    content = b"".join(path.read_bytes() for path in files)
    assert b"train/loss" in content
    assert b"train.epochs" in content


@needs("trackio")
def test_trackio_itself(tmp_path: Path) -> None:
    send("trackio", tmp_path / "news-1", TRACKIO_DIR=str(tmp_path / "trackio"))
    [path] = (tmp_path / "trackio").rglob("*.db")
    with sqlite3.connect(path) as store:
        rows = store.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [(name, step) for name, step, _ in rows] == [("news-1", 1), ("news-1", 2)]
    assert json.loads(rows[1][2])["train/loss"] == 0.25
