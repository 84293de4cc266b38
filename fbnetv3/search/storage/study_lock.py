"""Locks that let only one process coordinate a study.

Two coordinators would propose the same candidates and train them twice. The operating system or the
database server manages the locks, so that a lock ends with its owner, even if the owner is killed.
"""

from __future__ import annotations

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
from typing import Any, ClassVar, Protocol
from weakref import WeakSet, WeakValueDictionary

import filelock
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from fbnetv3.search.errors import SearchError
from fbnetv3.search.storage.database import with_driver

_log = logging.getLogger(__name__)
_RETRY_S, _PAUSE_S = 60.0, 0.5
"""Seconds for which an unreachable server is retried, and seconds between two attempts."""
_NAME_BYTES = 63
"""Maximum length of PostgreSQL's application_name, in bytes."""
_WAIT = "wait for it to end, or choose another storage"


class StudyLock(Protocol):
    """The right to coordinate a study; several searches of one process may share the lock."""

    def acquire(self) -> None:
        """Takes the lock, or checks that it is still held; fast enough to be called for each trial.

        Raises:
            SearchError: Another process holds the lock (the message names it), or the lock file
                cannot be used.
            OperationalError: The database server has not answered for a minute.
        """

    def release(self) -> None:
        """Releases the lock if it is held."""


def study_lock(url: str, study: str) -> StudyLock:
    """Returns the lock of a study in an Optuna storage, without acquiring it.

    For SQLite, a lock file next to the database locks all studies of the database. For PostgreSQL,
    each study has an advisory lock in the database. For SQLite in memory and for other databases,
    the returned lock has no effect.

    Args:
        url: URL of the storage.
        study: Name of the study.
    """
    parsed = with_driver(url)
    make = _LOCKS.get(parsed.get_backend_name())
    return _NoLock() if make is None else make(parsed, study)


