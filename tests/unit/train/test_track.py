from __future__ import annotations

from pathlib import Path

import pytest

from submillion.errors import ConfigError
from submillion.train.track import Trackers

# tensorboard's own reader imports what its dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_tensorboard_gets_the_figures_of_their_steps(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = Trackers(["tensorboard"], tmp_path, {"train.epochs": 3, "data.text": ("title", "body")})
    trackers.log({"train/loss": 0.5}, 1)
    trackers.log({"train/loss": 0.25}, 2)
    trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    trackers = Trackers([], tmp_path, {})
    trackers.log({"train/loss": 0.5}, 1)
    trackers.close()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.utils.is_tensorboard_available", lambda: False)
    with pytest.raises(ConfigError, match="not installed"):
        Trackers(["tensorboard"], tmp_path, {})
