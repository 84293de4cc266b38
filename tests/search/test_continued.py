"""Searches that are continued: with more iterations, and after ``max_hours``."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import JointNAS, LocalWorkers, SearchError, SearchSettings, Trial, running
from fbnetv3.search.schedule import Schedule
from fbnetv3.search.storage.batch_log import BatchLog
from fbnetv3.search.storage.database import sqlite_url
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")


def _trial(batch: int, stage: str = "coarse") -> Trial:
    return Trial("x", 0, batch, {}, stage=stage)


@pytest.mark.parametrize(
    ("iterations", "finalists", "finals", "stages"),
    [
        (2, 3, (), "ccf"),
        (2, 0, (), "cc"),
        (2, 3, (2,), "ccf"),
        (4, 3, (2,), "ccfccf"),
        (4, 3, (2, 5), "ccfccf"),
        (5, 3, (2, 5), "ccfccfcf"),
        (3, 3, (1, 3), "cfcfcf"),
    ],
)
def test_batches_of_continued_searches(
    iterations: int, finalists: int, finals: tuple[int, ...], stages: str
) -> None:
    settings = SearchSettings(iterations=iterations, finalists=finalists, batch_size=5)
    trials = [_trial(batch, "fine") for batch in finals]
    trials += [_trial(batch) for batch in range(max(finals, default=0)) if batch not in finals]
    schedule = Schedule.of(settings, trials)
    assert "".join(schedule.stage_of(i)[0] for i in range(schedule.count)) == stages
    sizes = [{"c": 5, "f": finalists}[stage] for stage in stages]
    assert [schedule.size_of(i) for i in range(schedule.count)] == sizes
    assert [schedule.limit_before(i) for i in range(schedule.count)] == [
        sum(sizes[:i]) for i in range(len(sizes))
    ]
    assert schedule.size() == sum(sizes)


@pytest.mark.parametrize("finals", [(0,), (1, 2), (4,), (10**9,)])
def test_finalists_where_no_search_has_them_are_refused(finals: tuple[int, ...]) -> None:
    trials = [_trial(batch, "fine") for batch in finals]
    with pytest.raises(SearchError, match=r"the storage has finalists in batch \d+, where this"):
        Schedule.of(SearchSettings(iterations=3, batch_size=8), trials)


def _run(url: str, iterations: int, stops: set[int] | None = None, **changes: Any) -> JointNAS:
    """Runs a search, which is killed after trials and resumed, to its end."""

    def stop(search: JointNAS, event: Any) -> None:
        if event.kind == "finish" and event.trial.number in (stops or ()):
            assert stops is not None
            stops.remove(event.trial.number)
            raise KeyboardInterrupt

    while True:
        search = problem.search(storage=url, iterations=iterations, pool_size=128, **changes)
        try:
            search.run(problem.evaluate, callbacks=[stop])
            return search
        except KeyboardInterrupt:
            search.close()


@pytest.mark.parametrize("changes", [{}, {"ahead": 3}, {"finalists": 0}])
def test_more_iterations_continue_a_finished_search(tmp_path: Path, changes: Any) -> None:
    url = sqlite_url(tmp_path / "a.db")
    before = problem.summary(_run(url, 2, **changes).result())
    search = _run(url, 4, **changes)
    after = problem.summary(search.result())
    assert after[: len(before)] == before
    finals = changes.get("finalists", 3)
    stages = ["coarse"] * 16 + ["fine"] * finals
    assert [row[3] for row in after] == stages * 2
    assert len({row[1] for row in after}) == len(after)
    assert search.ask() == []
    assert search.settings["iterations"] == 4
    # the same number again is done already; more follow
    assert problem.summary(_run(url, 4, **changes).result()) == after
    assert len(_run(url, 5, **changes).trials) == len(after) + 8 + finals


def test_without_finalists_a_continued_search_is_the_longer_one(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    _run(url, 2, finalists=0)
    longer = problem.search(iterations=3, finalists=0, pool_size=128).run(problem.evaluate)
    assert problem.summary(_run(url, 3, finalists=0).result()) == problem.summary(longer)


@pytest.mark.slow
def test_a_killed_continued_search_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    urls = [sqlite_url(tmp_path / name) for name in ("a.db", "b.db")]
    results = []
    for url, stops in zip(urls, [set(), {2, 17, 18, 20, 26, 27, 34, 35, 36}], strict=True):
        _run(url, 2, stops)
        results.append(problem.summary(_run(url, 4, stops).result()))
        assert not stops
    assert results[0] == results[1]


def test_a_search_may_be_continued_in_the_middle_of_its_finalists(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    search = problem.search(storage=url, pool_size=128)
    for _ in range(3):
        trials = search.ask()
        trials = trials[:1] if trials[0].stage == "fine" else trials
        search.tell(trials, [problem.evaluate(t) for t in trials])
    search.close()
    stages = [t.stage for t in _run(url, 3).trials]
    assert stages == ["coarse"] * 16 + ["fine"] * 3 + ["coarse"] * 8 + ["fine"] * 3


def test_finalists_that_learnt_nothing_yet_come_after_the_further_batches(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    search = problem.search(storage=url, pool_size=128)
    for _ in range(2):
        search.tell(trials := search.ask(), [problem.evaluate(t) for t in trials])
    assert search.ask()[0].stage == "fine"
    search.close()
    result = _run(url, 3).result()
    undisturbed = problem.search(iterations=3, pool_size=128).run(problem.evaluate)
    assert problem.summary(result) == problem.summary(undisturbed)


def test_fewer_iterations_than_were_run_are_refused(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    _run(url, 3)
    with pytest.raises(SearchError) as caught:
        problem.search(storage=url, iterations=2, pool_size=128).ask()
    assert str(caught.value) == (
        "iterations=2 is fewer than the storage has: trials of 3 batches of stage 1; give "
        "iterations=3 or more (SEARCH.ITERATIONS), or use another storage"
    )
    with pytest.raises(SearchError, match="other settings: batch_size was 8, is 9"):
        problem.search(storage=url, iterations=4, pool_size=128, batch_size=9)


def test_a_log_of_a_continued_search_restores_it(tmp_path: Path) -> None:
    url, log = sqlite_url(tmp_path / "a.db"), BatchLog(tmp_path / "log", ("ITERATIONS",))
    for iterations in (2, 4):
        search = _run(url, iterations)
        log.write(search.trials, search.settings, search.order, {"ITERATIONS": iterations})
    lost = problem.search(storage=sqlite_url(tmp_path / "b.db"), iterations=4, pool_size=128)
    lost.restore(log.read())
    assert problem.summary(lost.run(problem.evaluate)) == problem.summary(search.result())
    with pytest.raises(SearchError, match="iterations=3 is fewer than the log has"):
        problem.search(iterations=3, pool_size=128).restore(log.read())
    with pytest.raises(SearchError, match="belong to different searches"):
        BatchLog(log.path).read()


class Clock:
    """A clock that moves with the number of finished trials."""

    def __init__(self) -> None:
        self.hours = 0.0

    def monotonic(self) -> float:
        return 3600 * self.hours

    def __call__(self, search: JointNAS, event: Any) -> None:
        self.hours += event.kind == "finish"


def test_no_trial_starts_after_the_time_and_the_next_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(running, "time", clock)
    search = problem.search(storage=sqlite_url(tmp_path / "a.db"))
    assert len(search.run(problem.evaluate, [clock], max_hours=2.5).trials) == 3
    assert len(search.run(problem.evaluate, [clock], max_hours=5).trials) == 8
    again = problem.search(storage=sqlite_url(tmp_path / "a.db"))
    result = again.run(problem.evaluate, [clock], max_hours=100)
    assert problem.summary(result) == problem.summary(problem.search().run(problem.evaluate))


def _beside_another(folder: Path, trial: Trial) -> float:
    """Returns once a second trial has started, too."""
    (folder / str(trial.number)).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    time.sleep(0.5)
    return problem.evaluate(trial)


def test_running_trials_of_workers_end(tmp_path: Path) -> None:
    search = problem.search(executor=LocalWorkers(2))
    started = []

    def note(search: JointNAS, event: Any) -> None:
        if event.kind == "finish":
            started.append(event.trial.number)
            clock.hours = 1.0

    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "time", clock)
        result = search.run(partial(_beside_another, tmp_path), [note], max_hours=1.0)
    assert len(result.trials) == len(started) == 2  # the second one ran when the time was over
    assert all(t.state == "complete" for t in result.trials)


@pytest.mark.parametrize("hours", [0, -1.0, float("nan"), "1", True])
def test_hours_that_are_no_time_are_refused(hours: Any) -> None:
    with pytest.raises(SearchError, match=r"max_hours=.* is not allowed; allowed: a finite number"):
        problem.search().run(problem.evaluate, max_hours=hours)


def test_iterations_are_the_only_setting_that_may_change(tmp_path: Path) -> None:
    settings = SearchSettings(pool_size=64, batch_size=2, iterations=1, finalists=1)
    url = sqlite_url(tmp_path / "a.db")
    JointNAS(problem.space(), settings, storage=url).ask()
    for name, value in {"finalists": 2, "ahead": 1, "pool_size": 65, "seed": 1}.items():
        with pytest.raises(SearchError, match=f"{name} was"):
            JointNAS(problem.space(), dataclasses.replace(settings, **{name: value}), storage=url)
