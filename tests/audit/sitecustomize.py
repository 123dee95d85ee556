"""Python imports this at the start of every process with this folder on PYTHONPATH, so it sees everything in a run.

What a process does that it should not is added to the file AUDIT_LOG, a line each. AUDIT_FOLDERS names what may be
opened besides the interpreter, the environment and the system's own files.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from typing import Any


def _resolve(path: str) -> str:
    return os.path.realpath(path)


_LOG = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_CODE = tuple(
    _resolve(path) + os.sep
    for path in {
        sys.prefix,
        sys.base_prefix,
        *sysconfig.get_paths().values(),
        os.path.dirname(__file__),
        *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
    }
)
_SYSTEM = ("/usr/", "/lib/", "/lib64/", "/etc/", "/proc/", "/sys/", "/dev/", "/opt/")
_READABLE = (*_CODE, *_SYSTEM, *(_resolve(path) + os.sep for path in os.environ["AUDIT_FOLDERS"].split(os.pathsep)))
# Compilers of the kernels, and what matplotlib asks once for fonts.
_PROGRAMS = {"g++", "c++", "clang++", "fc-list"}
_NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")


def _judge_opened(path: str) -> str:
    return "" if (_resolve(path) + os.sep).startswith(_READABLE) else f"opened {path}"


def _judge_code(name: str) -> str:
    # Code made in memory has a file name in angle brackets.
    return "" if name.startswith("<") or _resolve(name).startswith(_CODE) else f"ran code of {name}"


def _judge_start(words: list[str]) -> str:
    is_ours = words[0] == sys.executable and "-P" in words
    return "" if is_ours or os.path.basename(words[0]) in _PROGRAMS else f"started {words}"


def _judge_library(path: str) -> str:
    known = (*_CODE, *_SYSTEM, _resolve(os.environ["AUDIT_CACHE"]) + os.sep)
    return "" if os.sep not in path or _resolve(path).startswith(known) else f"loaded {path}"


def _judge(event: str, values: tuple[Any, ...]) -> str:
    if event == "open":
        return _judge_opened(os.fsdecode(values[0])) if isinstance(values[0], str | bytes) else ""
    if event == "exec":
        return _judge_code(values[0].co_filename)
    if event == "subprocess.Popen":
        return _judge_start([os.fsdecode(word) for word in values[1]])
    if event == "ctypes.dlopen":
        return _judge_library(values[0]) if isinstance(values[0], str) else ""
    return f"{event} {values!r}" if event in _NETWORK or event.startswith(_STARTS) else ""


def _watch(event: str, values: tuple[Any, ...]) -> None:
    if event in {"open", "exec"} or event.startswith(("subprocess", "socket", "os.", "ctypes", "pty", "urllib")):
        problem = _judge(event, values)
        if problem:
            os.write(_LOG, f"{os.getpid()} {problem}\n".encode(errors="replace"))


sys.addaudithook(_watch)
