"""One process coordinates a study: two would propose the same candidates and train them twice.

The lock is the operating system's or the database's own, so that it ends with its owner, however
that ends: no lock is left behind by a kill.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol
from weakref import WeakSet, WeakValueDictionary

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from fbnetv3.search.errors import SearchError
from fbnetv3.search.storage.database import with_driver

_log = logging.getLogger(__name__)
_PATIENCE_S, _PAUSE_S = 60.0, 0.5
"""With a server that does not answer, as one that is restarted."""
_NAME_BYTES = 63
"""Of an application_name."""
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


class _Grip:
    """A lock of this process, and the searches of it that hold it."""

    def __init__(self, lock: StudyLock) -> None:
        self.lock = lock
        self.holders: WeakSet[_SharedLock] = WeakSet()


class _SharedLock:
    """A lock that searches of one process hold together; the last of them gives it back.

    What others write of themselves tells nothing: in two containers, processes may have the same
    number and host name.

    Args:
        key: of the lock.
        make: makes it, where no search of this process has it.
    """

    _grips: ClassVar[WeakValueDictionary[tuple[Any, ...], _Grip]] = WeakValueDictionary()
    _turn: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, key: tuple[str, ...], make: Callable[[], StudyLock]) -> None:
        self._key, self._make = key, make
        self._grip: _Grip | None = None

    def hold(self) -> None:
        with self._turn:
            grip = self._grip or self._found()
            grip.lock.hold()
            grip.holders.add(self)
            self._grip = grip

    def _found(self) -> _Grip:
        key = (os.getpid(), *self._key)  # a process that was forked has not its parent's locks
        return self._grips.setdefault(key, _Grip(self._make()))

    def release(self) -> None:
        with self._turn:
            grip, self._grip = self._grip, None
            if grip is None:
                return
            grip.holders.discard(self)
            if not grip.holders:
                grip.lock.release()


def _sqlite_lock(url: URL, study: str) -> StudyLock:
    if not url.database or url.database == ":memory:":
        return _NoLock()
    path = Path(url.database).resolve()

    def refusal(owner: str) -> str:
        return f"{path} is in use by {owner}; {_ADVICE}"

    kept = path.with_name(f".{path.name}.lock")
    return _SharedLock(("sqlite", str(path)), lambda: FileLock(kept, refusal))


def _postgres_lock(url: URL, study: str) -> StudyLock:
    key = ("postgresql", url.render_as_string(hide_password=False), study)
    return _SharedLock(key, lambda: PostgresLock(url, study))


class PostgresLock:
    """A session's advisory lock; the server frees it when the connection ends.

    The connection's application_name names the owner, and tells the lock's own sessions from those
    of a process of the same number and host name. A machine that vanishes without a word is
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
        self._token = secrets.token_hex(4)

    def hold(self) -> None:
        """Takes the lock; a server that is restarted is waited for.

        Raises:
            SearchError: another process has it.
            OperationalError: the server does not answer for a minute.
        """
        if self._is_alive():
            return
        end, is_told = time.monotonic() + _PATIENCE_S, False
        while not self._try(is_last=time.monotonic() >= end):
            if not is_told:
                where = self._url.render_as_string(hide_password=True)
                _log.warning("%s does not answer; waiting up to %g s", where, _PATIENCE_S)
            is_told = True
            time.sleep(_PAUSE_S)

    def _try(self, *, is_last: bool) -> bool:
        """Takes the lock; False where the server does not answer, which the last time is raised."""
        try:
            connection = self._engine.connect()
            try:
                self._take(connection)
            finally:
                if self._connection is not connection:
                    connection.close()
        except OperationalError:
            if is_last:
                raise
        return self._connection is not None

    def _take(self, connection: Connection) -> None:
        """Takes the lock, if only a session has it that this lock has lost: once that is ended."""
        name = f"{owner_here()[: _NAME_BYTES - 9]} {self._token}"
        for key, value in {"application_name": name, **self._KEEPALIVE}.items():
            connection.execute(
                text("SELECT set_config(:key, :value, false)"), {"key": key, "value": str(value)}
            )
        found = connection.execute(text("SELECT pg_try_advisory_lock(:a, :b)"), self._key)
        if found.scalar_one():
            self._connection = connection
            return
        owner, session = self._owner(connection)
        if owner == name:  # the network was gone, say, and the server has not noticed
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": session})
            return
        where = self._url.render_as_string(hide_password=True)
        raise SearchError(f"study {self._study!r} of {where} is in use by {owner}; {_ADVICE}")

    def _owner(self, connection: Connection) -> tuple[str, int]:
        """Returns the name and the number of the session that has the lock."""
        found = connection.execute(
            text(
                "SELECT application_name, pid FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE locktype = 'advisory' AND granted "
                "AND CAST(classid AS bigint) = :a AND CAST(objid AS bigint) = :b "
                "AND pg_locks.database = (SELECT oid FROM pg_database "
                "WHERE datname = current_database())"
            ),
            {name: key % 2**32 for name, key in self._key.items()},  # shown without a sign there
        ).first()
        return ("another process", 0) if found is None else (str(found[0]), int(found[1]))

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
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_LOCKS: dict[str, Callable[[URL, str], Any]] = {
    "sqlite": _sqlite_lock,
    "postgresql": _postgres_lock,
}
