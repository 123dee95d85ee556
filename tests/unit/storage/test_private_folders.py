"""The folders that are private enough to trust the files in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from submillion.cache import open_cache
from submillion.storage.private_folders import CACHE_SETTING, explain_distrust, make_private_folder

STRANGER = 54321


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def test_a_folder_of_ones_own_is_believed(home: Path) -> None:
    assert make_private_folder(home / "cache" / "data") == ""
    assert (home / "cache" / "data").stat().st_mode & 0o777 == 0o700
    assert (home / "cache").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_not_there_is_judged_by_those_above(home: Path) -> None:
    assert explain_distrust(home / "not" / "there") == ""
    home.chmod(0o777)
    assert "can be written to by other users" in explain_distrust(home / "not" / "there")
    assert not (home / "not").exists()


def test_open_folders_are_refused_unless_sticky(home: Path) -> None:
    inner = home / "inner"
    inner.mkdir(mode=0o700)
    home.chmod(0o1777)
    assert explain_distrust(inner) == ""
    home.chmod(0o777)
    assert f"{home} can be written to by other users" in explain_distrust(inner)
    home.chmod(0o700)
    inner.chmod(0o1777)
    assert f"{inner} can be written to by other users" in explain_distrust(inner)


def test_links_are_followed_on_the_way_and_refused_at_the_end(home: Path) -> None:
    (home / "real").mkdir(mode=0o700)
    (home / "link").symlink_to("real")
    (home / "real" / "data").mkdir(mode=0o700)
    assert explain_distrust(home / "link") == f"{home / 'link'} is a link"
    assert explain_distrust(home / "link" / "data") == ""
    (home / "real").chmod(0o777)
    assert str(home / "real") in explain_distrust(home / "link" / "data")
    (home / "loop").symlink_to("loop")
    assert "links" in explain_distrust(home / "loop" / "data")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_folders_and_links_of_others_are_refused(home: Path) -> None:
    home.chmod(0o1777)
    theirs = home / "theirs"
    theirs.mkdir()
    os.chown(theirs, STRANGER, STRANGER)
    assert explain_distrust(theirs) == f"{theirs} belongs to user {STRANGER}"
    assert str(theirs) in explain_distrust(theirs / "data")
    (home / "real" / "data").mkdir(parents=True)
    (home / "link").symlink_to("real")
    os.lchown(home / "link", STRANGER, STRANGER)
    assert "is a link that belongs to" in explain_distrust(home / "link" / "data")


def test_another_user_than_the_owner_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert "belongs to" in explain_distrust(home)


def test_a_file_in_its_place_is_refused(home: Path) -> None:
    (home / "data").write_text("no folder")
    assert "is not a folder" in explain_distrust(home / "data")
    assert "is not a folder" in make_private_folder(home / "data" / "below")


def _spoil_mode(folder: Path) -> None:
    folder.chmod(0o777)


def _spoil_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [_spoil_mode, _spoil_link])
def test_a_cache_that_others_can_write_to_is_not_believed(
    home: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    import numpy as np

    monkeypatch.setenv(CACHE_SETTING, str(home / "cache"))
    notes: list[str] = []
    open_cache(notes.append).store("rows", "a" * 40, {"values": np.arange(3)})
    assert open_cache(notes.append).load("rows", "a" * 40) is not None
    assert notes == []
    spoil(home / "cache" / "data")
    assert open_cache(notes.append).load("rows", "a" * 40) is None
    assert "no kept file is used" in notes[0]


@pytest.mark.parametrize("setting", ["~nosuchuser/cache", ""])
def test_no_home_means_no_cache(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv(CACHE_SETTING, setting)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", _know_nobody)
    notes: list[str] = []
    assert open_cache(notes.append).folder is None
    assert len(notes) == 1


def _know_nobody(uid: int) -> None:
    raise KeyError(uid)
