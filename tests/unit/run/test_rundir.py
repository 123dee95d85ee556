"""The run folder: one process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from submillion.errors import RunError
from submillion.storage.files import hold_folder


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with hold_folder(lock, doing="training"):
        second = hold_folder(lock, doing="training", hint="Later.")
        with pytest.raises(RunError, match="another process is training in this folder") as caught, second:
            pass
        assert caught.value.where == str(tmp_path)
        assert caught.value.hint == "Later."
    with hold_folder(lock, doing="training"):
        pass
