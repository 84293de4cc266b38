"""Only one process coordinates a study: with SQLite, and with a PostgreSQL server."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from fbnetv3.search import SearchError, Trial
from fbnetv3.search.storage.database import with_driver
from fbnetv3.search.storage.study_lock import PostgresLock, StudyLock, _SharedLock, study_lock
from tests.search import problem
from tests.search.storage import postgres

pytestmark = pytest.mark.usefixtures("short_training")

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys, time
from fbnetv3.search.storage.study_lock import study_lock
lock = study_lock(sys.argv[1], "jointnas")
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    reason = postgres.missing()
    if reason:
        pytest.skip(reason)
    with postgres.serving() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'search.db'}"
    server: postgres.Server = request.getfixturevalue("server")
    return server.url


@contextmanager
def _other_process(url: str, preamble: str = "") -> Iterator[subprocess.Popen[str]]:
    """Starts a process that holds the lock of a study.

    Args:
        url: URL of the storage.
        preamble: Code that the process runs first.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", preamble + HOLD, url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def owner(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with _other_process(url) as process:
        yield process


def test_a_second_process_is_refused_until_the_first_dies(
    url: str, owner: subprocess.Popen
) -> None:
    lock = study_lock(url, "jointnas")
    with pytest.raises(SearchError, match=f"in use by process {owner.pid} on "):
        lock.acquire()
    owner.kill()
    owner.wait()
    _acquire_soon(lock)
    lock.release()


def _acquire_soon(lock: StudyLock) -> None:
    """Acquires a lock; a server takes a moment to notice that the owner is dead."""
    deadline = time.monotonic() + 30
    while True:
        try:
            lock.acquire()
            return
        except SearchError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _is_free(url: str) -> bool:
    """Returns whether another process can acquire the lock."""
    code = HOLD.replace("time.sleep(600)", "")
    command = [sys.executable, "-c", code, url]
    process = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ("held" in process.stdout) != ("in use by process" in process.stderr)
    return process.returncode == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_searches_of_one_process_share_the_lock_and_the_last_releases_it(
    url: str, order: tuple[int, int]
) -> None:
    locks = study_lock(url, "jointnas"), study_lock(url, "jointnas")
    for lock in (*locks, locks[0]):
        lock.acquire()
    locks[order[0]].release()
    locks[order[1]].acquire()
    assert not _is_free(url)
    locks[order[1]].release()
    assert _is_free(url)


def test_searches_that_share_a_lock_make_it_once() -> None:
    made: list[StudyLock] = []

    def make() -> StudyLock:
        made.append(study_lock("sqlite://", "jointnas"))  # a lock without effect
        return made[-1]

    locks = [_SharedLock(("made once",), make) for _ in range(2)]
    for lock in locks:
        lock.acquire()
    assert len(made) == 1
    for lock in locks:
        lock.release()


