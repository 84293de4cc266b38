"""One coordinator a study: on SQLite, and on a PostgreSQL server started here."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from fbnetv3.search import SearchError, Trial
from fbnetv3.search.storage.database import with_driver
from fbnetv3.search.storage.study_lock import PostgresLock, study_lock
from tests.search import problem
from tests.search.storage import postgres

ROOT = Path(__file__).resolve().parent.parent.parent
HOLD = """
import sys, time
from fbnetv3.search.storage.database import with_driver
from fbnetv3.search.storage.study_lock import PostgresLock, study_lock
lock = study_lock(sys.argv[1], "jointnas")
lock.hold()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    reason = postgres.missing()
    if reason:
        pytest.skip(reason)
    with postgres.serving() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'search.db'}"
    found: postgres.Server = request.getfixturevalue("server")
    return found.url


@pytest.fixture
def owner(url: str) -> Iterator[subprocess.Popen]:
    """Another process that has the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_until_the_first_dies(
    url: str, owner: subprocess.Popen
) -> None:
    lock = study_lock(url, "jointnas")
    with pytest.raises(SearchError, match=f"in use by process {owner.pid} on "):
        lock.hold()
    owner.kill()
    owner.wait()
    _hold_soon(lock)
    lock.release()


def _hold_soon(lock: object) -> None:
    """A server takes a moment to notice that a client is dead."""
    import time

    deadline = time.monotonic() + 30
    while True:
        try:
            lock.hold()  # type: ignore[attr-defined]
            return
        except SearchError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _is_free(url: str) -> bool:
    """Tells whether another process gets the lock."""
    code = HOLD.replace("time.sleep(600)", "")
    command = [sys.executable, "-c", code, url]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ("held" in done.stdout) != ("in use by process" in done.stderr)
    return done.returncode == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_searches_of_one_process_share_it_and_the_last_gives_it_back(
    url: str, order: tuple[int, int]
) -> None:
    locks = study_lock(url, "jointnas"), study_lock(url, "jointnas")
    for lock in (*locks, locks[0]):
        lock.hold()
    locks[order[0]].release()
    locks[order[1]].hold()
    assert not _is_free(url)
    locks[order[1]].release()
    assert _is_free(url)


def test_a_search_that_is_dropped_gives_it_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    study_lock(url, "jointnas").hold()
    assert _is_free(url)


def test_a_process_of_the_same_number_and_host_name_is_another(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as in two containers
    name = "process 1 on box"
    given = f"import fbnetv3.search.storage.study_lock as m\nm.owner_here = lambda: {name!r}\n"
    process = subprocess.Popen(
        [sys.executable, "-c", given + HOLD, url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    monkeypatch.setattr("fbnetv3.search.storage.study_lock.owner_here", lambda: name)
    with pytest.raises(SearchError, match=f"in use by {name}"):
        study_lock(url, "jointnas").hold()
    process.kill()
    process.wait()


def test_a_search_of_a_study_in_use_is_refused_before_anything_trains(
    url: str, owner: subprocess.Popen
) -> None:
    with pytest.raises(SearchError, match="is in use by process"):
        problem.search(storage=url).run(lambda trial: pytest.fail("trained"))


def test_studies_of_one_server_have_locks_of_their_own(
    server: postgres.Server, request: pytest.FixtureRequest
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, server.url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    other = study_lock(server.url, "another")
    other.hold()
    other.release()
    process.kill()
    process.wait()


def test_postgres_keeps_the_same_trials_as_memory(server: postgres.Server) -> None:
    wanted = problem.summary(problem.search().run(problem.evaluate))
    found = problem.search(storage=server.url, study="same").run(problem.evaluate)
    assert problem.summary(found) == wanted
    # from what is stored alone
    again = problem.search(storage=server.url, study="same").run(lambda t: pytest.fail("again"))
    assert problem.summary(again) == wanted


def test_a_restarted_server_costs_no_trial(server: postgres.Server) -> None:
    wanted = problem.summary(problem.search().run(problem.evaluate))

    def evaluate(trial: Trial) -> float:
        if trial.number == 5:
            server.stop()
            server.start()
        return problem.evaluate(trial)

    found = problem.search(storage=server.url, study="restarted").run(evaluate)
    assert problem.summary(found) == wanted


class _Starting(logging.Handler):
    """Starts a server as soon as a search says that it waits for it."""

    def __init__(self, server: postgres.Server) -> None:
        super().__init__()
        self._server = server
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())
        self._server.start()


def test_a_session_that_the_server_still_believes_in_is_ended(server: postgres.Server) -> None:
    lock = PostgresLock(with_driver(server.url), "lost")
    lock.hold()
    lost, lock._connection = lock._connection, None  # as where the network was gone
    lock.hold()
    assert lost is not None
    with pytest.raises(OperationalError):
        lost.execute(text("SELECT 1"))
    with pytest.raises(SearchError, match="in use by process"):
        PostgresLock(with_driver(server.url), "lost").hold()
    lock.release()


def test_a_server_that_is_down_for_a_while_is_waited_for(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = problem.summary(problem.search().run(problem.evaluate))
    starting = _Starting(server)
    logger = logging.getLogger("fbnetv3.search.storage.study_lock")
    monkeypatch.setattr(logger, "handlers", [starting])

    def evaluate(trial: Trial) -> float:
        if trial.number == 5:
            server.stop()
        return problem.evaluate(trial)

    found = problem.search(storage=server.url, study="waited").run(evaluate)
    assert problem.summary(found) == wanted
    assert ["does not answer" in told for told in starting.told] == [True]


def test_a_server_that_stays_down_is_one_line_and_the_search_goes_on_later(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbnetv3.search.storage.study_lock._PATIENCE_S", 0.0)
    wanted = problem.summary(problem.search().run(problem.evaluate))
    evaluated: list[str] = []

    def evaluate(trial: Trial) -> float:
        if len(evaluated) == 5:
            server.stop()
        evaluated.append(trial.id)
        return problem.evaluate(trial)

    search = problem.search(storage=server.url, study="down")
    try:
        with pytest.raises(SearchError, match=r"trial \w+ can't be kept in .*refused.*again") as it:
            search.run(evaluate)
        assert len(str(it.value).splitlines()) == 1
        for ask in (search.ask, lambda: problem.search(storage=server.url)):
            with pytest.raises(SearchError, match="refused"):
                ask()
        search.close()
    finally:
        server.start()
    found = problem.search(storage=server.url, study="down").run(evaluate)
    assert problem.summary(found) == wanted
    # all but the one that could not be kept
    assert sorted(set(evaluated)) == sorted([*evaluated[:5], *evaluated[6:]])


def test_a_database_in_memory_has_no_lock() -> None:
    for _ in range(2):
        study_lock("sqlite://", "jointnas").hold()


def test_a_password_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"\*\*\*") as caught:
        problem.search(storage="postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
