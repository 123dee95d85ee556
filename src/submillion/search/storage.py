"""Where a study is kept: SQLite, PostgreSQL or Optuna's journal; opened so that many processes can work on it."""

from __future__ import annotations

import fcntl
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from submillion.errors import ConfigError, RunError
from submillion.storage.files import open_plain

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "journal:"
_EXAMPLES = "sqlite:///study.db, postgresql://USER@HOST/DATABASE or journal:study.log"
# Writers of one SQLite file wait for each other; the default of 5 s is short where a disk is slow.
_SQLITE_WAIT_S = 60
_SQLITE_PAGE = 512  # bytes of the smallest page, https://www.sqlite.org/fileformat.html
_NUM_ATTEMPTS = 8
_RACE = ("already exists", "unique", "duplicate", "locked", "no such table", "does not exist")


def require_optuna() -> None:
    """Refuse to begin where Optuna is not installed.

    Raises:
        ConfigError: It is an extra of this package.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f"the search needs Optuna, which is not installed ({error.name})",
            where="tune",
            hint="pip install 'submillion[tune]'",
        ) from None
    # Its messages on stderr would appear between our own lines.
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_storage(url: str) -> BaseStorage:
    """Open a storage, and make its tables where it is new.

    Args:
        url: ``sqlite:///FILE``, ``postgresql://...`` (psycopg is the driver), another URL that SQLAlchemy knows and
            has a driver for, or ``journal:FILE``.

    Raises:
        ConfigError: No such kind of storage, or its driver is not installed.
        RunError: It cannot be reached, or is damaged.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if url.startswith(JOURNAL):
        path = Path(url.removeprefix(JOURNAL))
        if not path.name or not path.parent.is_dir():
            raise ConfigError(f"{url!r} names no file in a folder that exists", where="--storage")
        with storage_errors(url):
            return JournalStorage(JournalFileBackend(str(path)))
    if "://" not in url:
        raise ConfigError(f"{url!r} is no storage", where="--storage", hint=f"For example {_EXAMPLES}.")
    for attempt in range(1, _NUM_ATTEMPTS + 1):
        try:
            return _open_tables(url)
        except RunError as error:
            # Two processes that make the tables at once are in each other's way; one has made them soon.
            if attempt == _NUM_ATTEMPTS or not any(word in error.message.lower() for word in _RACE):
                raise
            time.sleep(0.2 * attempt)
    raise AssertionError


def _open_tables(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage, get_storage
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import NullPool

    # A connection for each question: a trial takes long, and what has been idle for hours may be gone.
    options: dict[str, object] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": _SQLITE_WAIT_S}
    try:
        with storage_errors(url):
            _refuse_cut_database(url)
            return get_storage(RDBStorage(choose_driver(url), engine_kwargs=options))
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(
            f"{mask_url(url)!r} is no storage: {error}", where="--storage", hint=f"For example {_EXAMPLES}."
        ) from None
    except RunError:
        raise
    except RuntimeError as error:
        # Optuna's own word for tables of another version.
        raise RunError(f"cannot be used: {error}", where=mask_url(url)) from None
    except ImportError as error:
        raise ConfigError(
            f"no driver for {mask_url(url)!r}: {error}",
            where="--storage",
            hint="Install it: pip install psycopg[binary]",
        ) from None


def _refuse_cut_database(url: str) -> None:
    """Refuse what is left of a database: SQLite takes a file that is shorter than a page for a new one."""
    from sqlalchemy.engine import make_url

    database = make_url(url).database if url.startswith("sqlite") else None
    path = Path((database or "").removeprefix("file:"))
    if path.is_file() and 0 < path.stat().st_size < _SQLITE_PAGE:
        raise RunError(
            f"is damaged: a database has at least {_SQLITE_PAGE} bytes, this file has {path.stat().st_size}",
            where=str(path),
            hint="Restore the file, or move it away to begin the search again.",
        )


@contextmanager
def taking_alone(url: str) -> Iterator[None]:
    """Hold the queue of a study while a trial is taken from it, so that no two processes take the same.

    Optuna locks the row of a trial for that, which SQLite has no means to do; there a file beside the database is
    locked. A lock ends with its process.
    """
    from sqlalchemy.engine import make_url

    database = make_url(url).database if url.startswith("sqlite") else None
    if not database:
        yield
        return
    path = database.removeprefix("file:")  # SQLite's own kind of URL
    with os.fdopen(open_plain(Path(f"{path}.queue"), os.O_RDWR | os.O_CREAT), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def resolve_url(url: str) -> str:
    """Return a storage's URL with an absolute path where it is a journal; others are what they are."""
    if not url.startswith(JOURNAL):
        return url
    return f"{JOURNAL}{Path(url.removeprefix(JOURNAL)).resolve()}"


def choose_driver(url: str) -> str:
    """Return a URL with the driver that this package brings: psycopg, where a PostgreSQL URL names none."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return f"postgresql+psycopg://{url.removeprefix(scheme)}"
    return url


def mask_url(url: str) -> str:
    """Return a storage's URL without its password, for files and messages."""
    if url.startswith(JOURNAL):
        return url
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url.partition("://")[0] + "://..."


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what a storage raises in the block into a `RunError` that names it.

    Raises:
        RunError: The storage cannot be reached, is full or damaged, or of another version of Optuna.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        if isinstance(error, ArgumentError | NoSuchModuleError):
            raise
        cause = error.__cause__ or error
        raise RunError(
            f"the storage fails: {str(cause).strip().splitlines()[0]}",
            where=mask_url(url),
            hint="Is it running, and are its name, user and password right? The same command continues the search.",
        ) from error


@contextmanager
def experimental_allowed() -> Iterator[None]:
    """Keep Optuna from warning of what it calls experimental and this package relies on and tests."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
