"""Enqueued candidates: they join the next batch, are stored, and are refused if they cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import JointNAS, SearchError
from fbnetv3.search.report import write_report
from fbnetv3.search.storage.database import sqlite_url
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")

BASE: dict[str, Any] = {"depth": 2, "kernel": 3, **dict.fromkeys(problem.WIDTHS, 32)}
FIRST = {**BASE, "lr": 0.01, "decay": 0.5, "optim": "sgd"}
SECOND = {**FIRST, "lr": 0.005}


def _by_reason(search: JointNAS) -> dict[str, tuple[int, str]]:
    return {t.enqueued: (t.number, t.stage) for t in search.trials if t.enqueued}


def test_candidates_take_places_of_the_next_batch() -> None:
    plain = problem.search()
    plain.run(problem.evaluate)
    search = problem.search()
    assert search.enqueue(FIRST, "last year's network")
    first = search.ask()
    assert search.enqueue(SECOND, "a lower rate")  # between two batches
    assert [t.id for t in search.ask()] == [t.id for t in first]
    search.run(problem.evaluate)
    assert _by_reason(search) == {
        "last year's network": (0, "coarse"),
        "a lower rate": (8, "coarse"),
    }
    assert [t.batch for t in search.trials] == [t.batch for t in plain.trials]
    assert len({t.id for t in search.trials}) == len(search.trials)
    enqueued = search.trials[0]
    assert enqueued.config == FIRST | {"lr": pytest.approx(0.01, 1e-5)}  # the nearest of its levels
    assert enqueued.statistics == {"macs": 256.0, "params": 17.0}
    assert search.trials[8].predicted is not None


def test_a_finalist_may_be_enqueued_and_more_candidates_than_places_wait() -> None:
    search = problem.search(batch_size=2, iterations=1, finalists=2)
    for i in range(3):
        search.enqueue({**FIRST, "decay": 0.1 * i}, f"number {i}")
    search.run(problem.evaluate)
    expected = {"number 0": (0, "coarse"), "number 1": (1, "coarse"), "number 2": (2, "fine")}
    assert _by_reason(search) == expected
    assert len(search.trials) == 4


@pytest.mark.parametrize("predictor", ["paper", "random"])
def test_every_predictor_fills_a_batch_of_enqueued_candidates(predictor: str) -> None:
    search = problem.search(batch_size=4, iterations=2, finalists=1, predictor=predictor)
    for i in range(9):  # both batches, and the finalist
        search.enqueue({**FIRST, "decay": 0.1 * i}, "a grid")
    assert [t.enqueued for t in search.run(problem.evaluate).trials] == ["a grid"] * 9


def test_without_a_score_the_enqueued_finalists_are_evaluated() -> None:
    search = problem.search(batch_size=2, iterations=1, finalists=2, stop_after_failures=0)
    search.tell(trials := search.ask(), [None] * len(trials))
    search.enqueue(FIRST, "the last hope")
    assert [t.enqueued for t in search.ask()] == ["the last hope"]


def test_a_killed_search_proposes_the_same_trials(tmp_path: Path) -> None:
    def run(url: str, stops: set[int]) -> list[Any]:
        while True:
            search = problem.search(storage=url)
            search.enqueue(FIRST, "first", skip_if_exists=True)

            def stop(search: JointNAS, event: Any) -> None:
                if event.kind == "finish" and event.trial.number == 2:
                    search.enqueue(SECOND, "second", skip_if_exists=True)
                if event.kind == "finish" and event.trial.number in stops:
                    stops.remove(event.trial.number)
                    raise KeyboardInterrupt

            try:
                search.run(problem.evaluate, callbacks=[stop])
            except KeyboardInterrupt:
                search.close()
                continue
            return [(*row, t.enqueued) for row, t in zip(
                problem.summary(search.result()), search.result().trials, strict=True
            )]  # fmt: skip

    undisturbed = run(sqlite_url(tmp_path / "a.db"), set())
    assert [row[-1] for row in undisturbed if row[-1]] == ["first", "second"]
    assert run(sqlite_url(tmp_path / "b.db"), {1, 4, 8, 12, 17}) == undisturbed


def test_a_batch_that_becomes_one_of_finalists_takes_fewer(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    search = problem.search(storage=url, batch_size=4, iterations=2, finalists=2)
    search.tell(trials := search.ask(), [problem.quality(t.config) for t in trials])
    for i in range(4):
        search.enqueue({**FIRST, "decay": 0.1 * i}, f"number {i}")
    assert [t.enqueued for t in search.ask()] == [f"number {i}" for i in range(4)]
    search.close()
    search = problem.search(storage=url, batch_size=4, iterations=1, finalists=2)
    assert [(t.enqueued, t.stage) for t in search.ask()] == [
        ("number 0", "fine"),
        ("number 1", "fine"),
    ]


def test_candidates_enqueued_after_a_batch_was_proposed_do_not_change_it(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    search = problem.search(storage=url)
    trials = search.ask()
    search.tell(trials[:3], [1.0, 2.0, 3.0])
    search.close()
    again = problem.search(storage=url)
    again.enqueue(FIRST, "too late for the first batch")
    assert [t.id for t in again.ask()] == [t.id for t in trials[3:]]
    again.run(problem.evaluate)
    assert _by_reason(again) == {"too late for the first batch": (8, "coarse")}


_SECOND_PROCESS = """
from tests.search import problem, test_enqueue
search = problem.search(storage={url!r})
search.enqueue(test_enqueue.SECOND, "from a second process")
try:
    search.ask()