def process_name() -> str:
    """Returns the name by which the messages of other processes refer to this process."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class _NoLock:
    """A lock without effect, for databases in memory and unsupported databases."""

    def acquire(self) -> None:
        return

    def release(self) -> None:
        return


class FileLock:
    """A locked file that contains the name of its owner; the file is not deleted on release.

    Args:
        path: Path of the file.
        in_use: Function from the name of the owner to the message of the error that is raised if
            another process has locked the file.
    """

    def __init__(self, path: Path, in_use: Callable[[str], str]) -> None:
        self._path, self._in_use = path, in_use
        # On file systems without flock, filelock would fall back to a soft lock, which remains
        # when its owner is killed.
        self._lock = filelock.FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> None:
        if self._lock.is_locked:
            return
        try:
            self._lock.acquire()
            self._path.write_text(process_name(), encoding="utf-8")
        except filelock.Timeout as error:
            raise SearchError(self._in_use(self._owner())) from error
        except OSError as error:
            self.release()
            raise SearchError(
                f"cannot lock the search: its lock file {self._path} cannot be used "
                f"({error.strerror}); choose a folder that can be written"
            ) from error

    def _owner(self) -> str:
        """Returns the name that the owner of the lock has written into the file.

        The owner writes it right after locking the file. If there is none within a second, the
        name is "another process".
        """
        for _ in range(20):
            owner = self._path.read_text(encoding="utf-8", errors="replace").strip()
            if owner:
                return owner[:200]
            time.sleep(0.05)
        return "another process"

    def release(self) -> None:
        self._lock.release()


class LockHolders:
    """A lock of this process, and the searches in this process that share it."""

    def __init__(self, lock: StudyLock) -> None:
        self.lock = lock
        self.searches: WeakSet[_SharedLock] = WeakSet()


class _SharedLock:
    """A lock that the searches of one process hold together; the last holder releases it.

    A process finds the locks that it holds in the table ``_holders``. It does not recognise them by
    the owner's name, since processes in two containers may have the same pid and host name.

    Args:
        key: Key of the lock, the same for all searches that share it.
        make: Function that makes the lock; called if no search of this process holds it.
    """

    _holders: ClassVar[WeakValueDictionary[tuple[Any, ...], LockHolders]] = WeakValueDictionary()
    _mutex: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, key: tuple[str, ...], make: Callable[[], StudyLock]) -> None:
        self._key, self._make = key, make
        self._held: LockHolders | None = None

    def acquire(self) -> None:
        with self._mutex:
            holders = self._held or self._shared()
            holders.lock.acquire()
            holders.searches.add(self)
            self._held = holders

    def _shared(self) -> LockHolders:
        key = (os.getpid(), *self._key)  # A forked process does not hold its parent's locks.
        holders = self._holders.get(key)
        if holders is None:
            holders = self._holders[key] = LockHolders(self._make())
        return holders

    def release(self) -> None:
        with self._mutex:
            holders, self._held = self._held, None
            if holders is None:
                return
            holders.searches.discard(self)
            if not holders.searches:
                holders.lock.release()


def _sqlite_lock(url: URL, study: str) -> StudyLock:
    if not url.database or url.database == ":memory:":
        return _NoLock()
    path = Path(url.database).resolve()

    def in_use(owner: str) -> str:
        return f"{path} is in use by {owner}; {_WAIT}"

    lock_file = path.with_name(f".{path.name}.lock")
    return _SharedLock(("sqlite", str(path)), lambda: FileLock(lock_file, in_use))


def _postgres_lock(url: URL, study: str) -> StudyLock:
    key = ("postgresql", url.render_as_string(hide_password=False), study)
    return _SharedLock(key, lambda: PostgresLock(url, study))


class PostgresLock:
    """An advisory lock of a database session; the server frees it when the connection ends.

    The application_name of the session is the owner's name and a random token. The token
    distinguishes this owner from another process with the same pid and host name, such as one in a
    container. If the owner's machine becomes unreachable, the server notices within two minutes.

    Args:
        url: URL of the database.
        study: Name of the study.
    """

    _KEEPALIVE = {"tcp_keepalives_idle": 60, "tcp_keepalives_interval": 15,
                  "tcp_keepalives_count": 4}  # fmt: skip

    def __init__(self, url: URL, study: str) -> None:
        self._url, self._study = url, study
        self._engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        digest = hashlib.blake2b(f"fbnetv3 {study}".encode(), digest_size=8).digest()
        # PostgreSQL identifies the lock by two signed 32-bit numbers.
        self._key = dict(zip(("a", "b"), struct.unpack(">ii", digest), strict=True))
        self._connection: Connection | None = None
        self._token = secrets.token_hex(4)

    def acquire(self) -> None:
        """Takes the lock; retries for a minute if the server does not give it yet.

        That is the case while the server does not answer, and right after it has terminated an
        earlier session of this object.

        Raises:
            SearchError: Another process holds the lock.
            OperationalError: The server has not answered for a minute.
        """
        if self._is_alive():
            return
        deadline, has_warned = time.monotonic() + _RETRY_S, False
        while not self._try(is_last=time.monotonic() >= deadline):
            if not has_warned:
                name = self._url.render_as_string(hide_password=True)
                _log.warning(
                    "cannot lock the study yet: %s does not answer, or has just ended a lost "
                    "session of this process; retrying for up to %g s",
                    name,
                    _RETRY_S,
                )
            has_warned = True
            time.sleep(_PAUSE_S)

    def _try(self, *, is_last: bool) -> bool:
        """Tries to take the lock; returns whether it did.

        Raises:
            SearchError: Another process holds the lock.
            OperationalError: The server does not answer, and this is the last attempt.
        """
        try:
            connection = self._engine.connect()
            try:
                self._lock_with(connection)
            finally:
                if self._connection is not connection:
                    connection.close()
        except OperationalError:
            if is_last:
                raise
        return self._connection is not None

    def _lock_with(self, connection: Connection) -> None:
        """Takes the lock with a session.

        If the lock belongs to an earlier session of this object, whose connection was lost, that
        session is terminated instead.

        Raises:
            SearchError: A session of another process holds the lock.
        """
        # A space and the token need 9 bytes.
        name = f"{process_name()[: _NAME_BYTES - 9]} {self._token}"
        for key, value in {"application_name": name, **self._KEEPALIVE}.items():
            connection.execute(
                text("SELECT set_config(:key, :value, false)"), {"key": key, "value": str(value)}
            )
        result = connection.execute(text("SELECT pg_try_advisory_lock(:a, :b)"), self._key)
        if result.scalar_one():
            self._connection = connection
            return
        owner, session = self._owner(connection)
        if owner == name:  # for example, after a network failure that the server has not noticed
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": session})
            return
        where = f"study {self._study!r} of {self._url.render_as_string(hide_password=True)}"
        raise SearchError(f"{where} is in use by {owner}; {_WAIT} or study")

    def _owner(self, connection: Connection) -> tuple[str, int]:
        """Returns the name and the process id of the session that holds the lock."""
        row = connection.execute(
            text(
                "SELECT application_name, pid FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE locktype = 'advisory' AND granted "
                "AND CAST(classid AS bigint) = :a AND CAST(objid AS bigint) = :b "
                "AND pg_locks.database = (SELECT oid FROM pg_database "
                "WHERE datname = current_database())"
            ),
            {name: key % 2**32 for name, key in self._key.items()},  # pg_locks shows them unsigned
        ).first()
        return ("another process", 0) if row is None else (str(row[0]), int(row[1]))

    def _is_alive(self) -> bool:
        """Returns whether the session that holds the lock still exists."""
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:  # After a restart of the server, another process may hold the lock.
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
