"""Building the kernels: once, by the machine's compiler, and with a reason where it cannot be."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from submillion.kernels import native
from submillion.kernels.native import find_kernels

needs_kernels = pytest.mark.skipif(
    find_kernels().library is None, reason=f"the CPU kernels do not run here: {find_kernels().reason}"
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    find_kernels.cache_clear()
    yield
    find_kernels.cache_clear()


def test_the_switch_turns_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.SWITCH, "off")
    assert find_kernels().library is None
    assert "off" in find_kernels().reason


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        ({}, "AVX512-BF16"),
        ({"avx512_bf16": True}, "VNNI"),
        ({"avx512_bf16": True, "avx512_vnni": True, "amx_bf16": True}, "AMX"),
    ],
)
def test_other_cpus_are_told_apart(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], reason: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert reason in find_kernels().reason


def test_they_are_built_wherever_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere every test of the kernels is skipped where they cannot be had, so broken sources must fail here."""
    capabilities = torch.cpu.get_capabilities()
    # With AMX the stock modules are used, but its CPUs have all the instructions.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**capabilities, "amx_bf16": False})
    build = native._plan_build()
    if isinstance(build, str):
        pytest.skip(build)
    assert find_kernels().library is not None, find_kernels().reason


@needs_kernels
def test_no_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler" in find_kernels().reason


@needs_kernels
def test_a_failing_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "broken-c++"
    compiler.write_text("#!/bin/sh\necho 'fatal error: nothing works' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    assert "nothing works" in find_kernels().reason
    assert not list((tmp_path / "cache").rglob("*.so"))


@needs_kernels
def test_a_cache_that_cannot_be_written_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "file"))
    assert "is not a folder" in find_kernels().reason


@needs_kernels
def test_the_library_is_built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path))
    assert find_kernels().reason == ""
    (library,) = tmp_path.rglob("*.so")
    written = library.stat().st_mtime_ns
    find_kernels.cache_clear()
    assert find_kernels().reason == ""
    assert library.stat().st_mtime_ns == written
    assert [path.name for path in library.parent.iterdir() if path != library] == [f"{library.name}.sha256"]


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/bin/true")


# These files are not libraries: loading one would end this process by a signal.
DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "altered": lambda path: path.write_bytes(path.read_bytes()[:-8] + b"altered!"),
    "a link": replace_by_link,
    "without a digest": lambda path: path.with_name(f"{path.name}.sha256").unlink(),
}


@needs_kernels
def test_a_library_that_is_not_what_was_built_is_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built: list[Path] = []
    content = b"as compiled"

    def compile_quickly(command: list[str], **_: object) -> None:
        built.append(Path(command[command.index("-o") + 1]))
        built[-1].write_bytes(content)

    loaded: list[bytes] = []

    def load(path: str | None) -> object:
        if path is not None:
            loaded.append(Path(path).read_bytes())
        return object()

    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", compile_quickly)
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(native, "_keep_freed_memory", lambda: None)
    assert find_kernels().reason == ""
    (library,) = tmp_path.rglob("*.so")
    for number, damage in enumerate(DAMAGES.values(), start=2):
        damage(library)
        find_kernels.cache_clear()
        assert native.is_to_be_built()
        assert find_kernels().reason == ""
        assert not native.is_to_be_built()
        assert len(built) == number
    assert set(loaded) == {content}


@needs_kernels
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o733])
def test_a_folder_that_others_can_write_to_is_not_loaded_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int
) -> None:
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: pytest.fail(f"{path} was loaded"))
    assert find_kernels().library is None
    assert "can be written to by other users" in find_kernels().reason
    assert list(folder.iterdir()) == []


@needs_kernels
def test_threads_are_shared_with_torch() -> None:
    # A second OpenMP runtime in the process would fight the first for the cores.
    script = (
        "from submillion.kernels.native import find_kernels; import torch; assert find_kernels().library;"
        "print(sorted({line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.count("libgomp") == 1
