"""Checks of untrusted SQLite files before and after they are opened.

SQLite trusts the files next to a database. It rolls a journal left by a crash back into the
database. If the journal contains the name of a super-journal, SQLite deletes the file of that name,
which may be any file that the user may delete. Views, triggers and expressions of a schema run when
a table is read or written. The searches of this project write plain tables, and journals without
the name of a super-journal, so everything else is refused here. A search killed in the middle of a
commit leaves a plain journal, which is accepted.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import URL

from fbnetv3.errors import first_line
from fbnetv3.io import MAX_BYTES, open_regular
from fbnetv3.search.errors import SearchError

TIMEOUT_S = 120.0
"""Seconds to wait for a file that another program has locked."""
_STATEMENT_S = 120.0
"""Seconds that a statement may take, since a damaged file can yield endless rows."""
_STEPS = 100_000
"""Steps of SQLite's virtual machine between two checks of the time limit."""
_SQLITE_DONE = 101
"""SQLite's status of a finished backup."""
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
"""Last bytes of a journal that contains the name of a super-journal."""
_TABLES = frozenset(
    (
        *("studies", "study_directions", "study_user_attributes", "study_system_attributes"),
        *("trials", "trial_user_attributes", "trial_system_attributes", "trial_params"),
        *("trial_values", "trial_intermediate_values", "trial_heartbeats", "version_info"),
        *("alembic_version", "sqlite_sequence", "sqlite_stat1"),
    )
)
"""Tables of Optuna, of its migrations, and of SQLite itself."""
_LITERAL = r"(?:'\w*'|-?\d+|NULL)"
_PLAIN_PART = re.compile(
    rf"CHECK *\( *\w+ *(?:= *{_LITERAL}|IN *\( *{_LITERAL}(?: *, *{_LITERAL})* *\)) *\)"
    rf"|DEFAULT *(?:{_LITERAL}|\( *{_LITERAL} *\))",
    re.IGNORECASE,
)
_PLAIN_TABLE = re.compile(
    r"CREATE TABLE \w+ *\((?:(?!\b(?:AS|CHECK|DEFAULT|GENERATED|COLLATE|SELECT)\b)[\w\s,()])*\)",
    re.IGNORECASE,
)
_PLAIN_INDEX = re.compile(
    r"CREATE (?:UNIQUE )?INDEX \w+ ON \w+ *\( *\w+(?: *, *\w+)* *\)", re.IGNORECASE
)
_ADVICE = "use the storage of a search of this project"


class _Cursor(sqlite3.Cursor):
    """A cursor whose statements each have the whole time limit."""

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:
        self._start_clock()
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> _Cursor:
        self._start_clock()
        return super().executemany(sql, parameters)

    def _start_clock(self) -> None:
        assert isinstance(self.connection, GuardedConnection)
        self.connection.start_clock()


class GuardedConnection(sqlite3.Connection):
    """A connection that does not trust its file, and whose statements have a time limit."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline = 0.0
        self.start_clock()
        self.set_progress_handler(self._is_late, _STEPS)
        # Functions with side effects cannot be called from the schema; damaged pages are errors.
        self.execute("PRAGMA trusted_schema = OFF")
        self.execute("PRAGMA cell_size_check = ON")

    def start_clock(self) -> None:
        """Gives the next statement the whole time limit."""
        self._deadline = time.monotonic() + _STATEMENT_S

    def _is_late(self) -> int:
        return int(time.monotonic() > self._deadline)

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


def sqlite_path(url: URL) -> Path | None:
    """Returns the file of a SQLite URL; None for a database in memory or on a server."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:":
        return None
    if not name.startswith("file:"):
        return Path(name)
    path = unquote(urlsplit(name).path)
    return Path(path) if path and path != ":memory:" else None


def check_sqlite(path: Path) -> None:
    """Checks a SQLite file that will be opened for reading and writing.

    A file that does not exist yet, or is empty, is accepted.

    Args:
        path: Path of the file.

    Raises:
        SearchError: The file cannot be read, or no search of this project can have written it or a
            file next to it.
    """
    path = path.resolve()
    size = _check_files(path)
    if size:
        with _errors(path), closing(_connect(path, "rw")) as connection:
            _check_content(connection, path)


@contextmanager
def private_copy(path: Path) -> Iterator[Path]:
    """Yields a checked copy of a SQLite file, which is deleted afterwards.

    The file may be in use by a running search. A journal of a search that was killed is rolled back
    in the copy; the file itself and those next to it are not changed.

    Args:
        path: Path of the file.

    Raises:
        SearchError: The file cannot be read or is too large, or no search of this project can have
            written it or a file next to it.
    """
    path = path.resolve()
    with tempfile.TemporaryDirectory(prefix="fbnetv3-") as folder:
        copy = Path(folder) / "copy.db"
        size = _check_files(path)
        if size > MAX_BYTES["storage"]:
            raise SearchError(f"{path} has {size} bytes; allowed: {MAX_BYTES['storage']}")
        with _errors(path):
            _refuse_wal(path)
            try:
                _back_up(path, copy)
            except sqlite3.OperationalError:
                if not _journal(path).exists():
                    raise
                _copy_with_journal(path, copy)
            with closing(_connect(copy, "rw")) as connection:
                _check_content(connection, path)
        yield copy


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the file system into a SearchError with the file's path."""
    try:
        yield
    # ValueError: SQLite's message quotes a damaged schema that is not valid UTF-8.
    except (sqlite3.Error, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SearchError(f"cannot read storage {path}: {reason}; {_ADVICE}") from error


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S, factory=GuardedConnection)


