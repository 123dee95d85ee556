"""Building of the kernels with the machine's C++ compiler, and loading of the library from the user's cache.

The kernels need a CPU with AVX512-BF16 and a compiler; if either is missing, `find_kernels` says so and the stock
modules run instead. The library's name holds a digest of everything that it was made from, so an update of the sources,
the compiler or the CPU makes a new one. A library runs with the user's rights, so it is loaded only from a folder that
nobody else can write to, and only if it matches the digest stored beside it. A truncated, unfinished or altered library
is built again.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from submillion.errors import RunError
from submillion.storage.files import read_plain, read_plain_text, write_bytes, write_text
from submillion.storage.private_folders import find_cache_folder, make_private_folder

_FOLDER = Path(__file__).parent
_SOURCES = ("common.h", "linear.h", "attention.h", "kernels.cpp")
_COMPILERS = ("g++", "c++", "clang++")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared", "-w")
_TIMEOUT_S = 300
# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_HEAP_BLOCK = 32 << 20
_ADVISED_BYTES = 1 << 30
_HUGE_PAGE = 2 << 20
_MADV_HUGEPAGE = 14
# If this is "off", the stock modules run. It serves comparisons and machines with a broken compiler.
SWITCH = "SUBMILLION_KERNELS"


@dataclass(frozen=True)
class Kernels:
    """Result of `find_kernels`.

    Attributes:
        library: The loaded library, or None.
        reason: The reason why there is none, as the end of a sentence; empty if there is one.
    """

    library: ctypes.CDLL | None
    reason: str


@cache
def find_kernels() -> Kernels:
    """Load the kernels, and build them first if this machine has not done so yet (some seconds, once)."""
    try:
        build = _plan_build()
        if isinstance(build, str):
            return Kernels(None, build)
        if distrust := make_private_folder(build.library.parent):
            return Kernels(None, f"the folder of the kernels is not safe to load from: {distrust}")
        if not _is_sound(build.library):
            _compile(build)
        library = ctypes.CDLL(str(build.library))
    except (OSError, subprocess.SubprocessError, RunError) as error:
        return Kernels(None, f"the kernels could not be built: {_last_line(error)}")
    _keep_freed_memory()
    return Kernels(library, "")


def is_to_be_built() -> bool:
    """Return whether the first use of the kernels will build them, which takes some seconds."""
    try:
        build = _plan_build()
        return not isinstance(build, str) and not _is_sound(build.library)
    except OSError:
        return False


@dataclass(frozen=True)
class _Build:
    compiler: str
    openmp: Path
    library: Path


def _plan_build() -> _Build | str:
    """Return the build to make, or the reason why none is possible."""
    if os.environ.get(SWITCH, "").lower() == "off":
        return f"{SWITCH}=off"
    missing = _missing_instructions()
    if missing:
        return missing
    openmp = _find_openmp()
    if openmp is None:
        return "this build of torch has no libgomp to share its threads"
    compiler = next((path for name in _compiler_names() if (path := shutil.which(name))), None)
    if compiler is None:
        return f"no C++ compiler was found ({', '.join(_compiler_names())})"
    return _Build(compiler, openmp, _name_library(compiler, openmp))


def _keep_freed_memory() -> None:
    """Let the allocator keep the memory that passes free, on huge pages.

    Every pass allocates the same activations again. By default glibc returns blocks of this size to the system, which
    clears each page again when it is touched. This takes a tenth of a pass. Writes are mostly far apart (64 columns of
    many rows), so the number of pages counts too. Therefore some blocks are allocated, marked for huge pages and freed,
    and later allocations take their place.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)
    libc.mallopt(_M_TRIM_THRESHOLD, (2 << 30) - 1)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = _LARGEST_HEAP_BLOCK - (1 << 20)
    blocks = [libc.malloc(size) for _ in range(_ADVISED_BYTES // size)]
    for block in blocks:
        if block:
            first = -(-block // _HUGE_PAGE) * _HUGE_PAGE
            libc.madvise(first, (block + size - first) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
    for block in blocks:
        libc.free(block)


def _compiler_names() -> tuple[str, ...]:
    return (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS


def _missing_instructions() -> str:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not capabilities.get("avx512_bf16"):
        return "this CPU has no AVX512-BF16"
    if not capabilities.get("avx512_vnni"):
        return "this CPU has no AVX512-VNNI"
    if capabilities.get("amx_bf16"):
        # AMX tiles multiply several times faster than vectors, and torch's products use them.
        return "this CPU has AMX, which the stock modules use"
    return ""


def _find_openmp() -> Path | None:
    # A second OpenMP runtime would start its own threads, which would compete with torch's for the cores.
    return next(iter(sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))), None)


def _name_library(compiler: str, openmp: Path) -> Path:
    # Asking the compiler for its version would take longer at every start than loading the library.
    binary = Path(compiler).resolve()
    identity = f"{binary} {binary.stat().st_size} {binary.stat().st_mtime_ns}".encode()
    digest = hashlib.sha256()
    for part in (identity, " ".join(_FLAGS).encode(), str(openmp).encode(), _describe_cpu().encode()):
        digest.update(hashlib.sha256(part).digest())
    for name in _SOURCES:
        digest.update((_FOLDER / name).read_bytes())
    return find_cache_folder() / "kernels" / f"submillion-{digest.hexdigest()[:24]}.so"


def _is_sound(library: Path) -> bool:
    """Return whether a library exists, is complete and is the one that was built."""
    try:
        return read_plain_text(_name_digest(library)).strip() == hashlib.sha256(read_plain(library)).hexdigest()
    except (FileNotFoundError, RunError):
        return False


def _name_digest(library: Path) -> Path:
    return library.with_name(f"{library.name}.sha256")


def _compile(build: _Build) -> None:
    # Several processes may build at once. Each compiles into its own folder, and the last rename wins. Compilers may
    # write a different library each time, so a process that loads between the two renames builds again.
    with tempfile.TemporaryDirectory(dir=build.library.parent) as scratch:
        target = Path(scratch) / build.library.name
        command = [build.compiler, *_FLAGS, str(_FOLDER / "kernels.cpp"), "-o", str(target), str(build.openmp)]
        subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=True)
        content = target.read_bytes()
    write_bytes(build.library, content)
    write_text(_name_digest(build.library), hashlib.sha256(content).hexdigest() + "\n")


def _describe_cpu() -> str:
    # -march=native makes code for this CPU only, and a cache on a shared disk may serve several kinds.
    return str(sorted(torch.cpu.get_capabilities().items()))


def _last_line(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if "error" in line] or lines
        return errors[0][:200] if errors else f"{error.cmd[0]} ended with {error.returncode}"
    return str(error)[:200]