except Exception as error:
    print(error)
"""


def test_a_second_process_may_enqueue_while_the_first_one_coordinates(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    search = problem.search(storage=url)
    search.tell(trials := search.ask(), [problem.quality(t.config) for t in trials])
    command = [sys.executable, "-c", _SECOND_PROCESS.format(url=url)]
    assert "is in use by process" in subprocess.check_output(command, text=True)
    assert search.ask()[0].enqueued == "from a second process"


@pytest.mark.parametrize(
    ("config", "reason", "message"),
    [
        (
            {**FIRST, "depth": 9},
            "x",
            "enqueue: depth=9 is not in the space; allowed: whole numbers",
        ),
        ({"depth": 2}, "x", "enqueue: a config lacks the variable 'w0'"),
        ({**FIRST, "dpeth": 1}, "x", "enqueue: the space has no variable 'dpeth'; did you mean"),
        (5, "x", "enqueue: 5 is not a config"),
        (FIRST, "", "enqueue: reason='' is not allowed; allowed: a non-empty string"),
        (FIRST, None, "enqueue: reason=None is not allowed"),
        (
            {**FIRST, "depth": 5, "w0": 64},
            "x",
            "enqueue: the candidate violates constraints: macs is 800, but the constraint is macs",
        ),
    ],
)
def test_bad_candidates_are_refused(config: Any, reason: Any, message: str) -> None:
    search = problem.search()
    with pytest.raises(SearchError) as caught:
        search.enqueue(config, reason)
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


def test_known_candidates_are_refused_or_skipped() -> None:
    warm = {**FIRST, "decay": 0.9}
    search = problem.search(warm_start=[(warm, 1.5)])
    trials = search.ask()
    search.tell(trials[:2], [0.25, None])
    search.enqueue(FIRST, "a")
    cases = {
        f"{trials[0].id}: it is trial 0, which has the score 0.25": trials[0].config,
        f"{trials[1].id}: it is trial 1, which has failed": trials[1].config,
        f"{trials[2].id}: it is trial 2, which is running": trials[2].config,
        "its score, 1.5, is in the warm start": warm,
        "it is enqueued already": FIRST,
    }
    for message, config in cases.items():
        with pytest.raises(SearchError, match=message):
            search.enqueue(config, "again")
        assert not search.enqueue(config, "again", skip_if_exists=True)


def test_candidates_after_the_last_batch_are_refused() -> None:
    search = problem.search(iterations=1, finalists=0)
    search.run(problem.evaluate)
    with pytest.raises(SearchError, match=r"the last batch has been proposed; raise iterations"):
        search.enqueue(FIRST, "late")


def test_read_only_searches_and_foreign_records_are_refused(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    search = problem.search(storage=url)
    search.enqueue(FIRST, "a")
    with pytest.raises(SearchError, match="the search is read_only; open it without"):
        problem.search(storage=url, read_only=True).enqueue(SECOND, "b")
    search._store.set_attr("enqueued_000001_0123456789ab", {"config": {"depth": 99}, "reason": "x"})
    with pytest.raises(SearchError, match="an enqueued candidate of the storage: depth=99 is not"):
        search.ask()
    search._store.set_attr("enqueued_000001_0123456789ab", [1])
    with pytest.raises(SearchError, match=r"which is no enqueued candidate; use another storage"):
        search.ask()


def test_the_report_shows_the_reason(tmp_path: Path) -> None:
    search = problem.search(iterations=1, finalists=0)
    search.enqueue(FIRST, "Anna's <b>network</b>")
    write_report(tmp_path / "report.html", problem.space(), search.run(problem.evaluate))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "enqueued: Anna&#39;s &lt;b&gt;network&lt;/b&gt;" in text


def test_a_preview_is_the_next_ask_and_stores_nothing(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    search = problem.search(storage=url)
    preview = search.preview()
    assert len(preview) == 8
    assert search.trials == search.finished_trials() == []
    assert problem.search(storage=url, seed=1).preview() != preview  # nothing was stored
    asked = search.ask()
    assert asked == preview
    search.tell(asked[:5], [float(i) for i in range(5)])
    assert search.preview() == search.ask()
    search.tell(asked[5:], [1.0, 2.0, 3.0])
    search.enqueue(FIRST, "a")
    preview = search.preview()
    assert preview == search.ask()
    assert preview[0].enqueued == "a"
