"""Trackers besides log.jsonl: the only importer of accelerate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submillion.errors import ConfigError


class Trackers:
    """Sends scalar figures to the trackers that a run asks for.

    Args:
        names: Trackers by name; empty for none.
        folder: Run folder; trackers write below it.
        settings: The resolved configuration, flat enough for a tracker's table.

    Raises:
        ConfigError: A tracker whose package is not installed.
    """

    def __init__(self, names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> None:
        self._trackers = [_open_tracker(name, folder, settings) for name in names]

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Record figures of a step."""
        for tracker in self._trackers:
            tracker.log(dict(figures), step=step)

    def close(self) -> None:
        """Flush and close."""
        for tracker in self._trackers:
            tracker.finish()


def _open_tracker(name: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    from accelerate.tracking import TensorBoardTracker
    from accelerate.utils import is_tensorboard_available

    assert name == "tensorboard"
    if not is_tensorboard_available():
        raise ConfigError(
            f"tracker {name!r} is not installed", where="track", hint='Install it: pip install "submillion[track]"'
        )
    tracker = TensorBoardTracker(run_name="tensorboard", logging_dir=str(folder))
    tracker.start()
    tracker.store_init_configuration({key: str(value) for key, value in settings.items()})
    return tracker
