"""The folder of an export appears whole or not at all, and two processes do not fill it at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from submillion.errors import RunError
from submillion.export_folder import write_folder

WRITER = """
import sys, time
from pathlib import Path
from submillion.export_folder import write_folder

with write_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    (folder / "deeper").mkdir()
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_filled_by_one_process_and_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    final = tmp_path / "parent" / "merged"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(final)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            with pytest.raises(RunError, match="another process is exporting"), write_folder(final):
                pass
            (unfinished,) = final.parent.iterdir()
            assert sorted(os.listdir(unfinished)) == ["deeper", "half"]
        finally:
            process.kill()
    with write_folder(final) as folder:
        assert list(folder.iterdir()) == []
        (folder / "whole").write_text("whole")
        assert not final.exists()
    assert os.listdir(final.parent) == ["merged"]
    assert os.listdir(final) == ["whole"]


def test_a_folder_that_fails_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    final = tmp_path / "merged"
    final.mkdir()
    (final / "old").write_text("old")

    def fail() -> None:
        with write_folder(final) as folder:
            (folder / "new").write_text("new")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert os.listdir(tmp_path) == ["merged"]
    assert os.listdir(final) == ["old"]


def test_a_link_in_the_place_of_the_unfinished_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "kept").write_text("kept")
    (tmp_path / ".merged.export.tmp").symlink_to("other")
    with pytest.raises(RunError, match="is a link to other"), write_folder(tmp_path / "merged"):
        pass
    assert os.listdir(tmp_path / "other") == ["kept"]
