"""One process coordinates a study: two would propose the same candidates and train them twice.

The lock is the operating system's or the database's own, so that it ends with its owner, however
that ends: no lock is left behind by a kill.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from fbnetv3.search.errors import SearchError

_ADVICE = "wait for it, or choose another storage or study"


class StudyLock(Protocol):
    """The right to coordinate a study; several searches of one process share it."""

    def hold(self) -> None:
        """Takes the lock, or makes sure that it is still held; cheap enough for every trial.

        Raises:
            SearchError: another process has it; the message names that.
        """

    def release(self) -> None:
        """Gives it back, if it is held."""


def study_lock(url: str, study: str) -> StudyLock:
    """Returns the lock of a study in an Optuna storage, not taken yet.

    Args:
        url: of the storage: SQLite's is a file beside the database, PostgreSQL's an advisory
            lock in it; other databases have none.
        study: its name.
    """
    parsed = with_driver(url)
    make = _LOCKS.get(parsed.get_backend_name())
    return _NoLock() if make is None else make(parsed, study)


def with_driver(url: str) -> URL:
    """Returns a parsed URL with the driver that the extra ``postgres`` brings.

    What SQLAlchemy takes where none is named differs between its versions.
    """
    parsed = make_url(url)
    is_open = parsed.drivername == "postgresql"
    return parsed.set(drivername="postgresql+psycopg") if is_open else parsed


def owner_here() -> str:
    """Returns how this process is named to others."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class _NoLock:
    """For databases in memory, and those whose locks are not known."""

    def hold(self) -> None:
        return

    def release(self) -> None:
        return


class FileLock:
    """A lock by flock(2) on a file that names its owner.

    Args:
        path: of the file; it stays when the lock is given back.
        refusal: what a second process is told, of the owner's name.
    """

    def __init__(self, path: Path, refusal: Callable[[str], str]) -> None:
        self._path, self._refusal = path, refusal
        self._file: IO[str] | None = None

    def hold(self) -> None:
        if self._file is not None:
            return
        try:
            file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise SearchError(
                f"{self._path} can't be written ({error.strerror}): a search keeps its lock there; "
                "choose a folder that can be written"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise SearchError(self._refusal(owner)) from error
        file.truncate(0)
        file.write(owner_here())
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _SharedFileLock:
    """A FileLock that a second search of the same process takes for its own."""

    def __init__(self, path: Path, refusal: Callable[[str], str]) -> None:
        self._lock = FileLock(path, refusal)
        self._path = path

    def hold(self) -> None:
        try:
            self._lock.hold()
        except SearchError:
            if self._path.read_text(encoding="utf-8") != owner_here():
                raise

    def release(self) -> None:
        self._lock.release()


def _sqlite_lock(url: URL, study: str) -> StudyLock:
    if not url.database or url.database == ":memory:":
        return _NoLock()
    path = Path(url.database)
    return _SharedFileLock(
        path.with_name(f".{path.name}.lock"),
        lambda owner: f"{path} is in use by {owner}; {_ADVICE}",
    )


class PostgresLock:
    """A session's advisory lock; the server frees it when the connection ends.

    The connection's application_name names the owner. A machine that vanishes without a word is
    noticed by the server within two minutes.

    Args:
        url: of the database.
        study: whose lock it is.
    """

    _KEEPALIVE = {"tcp_keepalives_idle": 60, "tcp_keepalives_interval": 15,
                  "tcp_keepalives_count": 4}  # fmt: skip

    def __init__(self, url: URL, study: str) -> None:
        self._url, self._study = url, study
        self._engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        digest = hashlib.blake2b(f"fbnetv3 {study}".encode(), digest_size=8).digest()
        self._key = dict(zip(("a", "b"), struct.unpack(">ii", digest), strict=True))
        self._connection: Connection | None = None
        self._shares = False

    def hold(self) -> None:
        if self._shares or self._is_alive():
            return
        connection = self._engine.connect()
        try:
            self._take(connection)
        except BaseException:
            connection.close()
            raise

    def _take(self, connection: Connection) -> None:
        for name, value in {"application_name": owner_here(), **self._KEEPALIVE}.items():
            connection.execute(
                text("SELECT set_config(:name, :value, false)"),
                {"name": name, "value": str(value)[:63]},
            )
        found = connection.execute(text("SELECT pg_try_advisory_lock(:a, :b)"), self._key)
        if found.scalar_one():
            self._connection = connection
            return
        owner = self._owner(connection)
        if owner != owner_here()[:63]:
            where = self._url.render_as_string(hide_password=True)
            raise SearchError(f"study {self._study!r} of {where} is in use by {owner}; {_ADVICE}")
        connection.close()
        self._shares = True

    def _owner(self, connection: Connection) -> str:
        found = connection.execute(
            text(
                "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE locktype = 'advisory' AND granted "
                "AND CAST(classid AS bigint) = :a AND CAST(objid AS bigint) = :b "
                "AND pg_locks.database = (SELECT oid FROM pg_database "
                "WHERE datname = current_database())"
            ),
            {name: key % 2**32 for name, key in self._key.items()},  # shown without a sign there
        )
        return str(found.scalar() or "another process")

    def _is_alive(self) -> bool:
        """Tells whether the session that has the lock is still there."""
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:  # the server was restarted, say: the lock may be another's by now
            self._connection.invalidate()
            self.release()
            return False
        return True

    def release(self) -> None:
        self._shares = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_LOCKS: dict[str, Callable[[URL, str], Any]] = {
    "sqlite": _sqlite_lock,
    "postgresql": PostgresLock,
}
