"""Private folders, whose files only this user can have written."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from submillion.storage.files import expand_home

CACHE_SETTING, CACHE_OFF = "SUBMILLION_CACHE", "off"
"""Environment variable that names another folder for the cache; ``off`` keeps no data."""

HOMELESS = Path(os.devnull)
"""Path that replaces an unknown home folder; no file can exist below it."""

_MAX_LINKS = 40  # Linux follows as many in one path


def make_private_folder(folder: Path) -> str:
    """Make a folder for this user alone, with missing parent folders, and return `explain_distrust` of it."""
    reason = explain_distrust(folder)
    if reason:
        return reason
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        return f"{folder} cannot be made: {error.strerror}"
    return explain_distrust(folder)


def explain_distrust(folder: Path) -> str:
    """Return why the files of a folder cannot be trusted, as a sentence without its end; empty if they can.

    Files can be trusted if only this user can have written them. The folder must belong to this user, and only this
    user may write in it. Every folder and link on the way to it must belong to this user or to root, and others must
    not be able to rename it. A missing folder is judged by its parents.

    Args:
        folder: Path of the folder. It must be no link itself; links above it are followed.
    """
    path = Path(os.path.abspath(folder))
    if path.is_relative_to(HOMELESS):
        return "the home folder of this user is not known"
    try:
        if path.is_symlink():
            return f"{path} is a link"
        return _explain_way(path)
    except (OSError, ValueError) as error:
        return f"{path} cannot be examined: {getattr(error, 'strerror', None) or error}"


def _explain_way(path: Path) -> str:
    here, steps, num_links = Path(path.anchor), list(path.parts[1:]), 0
    while True:
        status = os.lstat(here)
        reason = _explain_owner(here, status, is_last=not steps)
        if reason or not steps:
            return reason
        step = steps.pop(0)
        if step == "..":
            here = here.parent
            continue
        try:
            status = os.lstat(here / step)
        except FileNotFoundError:
            return ""
        if not stat.S_ISLNK(status.st_mode):
            here = here / step
            continue
        num_links += 1
        if num_links > _MAX_LINKS:
            return f"{path} has too many links on its way"
        if status.st_uid not in (0, os.geteuid()):
            return f"{here / step} is a link that belongs to {_name_user(status.st_uid)}"
        target = Path(os.readlink(here / step))
        steps = [*target.parts[1 if target.is_absolute() else 0 :], *steps]
        here = Path(target.anchor) if target.is_absolute() else here


def _explain_owner(path: Path, status: os.stat_result, *, is_last: bool) -> str:
    if not stat.S_ISDIR(status.st_mode):
        return f"{path} is not a folder"
    if not _is_ours(status) and (is_last or status.st_uid != 0):
        return f"{path} belongs to {_name_user(status.st_uid)}"
    is_open = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid))
    # In a sticky folder such as /tmp, others can neither rename nor remove our files.
    if is_open and (is_last or not status.st_mode & stat.S_ISVTX):
        return f"{path} can be written to by other users"
    return ""


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid()


def _is_own_group(gid: int) -> bool:
    """Return whether this user is the only member of a group; many systems give each user such a group."""
    if gid == 0:
        return True
    try:
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid)
    except (KeyError, OSError):
        return False
    return group.gr_name == user.pw_name and user.pw_gid == gid and set(group.gr_mem) <= {user.pw_name}


def _name_user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except (KeyError, OSError):
        return f"user {uid}"


def find_cache_folder() -> Path:
    """Return the folder for files that can be made again: SUBMILLION_CACHE, or ``submillion`` in the user's cache.

    If the user's home is not known, the folder is one that cannot hold files (see `explain_distrust`).

    Raises:
        ConfigError: SUBMILLION_CACHE begins with the home of an unknown user.
    """
    setting = os.environ.get(CACHE_SETTING, "")
    if setting and setting != CACHE_OFF:
        return expand_home(setting, where=CACHE_SETTING)
    # The XDG specification says that relative paths must be ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        # Without a home nothing is kept, but that is no reason to fail.
        base = HOMELESS if os.path.expanduser("~") == "~" else Path("~/.cache").expanduser()
    return base / "submillion"
