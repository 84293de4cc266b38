"""Untrusted SQLite files: journals, links, schemas and damage, with SQLite itself as the judge."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from sqlalchemy.engine import make_url

from fbnetv3.search import Choice, SearchError, SearchSpace, Trial
from fbnetv3.search.storage import guard
from fbnetv3.search.storage.database import open_storage, require_study, snapshot
from fbnetv3.search.storage.optuna_store import OptunaStore
from fbnetv3.search.storage.store import open_store

SPACE = SearchSpace([Choice("x", ("a", "b"))])
MAGIC = bytes.fromhex("d9d505f920a163d7")


def _trial(number: int) -> Trial:
    trial = Trial(f"id{number}", number, 0, {"x": "a"})
    trial.finish(float(number))
    return trial


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Returns the content of a storage with two trials."""
    path = tmp_path_factory.mktemp("storage") / "search.db"
    store = OptunaStore(f"sqlite:///{path}", SPACE)
    for number in range(2):
        store.add(_trial(number))
    return path.read_bytes()


@pytest.fixture
def database(tmp_path: Path, content: bytes) -> Path:
    """Returns the file of a storage with two trials, alone in its folder."""
    path = tmp_path / "run" / "search.db"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def _super_journal(database: Path, victim: Path) -> None:
    """Writes a journal of no pages that names a file as its super-journal."""
    content, name = database.read_bytes(), os.fsencode(victim)
    size = struct.unpack(">H", content[16:18])[0]
    head = MAGIC + struct.pack(">IIIII", 0, 0, len(content) // size, 512, size)
    tail = struct.pack(">I", 0x40000000 // size + 1) + name
    tail += struct.pack(">II", len(name), sum(name)) + MAGIC
    Path(f"{database}-journal").write_bytes(head.ljust(512, b"\0") + tail)


_CRASH = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN")
database.execute("DELETE FROM trial_user_attributes")
for i in range(400):
    database.execute("INSERT INTO trial_user_attributes VALUES (?, 1, ?, 'x')", (i, f"{i:0900}"))
os.kill(os.getpid(), 9)
"""


def _crash(database: Path) -> None:
    """Kills a process in the middle of a transaction that has changed the file already."""
    before = database.read_bytes()
    subprocess.run([sys.executable, "-c", _CRASH, str(database)], check=False)
    assert Path(f"{database}-journal").stat().st_size > 512
    assert database.read_bytes() != before


def _open(database: Path) -> None:
    open_storage(f"sqlite:///{database}")


def _read(database: Path) -> None:
    require_study(f"sqlite:///{database}", "jointnas")


def _read_only(database: Path) -> None:
    open_store(f"sqlite:///{database}", SPACE, read_only=True)


OPENERS = [_open, _read, _read_only]


def test_sqlite_deletes_the_file_that_a_journal_names(database: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    _super_journal(database, tmp_path / "victim")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT * FROM studies").fetchall()
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("opener", OPENERS)
def test_a_journal_that_names_a_file_is_refused(
    opener: Callable[[Path], None], database: Path, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("precious")
    _super_journal(database, tmp_path / "victim")
    (tmp_path / "link.db").symlink_to(database)  # the journal lies beside the target of a link
    for path in (database, tmp_path / "link.db"):
        with pytest.raises(SearchError, match=r"search\.db-journal names another file"):
            opener(path)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("opener", OPENERS)
def test_the_journal_of_a_killed_process_is_rolled_back(
    opener: Callable[[Path], None], database: Path
) -> None:
    _crash(database)
    opener(database)
    store = OptunaStore(f"sqlite:///{database}", SPACE)
    assert store.load() == [_trial(0), _trial(1)]
    store.add(_trial(2))


def test_reading_changes_nothing_in_the_folder(database: Path) -> None:
    _crash(database)
    before = {path.name: path.read_bytes() for path in database.parent.iterdir()}
    store = open_store(f"sqlite:///{database}", SPACE, read_only=True)
    assert store.load() == [_trial(0), _trial(1)]
    assert {path.name: path.read_bytes() for path in database.parent.iterdir()} == before


def test_a_storage_in_use_is_copied_as_of_the_last_commit(database: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trial_user_attributes")
        assert len(open_store(f"sqlite:///{database}", SPACE, read_only=True).load()) == 2
        writer.execute("ROLLBACK")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(b"x" * 600)
    path.symlink_to(target)


def _hard_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(b"x" * 600)
    path.hardlink_to(target)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("make", [_fifo, _device, _link, _hard_link, Path.mkdir, Path.touch])
def test_files_beside_the_database(
    make: Callable[[Path], None], suffix: str, opener: Callable[[Path], None], database: Path
) -> None:
    make(Path(f"{database}{suffix}"))
    if suffix == "-journal" and make is Path.touch:
        opener(database)  # of a commit that has ended
        return
    with pytest.raises(SearchError, match=r"not a regular file|WAL mode"):
        opener(database)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("make", [_fifo, _device, Path.mkdir])
def test_a_database_that_is_no_file(
    make: Callable[[Path], None], opener: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "search.db")
    with pytest.raises(SearchError, match=r"not a regular file|holds no study"):
        opener(tmp_path / "search.db")


STATEMENTS = [
    "CREATE VIEW v AS SELECT 1",
    "ALTER TABLE trials RENAME TO t; CREATE VIEW trials AS SELECT * FROM t",
    "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM studies; END",
    "CREATE VIRTUAL TABLE f USING fts5(x)",
    "CREATE INDEX i ON trials (abs(number))",
    "CREATE INDEX i ON trials (number) WHERE number > 0",
    "CREATE TABLE other (x)",
    "ALTER TABLE trials ADD COLUMN x AS (number + 1)",
    "DROP TABLE trial_heartbeats; CREATE TABLE trial_heartbeats (x DEFAULT (hex(randomblob(9))))",
    "ALTER TABLE trials ADD COLUMN x CHECK (length(hex(zeroblob(100000000))) > 0)",
    "ALTER TABLE trials ADD COLUMN x COLLATE NOCASE",
    "DROP TABLE trial_heartbeats; CREATE TABLE trial_heartbeats (x /* SELECT */)",
    "PRAGMA journal_mode = WAL",
]


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("statement", STATEMENTS)
def test_schemas_that_no_search_creates_are_refused(
    statement: str, opener: Callable[[Path], None], database: Path
) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(statement)
    with pytest.raises(SearchError, match=r"which no search of this project creates|WAL mode"):
        opener(database)
    assert sorted(p.name for p in database.parent.iterdir()) == ["search.db"]


def test_all_tables_of_optuna_are_known() -> None:
    from optuna.storages._rdb.models import BaseModel

    assert set(BaseModel.metadata.tables) <= guard._TABLES


@pytest.mark.parametrize("opener", OPENERS)
def test_statistics_and_upgraded_tables_are_accepted(
    opener: Callable[[Path], None], database: Path
) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "ANALYZE; ALTER TABLE trials ADD COLUMN kind VARCHAR(7) DEFAULT 'FINITE' NOT NULL;"
            "ALTER TABLE trials ADD COLUMN x INTEGER CHECK (x IN ('RUNNING', 'FAIL'))"
        )
    opener(database)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("seed", range(8))
def test_damaged_files(opener: Callable[[Path], None], seed: int, database: Path) -> None:
    import numpy as np

    content = bytearray(database.read_bytes())
    random = np.random.default_rng(seed)
    for position in random.integers(16, len(content), 400).tolist():
        content[position] = int(random.integers(256))
    database.write_bytes(content)
    with pytest.raises(SearchError):
        opener(database)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("other", [b"x" * 5000, b"SQLite format 3\0" + bytes(4080)])
def test_files_of_another_format(
    other: bytes, opener: Callable[[Path], None], database: Path
) -> None:
    database.write_bytes(other)
    with pytest.raises(SearchError, match=r"search\.db"):
        opener(database)


def test_a_tree_whose_pages_repeat_is_refused_at_once(database: Path) -> None:
    """Each level of the tree refers 400 times to the next one, which stands for 400^4 rows."""
    content = bytearray(database.read_bytes())
    size, pages = struct.unpack(">H", content[16:18])[0], len(content) // 4096
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'trials'"
        root = connection.execute(query).fetchone()[0]
    levels = [root, *range(pages + 1, pages + 4)]
    for page, child in zip(levels, [*levels[1:], root], strict=True):
        cells = [struct.pack(">I", child) + bytes([1])] * 400
        start = size - 5 * len(cells)
        offsets = b"".join(struct.pack(">H", start + 5 * i) for i in range(len(cells)))
        head = b"\x05" + struct.pack(">HHHB", 0, len(cells), start, 0) + struct.pack(">I", child)
        block = (head + offsets).ljust(start, b"\0") + b"".join(cells)
        content[(page - 1) * size : page * size] = block
    struct.pack_into(">I", content, 28, len(content) // size)
    database.write_bytes(content)
    began = time.monotonic()
    for opener in OPENERS:
        with pytest.raises(SearchError):
            opener(database)
    assert time.monotonic() - began < 10


def test_statements_end_after_a_time(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_STATEMENT_S", 0.2)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
    with closing(guard._connect(database, "ro")) as connection:
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            connection.cursor().execute(endless).fetchall()
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            connection.execute(endless).fetchall()
        time.sleep(0.3)
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (2,)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///a/b.db", Path("a/b.db")),
        ("sqlite:////a/b.db", Path("/a/b.db")),
        ("sqlite:///file:/a/b%20c.db?mode=ro&uri=true", Path("/a/b c.db")),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql+psycopg://host/db", None),
    ],
)
def test_the_file_of_a_url(url: str, expected: Path | None) -> None:
    assert guard.sqlite_path(make_url(url)) == expected


def test_a_snapshot_is_deleted(database: Path) -> None:
    with snapshot(f"sqlite:///{database}") as url:
        copy = Path(url.removeprefix("sqlite:///"))
        assert optuna.load_study(study_name="jointnas", storage=url).trials
    assert not copy.parent.exists()