def test_a_search_that_is_garbage_collected_releases_the_lock(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    study_lock(url, "jointnas").acquire()
    assert _is_free(url)


def test_a_process_with_the_same_pid_and_host_name_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "process 1 on box"  # as in two containers
    module = "fbnetv3.search.storage.study_lock"
    preamble = f"import {module} as module\nmodule.process_name = lambda: {name!r}\n"
    with _other_process(url, preamble):
        monkeypatch.setattr(f"{module}.process_name", lambda: name)
        with pytest.raises(SearchError, match=f"in use by {name}"):
            study_lock(url, "jointnas").acquire()


def test_a_search_of_a_study_in_use_is_refused_before_anything_trains(
    url: str, owner: subprocess.Popen
) -> None:
    with pytest.raises(SearchError, match="is in use by process"):
        problem.search(storage=url).run(lambda trial: pytest.fail("trained"))


def test_studies_on_one_server_have_separate_locks(server: postgres.Server) -> None:
    with _other_process(server.url):
        lock = study_lock(server.url, "another")
        lock.acquire()
        lock.release()


@pytest.fixture(scope="module")
def expected() -> list[tuple[Any, ...]]:
    """The summary of an undisturbed search in memory."""
    return problem.summary(problem.search().run(problem.evaluate))


def test_postgres_keeps_the_same_trials_as_memory(
    server: postgres.Server, expected: list[Any]
) -> None:
    result = problem.search(storage=server.url, study="same").run(problem.evaluate)
    assert problem.summary(result) == expected
    # the stored trials alone give the result
    again = problem.search(storage=server.url, study="same").run(lambda t: pytest.fail("again"))
    assert problem.summary(again) == expected


def test_a_read_only_search_writes_nothing_to_a_server(server: postgres.Server) -> None:
    small = {"study": "read", "iterations": 1, "finalists": 0, "pool_size": 64}
    result = problem.search(storage=server.url, **small).run(problem.evaluate)
    engine = create_engine(with_driver(server.url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE empty"))
        connection.execute(text("CREATE ROLE reader LOGIN IN ROLE pg_read_all_data"))
        connection.execute(text("ALTER ROLE reader SET default_transaction_read_only = on"))
    empty = make_url(server.url).set(database="empty")
    reader = make_url(server.url).set(username="reader")
    again = problem.search(storage=reader, read_only=True, **small).result()
    assert problem.summary(again) == problem.summary(result)
    for url, study in ((empty, "read"), (reader, "unknown")):
        with pytest.raises(SearchError, match=f"holds no study '{study}'"):
            problem.search(storage=url, read_only=True, **{**small, "study": study})
    engines = [engine, create_engine(with_driver(empty.render_as_string()))]
    assert [inspect(e).has_table("studies") for e in engines] == [True, False]
    for e in engines:
        e.dispose()


def test_a_restarted_server_costs_no_trial(server: postgres.Server, expected: list[Any]) -> None:
    def evaluate(trial: Trial) -> float:
        if trial.number == 5:
            server.stop()
            server.start()
        return problem.evaluate(trial)

    result = problem.search(storage=server.url, study="restarted").run(evaluate)
    assert problem.summary(result) == expected


class _ServerStarter(logging.Handler):
    """Starts a server as soon as a search warns that the server does not answer."""

    def __init__(self, server: postgres.Server) -> None:
        super().__init__()
        self._server = server
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self._server.start()


def test_a_lost_session_that_the_server_still_counts_is_ended(server: postgres.Server) -> None:
    lock = PostgresLock(with_driver(server.url), "lost")
    lock.acquire()
    lost, lock._connection = lock._connection, None  # as after a network failure
    lock.acquire()
    assert lost is not None
    with pytest.raises(OperationalError):
        lost.execute(text("SELECT 1"))
    with pytest.raises(SearchError, match="in use by process"):
        PostgresLock(with_driver(server.url), "lost").acquire()
    lock.release()


def test_a_server_that_is_down_for_a_while_is_retried(
    server: postgres.Server, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    starting = _ServerStarter(server)
    logger = logging.getLogger("fbnetv3.search.storage.study_lock")
    monkeypatch.setattr(logger, "handlers", [starting])

    def evaluate(trial: Trial) -> float:
        if trial.number == 5:
            server.stop()
        return problem.evaluate(trial)

    result = problem.search(storage=server.url, study="waited").run(evaluate)
    assert problem.summary(result) == expected
    assert ["does not answer" in message for message in starting.messages] == [True]


def test_a_server_that_stays_down_is_one_error_and_the_search_continues_later(
    server: postgres.Server, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbnetv3.search.storage.study_lock._RETRY_S", 0.0)
    evaluated: list[str] = []

    def evaluate(trial: Trial) -> float:
        if len(evaluated) == 5:
            server.stop()
        evaluated.append(trial.id)
        return problem.evaluate(trial)

    search = problem.search(storage=server.url, study="down")
    try:
        with pytest.raises(SearchError, match=r"cannot store trial \w+ in .* failed: ") as it:
            search.run(evaluate)
        assert len(str(it.value).splitlines()) == 1
        for ask in (search.ask, lambda: problem.search(storage=server.url)):
            with pytest.raises(SearchError, match="connection failed"):
                ask()
        search.close()
    finally:
        server.start()
    result = problem.search(storage=server.url, study="down").run(evaluate)
    assert problem.summary(result) == expected
    # only the trial that could not be stored was evaluated again
    assert sorted(set(evaluated)) == sorted([*evaluated[:5], *evaluated[6:]])


def test_a_database_in_memory_is_not_locked() -> None:
    for _ in range(2):
        study_lock("sqlite://", "jointnas").acquire()


def test_a_password_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"\*\*\*") as caught:
        problem.search(storage="postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
