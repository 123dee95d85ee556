"""No output takes the place of something that is read; and what killed writers leave is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from submillion.errors import ConfigError
from submillion.files import write_text
from submillion.rundir import refuse_overwriting


def make_run(folder: Path) -> Path:
    (folder / "adapter").mkdir(parents=True)
    for name in ("config.yaml", "manifest.json", "log.jsonl"):
        (folder / name).write_text("x")
    return folder


def test_an_output_that_is_read_is_refused_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "in" / "data.csv"
    data.parent.mkdir()
    data.write_text("text\n")
    (tmp_path / "soft.csv").symlink_to(data)
    os.link(data, tmp_path / "hard.csv")
    (tmp_path / "folder").symlink_to(data.parent)
    monkeypatch.chdir(tmp_path)
    spellings = ("in/data.csv", "in/../in/data.csv", "soft.csv", "hard.csv", "folder/data.csv", str(data))
    for name in spellings:
        with pytest.raises(ConfigError, match="is read by this command"):
            refuse_overwriting(Path(name), [data], where="--out")
        with pytest.raises(ConfigError, match="is read by this command"):
            refuse_overwriting(data, [Path(name)], where="--out")
    refuse_overwriting(tmp_path / "other.csv", [data], where="--out")
    refuse_overwriting(tmp_path / "in" / "other.csv", [data], where="--out")
    with pytest.raises(ConfigError, match="lies in a folder that is read"):
        refuse_overwriting(tmp_path / "folder" / "new" / "other.csv", [data.parent], where="--out")


def test_places_of_a_run_are_no_outputs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(run)
    for name in (
        "log.jsonl",
        "data.json",
        "adapter/new.csv",
        "evaluation/test.predictions.parquet",
        "tokenizer/x/y",
        "trained_rows.digests",
        "trackers.json",
    ):
        for folder in (run, tmp_path / "link"):
            with pytest.raises(ConfigError, match="belongs to the run"):
                refuse_overwriting(folder / name, where="--out")
    for path in (run / "predictions.csv", run / "export" / "merged", run, tmp_path / "adapter" / "a.csv"):
        refuse_overwriting(path, where="--out")


WRITER = """
import sys, time
from pathlib import Path
from submillion.files import write_atomically

def write(file):
    file.write(b"half")
    file.flush()
    print("begun", flush=True)
    time.sleep(60)

write_atomically(Path(sys.argv[1]), write)
"""


def test_what_a_killed_writer_left_is_removed_and_a_living_one_is_not_disturbed(tmp_path: Path) -> None:
    out = tmp_path / "[odd] out.csv"
    (tmp_path / ".other.csv.x.tmp").write_text("somebody else's")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            write_text(out, "of another")
            assert len(os.listdir(tmp_path)) == 3
        finally:
            process.kill()
    assert len(os.listdir(tmp_path)) == 3
    write_text(out, "whole")
    assert sorted(os.listdir(tmp_path)) == [".other.csv.x.tmp", out.name]
    assert out.read_text() == "whole"


def test_a_file_is_under_its_name_before_it_can_pass_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    real = os.replace

    def replace(source: str, target: Path) -> None:
        if target == out:
            monkeypatch.setattr(os, "replace", real)
            write_text(out, "of another that begins now")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_text(out, "whole")
    assert out.read_text() == "whole"
    assert os.listdir(tmp_path) == ["out.csv"]
