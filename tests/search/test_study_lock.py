"""One coordinator a study: on SQLite, and on a PostgreSQL server started here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fbnetv3.search import SearchError
from fbnetv3.search.study_lock import study_lock
from tests.search import postgres, problem

ROOT = Path(__file__).resolve().parent.parent.parent
HOLD = """
import sys, time
from fbnetv3.search.study_lock import study_lock
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


def test_searches_of_one_process_share_it_and_the_last_gives_it_back(url: str) -> None:
    first, second = study_lock(url, "jointnas"), study_lock(url, "jointnas")
    for lock in (first, second, first):
        lock.hold()
    second.release()
    first.release()
    code = HOLD.replace("time.sleep(600)", "")
    done = subprocess.run([sys.executable, "-c", code, url], cwd=ROOT, check=False)
    assert done.returncode == 0


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

    def evaluate(trial: object) -> float:
        if trial.number == 5:  # type: ignore[attr-defined]
            server.stop()
            server.start()
        return problem.evaluate(trial)  # type: ignore[arg-type]

    found = problem.search(storage=server.url, study="restarted").run(evaluate)
    assert problem.summary(found) == wanted


def test_a_database_in_memory_has_no_lock() -> None:
    for _ in range(2):
        study_lock("sqlite://", "jointnas").hold()


def test_a_password_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"\*\*\*") as caught:
        problem.search(storage="postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
