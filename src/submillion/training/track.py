"""Trackers besides log.jsonl, through accelerate's classes.

A run keeps its id in each tracker in ``trackers.json``, and uses the same id when it is resumed.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from submillion.config.run import TrackerName
from submillion.errors import ConfigError
from submillion.storage.files import read_json, write_json
from submillion.storage.json_shapes import check_shape

PROJECT = "submillion"
IDS_NAME = "trackers.json"
# Some trackers fail in the middle of a run on other characters in a figure's name, such as the colon of f1:Sports.
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]")
# The shortest limit that a tracker has for the value of a setting.
_MAX_SETTING = 250


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Refuse trackers that are not installed, before anything is read.

    Raises:
        ConfigError: A tracker is not installed. The message names the extra that installs it.
    """
    for name in names:
        from accelerate import utils

        if not getattr(utils, f"is_{name}_available")():
            raise ConfigError(
                f"tracker {name!r} is not installed",
                where="track",
                hint=f'Install it: pip install "submillion[{_KINDS[name].extra}]"',
            )


class Trackers:
    """Sends scalar figures to the trackers that a run asks for.

    Args:
        names: Names of the trackers; empty for none.
        folder: Run folder. Its name is the run's name in each tracker, and some trackers write into it.
        settings: The resolved configuration, flat enough for a tracker's table.

    Raises:
        ConfigError: A tracker is not installed or does not start.
    """

    def __init__(self, names: Sequence[TrackerName], folder: Path, settings: Mapping[str, object]) -> None:
        self._trackers: list[Any] = []
        if not names:
            return
        check_trackers(names)
        from accelerate.state import PartialState

        # accelerate's trackers log, which accelerate allows only after the process has a PartialState.
        PartialState()
        path = folder / IDS_NAME
        ids: dict[str, str] = read_json(path) if path.exists() else {}
        check_shape(ids, {"*": str}, path)
        shown = {key: str(value)[:_MAX_SETTING] for key, value in settings.items()}
        for name in names:
            tracker = _start(name, folder, ids.get(name))
            self._trackers.append(tracker)
            run_id = _KINDS[name].find_id(tracker)
            if run_id is not None and ids.get(name) != run_id:
                ids[name] = run_id
                write_json(path, ids)
            tracker.store_init_configuration(shown)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Record figures of a step."""
        values = {_NOT_IN_NAMES.sub("_", name): value for name, value in figures.items()}
        for tracker in self._trackers:
            tracker.log(dict(values), step=step)

    def close(self) -> None:
        """Flush and close."""
        for tracker in self._trackers:
            tracker.finish()


@dataclass(frozen=True)
class _Kind:
    """A tracker.

    Attributes:
        extra: The extra of this package that installs it.
        open: Function (run folder, id of the run or None) -> accelerate's tracker, not started.
        find_id: Function that returns the run's id from a started tracker; None if the folder identifies the run.
        hint: Advice for a tracker that does not start.
    """

    extra: str
    open: Callable[[Path, str | None], Any]
    find_id: Callable[[Any], str | None]
    hint: str


def _open_tensorboard(folder: Path, _: str | None) -> object:
    return _find_class("TensorBoardTracker")(run_name="tensorboard", logging_dir=str(folder))


def _open_wandb(folder: Path, run_id: str | None) -> object:
    return _find_class("WandBTracker")(
        run_name=os.environ.get("WANDB_PROJECT", PROJECT),
        id=run_id or uuid.uuid4().hex[:12],
        name=folder.resolve().name,
        dir=str(folder),
        resume="allow",
    )


def _open_mlflow(folder: Path, run_id: str | None) -> object:
    return _find_class("MLflowTracker")(experiment_name=PROJECT, run_id=run_id, run_name=folder.resolve().name)


def _open_trackio(folder: Path, run_id: str | None) -> object:
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    return _find_class("TrackioTracker")(run_name=project, name=run_id or folder.resolve().name, resume="allow")


_KINDS: dict[TrackerName, _Kind] = {
    "tensorboard": _Kind("track", _open_tensorboard, lambda _: None, "Is the run folder writable?"),
    "wandb": _Kind(
        "wandb",
        _open_wandb,
        lambda tracker: str(tracker.tracker.id),
        "Log in with `wandb login`, or keep the run on this machine with WANDB_MODE=offline.",
    ),
    "mlflow": _Kind(
        "mlflow",
        _open_mlflow,
        lambda tracker: str(tracker.tracker.info.run_id),
        "Name a store that can be reached: MLFLOW_TRACKING_URI=sqlite:///mlflow.db, for example.",
    ),
    "trackio": _Kind(
        "trackio", _open_trackio, lambda tracker: str(tracker.tracker.name), "Is TRACKIO_DIR a folder to write in?"
    ),
}


def _find_class(name: str) -> Any:
    return getattr(import_module("accelerate.tracking"), name)


def _start(name: TrackerName, folder: Path, run_id: str | None) -> Any:
    kind = _KINDS[name]
    try:
        tracker = kind.open(folder, run_id)
        tracker.start()
    except Exception as error:  # each tracker has its own errors, and none is ours
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"tracker {name!r} does not start: {reason[0]}", where="track", hint=kind.hint) from error
    return tracker
