"""Checks and opens the database behind an Optuna URL."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, inspect
from sqlalchemy import text as sql
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from fbnetv3.errors import FBNetError, first_line
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short
from fbnetv3.search.storage.guard import (
    TIMEOUT_S,
    GuardedConnection,
    check_sqlite,
    private_copy,
    sqlite_path,
)

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_MEMORY = ":memory:"
_NEW_S = 30.0
"""Seconds after the last change of a file during which another process may be creating tables."""


def with_driver(url: str) -> URL:
    """Returns a parsed URL; psycopg becomes the driver of a PostgreSQL URL without a driver.

    The extra ``postgres`` installs psycopg. SQLAlchemy's own default differs between its versions.
    """
    parsed = make_url(url)
    has_default_driver = parsed.drivername == "postgresql"
    return parsed.set(drivername="postgresql+psycopg") if has_default_driver else parsed


def sqlite_url(path: str | os.PathLike[str]) -> str:
    """Returns the URL of a SQLite file; special characters of its path are escaped.

    Raises:
        SearchError: A URL cannot express the path; see :func:`url_text`.
    """
    return url_text(URL.create("sqlite", database=os.fspath(path)))


def url_text(url: str | URL) -> str:
    """Returns a URL as a string that :func:`sqlalchemy.engine.make_url` parses to the same URL.

    Raises:
        SearchError: The URL is empty or of another type, or a string cannot express it: before
            SQLAlchemy 2.1, the name of a database cannot contain a question mark.
    """
    if isinstance(url, str) and url:
        return url
    if not isinstance(url, URL):
        raise SearchError(
            f"storage={short(url)} is not allowed; allowed: a URL such as sqlite:///search.db"
        )
    text = url.render_as_string(hide_password=False)
    if make_url(text) != url:
        raise SearchError(
            f"the storage {short(url.database)} has characters in its path that a URL cannot "
            "express; rename the folder, or install SQLAlchemy 2.1 or later"
        )
    return text


def without_password(url: str) -> str:
    """Returns a URL with its password masked, for messages."""
    try:
        parsed = make_url(url)
    except ArgumentError:  # not a URL, so there is no password in it
        return url
    # A URL without a password is not changed: rendering would escape characters of file names.
    return parsed.render_as_string(hide_password=True) if parsed.password else url


def sqlite_file(url: str) -> str | None:
    """Returns the file of a plain SQLite URL.

    Returns:
        The path. "" for a database in memory, and for a string that is not a URL. None for any
        other database, and for a SQLite URL with a driver, query or host, which may refer to
        another file.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        return ""
    if parsed.drivername != "sqlite" or parsed.query or parsed.host:
        return None
    return "" if parsed.database in (None, _MEMORY) else parsed.database


def open_storage(url: str) -> RDBStorage:
    """Opens a storage that waits for a locked SQLite file and reconnects to a restarted server.

    Optuna's tables are created if the database lacks them.

    Raises:
        SearchError: The URL refers to a SQLite file that cannot be read, or that no search of this
            project can have written; see ``guard.py``.
    """
    from optuna.storages import RDBStorage

    parsed = with_driver(url)
    path = sqlite_path(parsed)
    if path is not None:
        check_sqlite(path)
    is_same = parsed == make_url(url)
    storage_url = url if is_same else parsed.render_as_string(hide_password=False)
    # Optuna fills in {SCHEMA_VERSION}; other braces are part of a path.
    if "{SCHEMA_VERSION}" not in storage_url:
        storage_url = storage_url.replace("{", "{{").replace("}", "}}")
    return RDBStorage(storage_url, engine_kwargs=_engine_arguments(url))


def _engine_arguments(url: str) -> dict[str, Any]:
    if make_url(url).get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": TIMEOUT_S, "factory": GuardedConnection}}
    return {"pool_pre_ping": True}


@contextmanager
def snapshot(url: str) -> Iterator[str]:
    """Yields the URL of a private copy of a SQLite file.

    The given URL is yielded if the file is missing, and for any other storage.

    Raises:
        SearchError: The file cannot be read or is too large, or no search of this project can have
            written it.
    """
    path = sqlite_path(with_driver(url))
    if path is None or not path.exists():
        yield url
        return
    with private_copy(path) as copy:
        yield sqlite_url(copy)


def require_study(url: str, study: str) -> None:
    """Checks that a storage holds a study, without writing to it.

    Args:
        url: URL of the storage.
        study: Name of the study.

    Raises:
        SearchError: The storage cannot be read, or it does not hold the study.
    """
    purpose = "to report on or to evolve from"
    advice = "pass the storage of the search on the command line: SEARCH.STORAGE URL"
    with stored_study(url, study, f"{purpose}; {advice}"):
        return


@contextmanager
def stored_study(url: str, study: str, advice: str) -> Iterator[str]:
    """Yields the URL of a storage that holds a study, without writing to the storage.

    A SQLite file, which may be untrusted, is copied; the URL is that of the private copy.

    Args:
        url: URL of the storage.
        study: Name of the study.
        advice: End of the message about a missing study, after "holds no study NAME".

    Raises:
        SearchError: The storage cannot be read, or it does not hold the study.
    """
    name = without_password(url)
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(snapshot(url))
            has_study = _has_study(copy, study)
        except FBNetError:
            raise
        except Exception as error:  # database drivers may raise anything
            raise SearchError(f"cannot read storage {name!r}: {first_line(error)}") from error
        if not has_study:
            raise SearchError(f"storage {name!r} holds no study {study!r} {advice}")
        yield copy


def is_new_database(url: str) -> bool:
    """Returns whether a database is missing, or another process may be creating it right now.

    A database of a server is missing if it lacks Optuna's tables. A SQLite file is judged by its
    size and age alone, because opening it may not be safe.
    """
    path = _sqlite_path(url)
    if path is None:
        return not _may_have_studies(url)
    if is_missing(url):
        return True
    try:
        return time.time() - path.stat().st_mtime < _NEW_S
    except OSError:
        return False


def is_missing(url: str) -> bool:
    """Returns whether a URL's SQLite file is missing, empty or inaccessible; False for a server."""
    path = _sqlite_path(url)
    try:
        return path is not None and (not path.exists() or not path.stat().st_size)
    except OSError:
        return True


def _sqlite_path(url: str) -> Path | None:
    """Returns the file of a SQLite URL; None for other databases.

    An invalid URL has the path ".", a database in memory the path of no file, ":memory:".
    """
    try:
        parsed = with_driver(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
    except Exception:  # opening the URL will report the error
        return Path("")
    return (sqlite_path(parsed) or Path(_MEMORY)) if is_sqlite else None


def _may_have_studies(url: str) -> bool:
    """Returns whether a server has Optuna's tables, or cannot be read."""
    try:
        return _has_study(url, None)
    except Exception:  # drivers may raise anything; opening the database will report it
        return True


def _has_study(url: str, study: str | None) -> bool:
    """Returns whether a database has a study; None: whether it has Optuna's tables."""
    parsed = with_driver(url)
    path = _sqlite_path(url)
    if path is not None and not path.is_file():
        return False  # Connecting would create the file.
    engine = create_engine(parsed, poolclass=NullPool, **_engine_arguments(url))
    with engine.connect() as connection:
        if not inspect(connection).has_table("studies"):
            return False
        if study is None:
            return True
        query = sql("SELECT 1 FROM studies WHERE study_name = :study")
        return connection.execute(query, {"study": study}).first() is not None
