from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from submillion.cache import Cache, digest_code, digest_parts, open_cache, pack_strings, unpack_strings
from submillion.storage.private_folders import find_cache_folder

KEY = digest_parts("everything")
ARRAYS: dict[str, NDArray[Any]] = {
    "ids": np.arange(2000, dtype=np.uint16),
    "ends": np.array([3, 4], np.int64),
    "none": np.empty(0, np.uint8),
}


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, notes: list[str]) -> Cache:
    return Cache(tmp_path / "kept", on_note=notes.append)


def find_file(cache: Cache) -> Path:
    assert cache.folder is not None
    (path,) = cache.folder.glob("*.safetensors")
    return path


def test_what_is_stored_comes_back(cache: Cache, notes: list[str]) -> None:
    assert cache.load("tokens", KEY) is None
    cache.store("tokens", KEY, ARRAYS)
    loaded = cache.load("tokens", KEY)
    assert loaded is not None
    assert loaded.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert (loaded[name].dtype, loaded[name].tolist()) == (value.dtype, value.tolist())
    assert cache.load("rows", KEY) is None
    assert cache.load("tokens", digest_parts("anything else")) is None
    assert notes == []


def test_only_the_owner_can_look_into_the_folder(cache: Cache) -> None:
    cache.store("tokens", KEY, ARRAYS)
    assert find_file(cache).parent.stat().st_mode & 0o077 == 0


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fill_with_text(path: Path) -> None:
    path.write_text("not a file of arrays", encoding="utf-8")


def change_shape_in_header(path: Path) -> None:
    data = path.read_bytes()
    assert b'"shape":[2]' in data
    path.write_bytes(data.replace(b'"shape":[2]', b'"shape":[3]'))


def change_dtype_in_header(path: Path) -> None:
    data = path.read_bytes()
    assert b'"dtype":"U16"' in data
    path.write_bytes(data.replace(b'"dtype":"U16"', b'"dtype":"I16"'))


@pytest.mark.parametrize(
    "damage", [flip_a_byte, cut, empty, fill_with_text, change_shape_in_header, change_dtype_in_header]
)
def test_a_damaged_file_is_noticed_and_removed(cache: Cache, notes: list[str], damage: Callable[[Path], None]) -> None:
    cache.store("tokens", KEY, ARRAYS)
    path = find_file(cache)
    damage(path)
    assert cache.load("tokens", KEY) is None
    assert not path.exists()
    assert len(notes) == 1
    assert str(path) in notes[0]
    assert "damaged" in notes[0]
    cache.store("tokens", KEY, ARRAYS)
    assert cache.load("tokens", KEY) is not None


def test_a_file_under_another_name_is_not_taken_for_it(cache: Cache, notes: list[str]) -> None:
    cache.store("tokens", KEY, ARRAYS)
    other = digest_parts("another text")
    path = find_file(cache)
    path.rename(path.with_name(f"tokens-{other[:40]}.safetensors"))
    assert cache.load("tokens", other) is None
    assert len(notes) == 1


def test_the_least_used_files_make_room(tmp_path: Path, notes: list[str]) -> None:
    size = len(np.zeros(10_000, np.uint8))
    cache = Cache(tmp_path, on_note=notes.append, max_bytes=3 * size + 2000)
    foreign = tmp_path / "model.safetensors"
    foreign.write_bytes(b"x" * size)
    keys = [digest_parts(str(number)) for number in range(4)]
    for age, key in zip((30, 20, 10), keys[:3], strict=True):
        cache.store("rows", key, {"data": np.zeros(size, np.uint8)})
        path = tmp_path / f"rows-{key[:40]}.safetensors"
        os.utime(path, (time.time() - age, time.time() - age))
    assert cache.load("rows", keys[0]) is not None  # used just now
    cache.store("rows", keys[3], {"data": np.zeros(size, np.uint8)})
    assert [cache.load("rows", key) is not None for key in keys] == [True, False, True, True]
    cache.store("rows", digest_parts("huge"), {"data": np.zeros(4 * size, np.uint8)})
    assert [cache.load("rows", key) is not None for key in keys] == [True, False, True, True]
    assert foreign.exists()
    assert notes == []


def test_what_a_killed_process_left_goes_after_a_day(cache: Cache) -> None:
    cache.store("rows", KEY, ARRAYS)
    folder = find_file(cache).parent
    old, new, foreign = (
        folder / name
        for name in (f".rows-{KEY[:40]}.safetensors.a.tmp", f".rows-{KEY[:40]}.safetensors.b.tmp", ".mine.tmp")
    )
    for path in (old, new, foreign):
        path.write_bytes(b"")
    for path in (old, foreign):
        os.utime(path, (1, 1))
    cache.store("rows", digest_parts("more"), ARRAYS)
    assert [path.exists() for path in (old, new, foreign)] == [False, True, True]


def test_a_folder_that_cannot_be_written_costs_a_note(tmp_path: Path, notes: list[str]) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    cache = Cache(tmp_path / "file" / "kept", on_note=notes.append)
    cache.store("tokens", KEY, ARRAYS)
    assert cache.load("tokens", KEY) is None
    assert len(notes) == 1
    assert "SUBMILLION_CACHE=off" in notes[0]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, notes: list[str]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SUBMILLION_CACHE", raising=False)
    assert open_cache(notes.append).folder == tmp_path / "xdg" / "submillion" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert find_cache_folder() == tmp_path / "home" / ".cache" / "submillion"
    monkeypatch.setenv("SUBMILLION_CACHE", "~/mine")
    assert open_cache(notes.append).folder == tmp_path / "home" / "mine" / "data"
    monkeypatch.setenv("SUBMILLION_CACHE", "off")
    off = open_cache(notes.append)
    off.store("tokens", KEY, ARRAYS)
    assert off.load("tokens", KEY) is None
    assert off.folder is None
    assert not (tmp_path / "home").exists()
    assert find_cache_folder() == tmp_path / "home" / ".cache" / "submillion"  # of what is no data


def test_strings_are_packed_without_loss() -> None:
    for strings in ([], [""], ["", "a", "\N{SNOWMAN}\0\n", "", "\ud800x", "é" * 300]):
        assert unpack_strings(*pack_strings(strings)) == strings


def test_digests_tell_lists_of_parts_apart() -> None:
    lists = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ()]
    assert len({digest_parts(*parts) for parts in lists}) == len(lists)
    assert digest_code("data") != digest_code("records.py")
    assert digest_code("data") == digest_code("data")