def _check_files(path: Path) -> int:
    """Checks a database and the files next to it, without opening the database.

    The names and kinds of the files and the end of the journal are checked.

    Returns:
        The size of the database in bytes; 0 if it does not exist.

    Raises:
        SearchError: A file cannot be read, or no search of this project can have written it.
    """
    size = _regular_size(path)
    for suffix in ("-wal", "-shm"):
        if os.path.lexists(f"{path}{suffix}"):
            raise _wal_error(path)
    journal = _journal(path)
    if _regular_size(journal, one_name=True) and _names_super_journal(journal):
        raise SearchError(
            f"{journal} names another file, which SQLite would delete; no search of this project "
            "writes such a journal. The folder may be an attack: delete it"
        )
    return size


def _wal_error(path: Path) -> SearchError:
    return SearchError(
        f"{path} is in SQLite's WAL mode, in which this project does not write; if it is your own, "
        f"close the programs that use it and run: sqlite3 {path.name} 'PRAGMA journal_mode=DELETE'"
    )


def _regular_size(path: Path, one_name: bool = False) -> int:
    """Returns the size of a file in bytes, 0 if it does not exist.

    Args:
        path: Path of the file.
        one_name: Whether a file with further names (hard links) is refused.

    Raises:
        SearchError: The path is a symbolic link, a folder, a pipe or a device; the file has further
            names that are refused; or its status cannot be read.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise SearchError(f"cannot read {path}: {error.strerror}; {_ADVICE}") from error
    if not stat.S_ISREG(status.st_mode) or (one_name and status.st_nlink > 1):
        raise SearchError(f"{path} is not a regular file, or has further hard links; {_ADVICE}")
    return status.st_size


def _names_super_journal(journal: Path) -> bool:
    """Returns whether SQLite would read the name of another file from the end of a journal.

    The end is the name, its length (4 bytes), its checksum (4 bytes) and a magic number (8 bytes).
    Only the magic number is checked.

    Raises:
        SearchError: The journal cannot be read.
    """
    try:
        with open_regular(journal, MAX_BYTES["storage"]) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - len(_JOURNAL_MAGIC)))
            return file.read() == _JOURNAL_MAGIC
    except FileNotFoundError:  # another process has committed meanwhile
        return False
    except OSError as error:
        reason = error.strerror or str(error)
        raise SearchError(f"cannot read {journal}: {reason}; {_ADVICE}") from error


def _refuse_wal(path: Path) -> None:
    """Refuses a file in WAL mode, since even reading it would create files next to it.

    Raises:
        SearchError: The file is in WAL mode.
        OSError: The file cannot be read.
    """
    with open_regular(path, MAX_BYTES["storage"]) as file:
        # Bytes 18 and 19 are the versions for writing and reading: 1 for a journal, 2 for WAL.
        if file.read(20)[18:] not in (b"", b"\1\1"):
            raise _wal_error(path)


def _back_up(path: Path, copy: Path) -> None:
    """Copies a database that may be in use; raises sqlite3.Error if it cannot be read."""
    deadline = time.monotonic() + TIMEOUT_S

    def stop_late(status: int, remaining: int, total: int) -> None:
        if status != _SQLITE_DONE and time.monotonic() > deadline:
            raise sqlite3.DatabaseError("another program has locked it")

    with closing(_connect(path, "ro")) as source, closing(sqlite3.connect(copy)) as target:
        source.execute("SELECT 1 FROM sqlite_master").fetchone()
        source.backup(target, progress=stop_late)


def _copy_with_journal(path: Path, copy: Path) -> None:
    """Copies a database and the journal that a killed process left next to it."""
    copy.unlink(missing_ok=True)
    for source, target in ((path, copy), (_journal(path), _journal(copy))):
        with open_regular(source, MAX_BYTES["storage"]) as file, target.open("xb") as out:
            while block := file.read(1 << 20):
                out.write(block)
    _check_files(copy)  # the journal may have been replaced since it was checked


def _check_content(connection: sqlite3.Connection, path: Path) -> None:
    """Checks the schema of an open database, then its pages.

    Raises:
        SearchError: The schema has more than plain tables and indexes of Optuna, or the file is in
            WAL mode.
        sqlite3.Error: The file is not a database, or a page is damaged.
    """
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master")
    for kind, name, sql in rows:
        if not _is_plain(kind, name, sql):
            raise SearchError(
                f"{path} holds the {str(kind)[:20]} {str(name)[:60]!r}, which no search of this "
                "project creates; give the search a database of its own"
            )
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        raise _wal_error(path)
    (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise sqlite3.DatabaseError(f"the file is damaged ({' '.join(str(state).split())[:200]})")


def _is_plain(kind: Any, name: Any, sql: Any) -> bool:
    """Returns whether an entry of a schema is a plain table of Optuna, or an index of columns."""
    if sql is None:  # the index that SQLite itself makes for a key
        return bool(kind == "index")
    if not isinstance(name, str) or not isinstance(sql, str):
        return False
    text = " ".join(sql.replace('"', "").replace("`", "").split())
    if kind == "index":
        return bool(_PLAIN_INDEX.fullmatch(text))
    plain = _PLAIN_TABLE.fullmatch(_PLAIN_PART.sub("", text))
    return bool(kind == "table" and name in _TABLES and plain)
