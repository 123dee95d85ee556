"""Where runs begin: folders that two starts want at once, full disks, and links in the folders of searches."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from submillion.config.run import parse_config
from submillion.errors import RunError
from submillion.pipeline.run import choose_folder, resume_run, start_run
from submillion.run.folder import RunDir
from submillion.search.task import SearchDir
from submillion.storage.files import hold_folder
from submillion.storage.private_folders import explain_distrust, find_cache_folder

Start = Callable[..., subprocess.Popen[str]]


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_config({"name": "twin"}, where="test")
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: choose_folder(config), range(40)))
    assert len(set(folders)) == 40
    assert all(folder.is_dir() for folder in folders)


def test_two_starts_in_one_folder_are_one_run_and_one_error(
    tmp_path: Path,
    news_rows: Callable[..., Path],
    train_words: Callable[..., list[str]],
    submillion_process: Start,
) -> None:
    data = news_rows(tmp_path / "news.csv", 60)
    fast = ("--set", "final.proof=false", "--set", "final.report=false")
    seeds = [("--set", f"seed={seed}") for seed in (1, 2)]
    started = [submillion_process(*train_words(data, tmp_path / "run", *fast, *seed)) for seed in seeds]
    said = [process.communicate(timeout=300)[1] for process in started]
    codes = [process.returncode for process in started]
    assert sorted(codes)[0] == 0, said
    assert sorted(codes)[1] in {2, 6}, said
    loser = codes.index(max(codes))
    assert "another process is training" in said[loser] or "is not an empty folder" in said[loser]
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert f"seed: {(1, 2)[1 - loser]}\n" in text


def test_a_folder_that_is_held_is_left_as_it_is(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    with hold_folder(run.lock, doing="training"):
        with pytest.raises(RunError, match="another process is training"):
            start_run(parse_config({}, where="test"), run.path)
        assert os.listdir(run.path) == [".lock"]


@pytest.mark.parametrize("place", [".lock", "config.yaml", "checkpoints"])
def test_a_start_follows_no_link(tmp_path: Path, place: str) -> None:
    (tmp_path / "precious").write_text("precious")
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    (run.path / place).symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match="is a link to"):
        start_run(parse_config({}, where="test"), run.path)
    with pytest.raises(RunError, match="is a link to"):
        resume_run(run.path)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["study.db", "study.db.queue", ".lock", "trials", "plots", "winner.yaml"])
def test_links_in_the_folder_of_a_search_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "search").mkdir()
    files = SearchDir(tmp_path / "search")
    files.refuse_links()
    (tmp_path / "search" / name).symlink_to(tmp_path)
    with pytest.raises(RunError, match="is a link to"):
        files.refuse_links()


@pytest.mark.parametrize("format", ["merged", "adapter"])
def test_an_export_on_a_full_disk_leaves_nothing(
    trained: Any, tmp_path: Path, submillion_process: Start, format: str
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))

    words = ("export", trained.folder, "--format", format, "--out", tmp_path / "out")
    process = submillion_process(*words, preexec_fn=limit)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 6, said
    assert "cannot be written" in said
    assert os.listdir(tmp_path) == []


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "SUBMILLION_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def know_nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", know_nobody)
    assert "the home folder of this user is not known" in explain_distrust(find_cache_folder())
