"""The database behind an Optuna URL: how it is opened, and what is asked of it before that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from fbnetv3.errors import first_line
from fbnetv3.search.errors import SearchError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_BUSY_S = 120.0
"""Patience with a SQLite file that another program has locked."""
_MEMORY = ":memory:"


def with_driver(url: str) -> URL:
    """Returns a parsed URL with the driver that the extra ``postgres`` brings.

    What SQLAlchemy takes where none is named differs between its versions.
    """
    parsed = make_url(url)
    is_open = parsed.drivername == "postgresql"
    return parsed.set(drivername="postgresql+psycopg") if is_open else parsed


def without_password(url: str) -> str:
    """Returns a URL as it may be printed."""
    try:
        parsed = make_url(url)
    except ArgumentError:  # no URL: nothing to hide
        return url
    # else as it is: a URL that is written anew has other signs in the names of files
    return parsed.render_as_string(hide_password=True) if parsed.password else url


def sqlite_file(url: str) -> str | None:
    """Returns the file of a plain SQLite URL, "" for none; None: it is of another database.

    Where a query follows, it may say that another file is meant.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:  # no URL: no database at all
        return ""
    if parsed.drivername != "sqlite" or parsed.query or parsed.host:
        return None
    return "" if parsed.database in (None, _MEMORY) else parsed.database


def open_storage(url: str) -> RDBStorage:
    """Opens a storage that waits for a busy database and outlives a restart of it.

    Where the database has none of Optuna's tables, they are made.
    """
    from optuna.storages import RDBStorage

    parsed = with_driver(url)
    is_same = parsed == make_url(url)
    given = url if is_same else parsed.render_as_string(hide_password=False)
    return RDBStorage(given, engine_kwargs=_engine_arguments(url))


def _engine_arguments(url: str) -> dict[str, Any]:
    if make_url(url).get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _BUSY_S}}
    return {"pool_pre_ping": True}


def require_study(url: str, study: str) -> None:
    """Checks that a storage holds a study, before it is opened to read that: nothing is written.

    Args:
        url: of the storage.
        study: its name.

    Raises:
        SearchError: it does not, or it can't be read.
    """
    where = without_password(url)
    try:
        found = _has_study(url, study)
    except Exception as error:  # database drivers raise all kinds
        raise SearchError(f"storage {where!r} can't be read: {first_line(error)}") from error
    if not found:
        raise SearchError(
            f"storage {where!r} holds no study {study!r}, so there is nothing to report or to "
            "evolve from; give the one that the search was run with, as argument: SEARCH.STORAGE "
            "URL"
        )


def _has_study(url: str, study: str) -> bool:
    parsed = with_driver(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        return False  # to connect would make the file
    engine = create_engine(parsed, poolclass=NullPool, **_engine_arguments(url))
    with engine.connect() as connection:
        if not inspect(connection).has_table("studies"):
            return False
        query = text("SELECT 1 FROM studies WHERE study_name = :study")
        return connection.execute(query, {"study": study}).first() is not None
