"""Trial stores, and searches that continue after a simulated kill (tests/faults uses SIGKILL)."""

from __future__ import annotations

import contextlib
import io
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from fbnetv3.search import Choice, IntRange, JointNAS, SearchError, SearchSpace, Trial, When
from fbnetv3.search.checks import MAX_EPOCHS
from fbnetv3.search.storage.optuna_store import OptunaStore
from fbnetv3.search.storage.store import MemoryStore, TrialStore
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")

SPACE = SearchSpace([Choice("x", (1, True, "1", None, 2.5)), Choice("y", ("a", "b"))])


@pytest.fixture(params=["memory", "optuna"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TrialStore:
    if request.param == "memory":
        return MemoryStore()
    return OptunaStore(f"sqlite:///{tmp_path / 'search.db'}", SPACE)


def _trial(number: int, x: object = 1) -> Trial:
    return Trial(f"id{number}", number, 0, {"x": x, "y": "a"}, statistics={"macs": 1e6})


def test_trials_are_loaded_in_the_order_of_their_numbers(store: TrialStore) -> None:
    trials = [_trial(i, x) for i, x in enumerate((1, True, "1", None, 2.5))]
    for trial in trials[::-1]:
        trial.report(1, 0.25)
        trial.report(2, float("nan"))
        trial.finish(0.1 + trial.number)
        store.add(trial)
    loaded = store.load()
    assert [t.number for t in loaded] == [0, 1, 2, 3, 4]
    for before, after in zip(trials, loaded, strict=True):
        assert after.config == before.config
        assert type(after.config["x"]) is type(before.config["x"])
        assert (after.score, after.state) == (before.score, "complete")
        assert after.reports[1] == 0.25


def test_a_search_whose_reports_begin_at_epoch_0_continues(tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        score = problem.quality(trial.config)
        for epoch in range(trial.max_epochs or 5):
            trial.report(epoch, score)
        return score

    url = f"sqlite:///{tmp_path / 'search.db'}"
    result = problem.search(storage=url, pool_size=64).run(evaluate)
    assert result.early_stop is not None
    assert result.early_stop.epoch == 1
    again = problem.search(storage=url, pool_size=64).result()
    assert problem.summary(again) == problem.summary(result)


def test_the_last_epoch_that_can_be_reported_is_stored(store: TrialStore) -> None:
    trial = _trial(0)
    trial.report(MAX_EPOCHS, 0.5)
    with pytest.raises(SearchError, match="report: epoch=2147483648 is not allowed; allowed: who"):
        trial.report(MAX_EPOCHS + 1, 0.5)
    trial.finish(0.5)
    store.add(trial)
    assert store.load()[0].reports == {MAX_EPOCHS: 0.5}


def _empty(path: Path) -> None:
    path.touch()


def _without_tables(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")


def _other_study(path: Path) -> None:
    OptunaStore(f"sqlite:///{path}", SPACE, "other")


@pytest.mark.parametrize("make", [None, _empty, _without_tables, _other_study])
def test_a_read_only_search_creates_no_study(
    make: Callable[[Path], None] | None, tmp_path: Path
) -> None:
    path = tmp_path / "search.db"
    if make is not None:
        make(path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(SearchError, match="holds no study 'jointnas' that a search with read_only"):
        problem.search(storage=f"sqlite:///{path}", read_only=True, pool_size=16)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("url", ["sqlite://", "nowhere", "postgresql://127.0.0.1:9/none"])
def test_a_read_only_search_of_no_storage_is_one_line(url: str, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"holds no study|cannot read storage") as error:
        problem.search(storage=url, read_only=True, pool_size=16)
    assert "\n" not in str(error.value)


def test_a_study_that_is_not_to_be_created_is_loaded_or_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    OptunaStore(url, SPACE, "other")
    assert OptunaStore(url, SPACE, "other", creates=False).load() == []
    with pytest.raises(SearchError, match="cannot open storage"):
        OptunaStore(url, SPACE, "jointnas", creates=False)
    assert optuna.get_all_study_names(url) == ["other"]


@pytest.mark.parametrize("level", [optuna.logging.DEBUG, optuna.logging.INFO, optuna.logging.ERROR])
def test_optunas_verbosity_stays_that_of_the_program(level: int, tmp_path: Path) -> None:
    before, handler = optuna.logging.get_verbosity(), logging.StreamHandler(lines := io.StringIO())
    logging.getLogger("optuna").addHandler(handler)
    try:
        optuna.logging.set_verbosity(level)
        url = f"sqlite:///{tmp_path / 'search.db'}"
        for _ in range(2):  # creates the study, and opens it
            OptunaStore(url, SPACE).attrs()
        assert optuna.logging.get_verbosity() == level
        assert not lines.getvalue()
        optuna.create_study(storage=url, study_name="of the program")
        assert ("study created" in lines.getvalue()) == (level <= optuna.logging.INFO)
    finally:
        logging.getLogger("optuna").removeHandler(handler)
        optuna.logging.set_verbosity(before)


def test_failures_keep_their_reason(store: TrialStore) -> None:
    trial = _trial(0)
    trial.finish(None, "out of memory")
    store.add(trial)
    assert (store.load()[0].state, store.load()[0].reason) == ("failed", "out of memory")


def test_an_optuna_study_has_the_values_that_dashboards_show(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    result = problem.search(storage=url).run(problem.evaluate)
    study = optuna.load_study(study_name="jointnas", storage=url)
    assert len(study.trials) == len(result.trials)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    first = study.trials[0]
    assert first.params["lr"] == result.trials[0].config["lr"]
    assert first.intermediate_values == result.trials[0].reports
    assert first.user_attrs["id"] == result.trials[0].id
    assert first.user_attrs["statistic.macs"] == result.trials[0].statistics["macs"]


def test_other_settings_on_a_storage_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    early = problem.search(storage=url, batch_size=9, seed=1)  # the study has no settings yet
    first = problem.search(storage=url)
    first.ask()
    with pytest.raises(SearchError, match="batch_size was 8, is 9; seed was 0, is 1"):
        problem.search(storage=url, batch_size=9, seed=1)
    first.close()
    with pytest.raises(SearchError, match="batch_size was 8, is 9; seed was 0, is 1"):
        early.ask()


def test_a_message_joins_the_conditions_of_a_variable_with_or(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"

    def search(*conditions: When) -> JointNAS:
        kernel = Choice("k", (3, 5), active_if=conditions)
        space = SearchSpace([IntRange("a", 1, 9), IntRange("b", 1, 9), kernel])
        return JointNAS(space, storage=url, batch_size=4, pool_size=64)

    one, other = When("a", ">", 1), When("b", "==", 2)
    search(one, other).ask()
    assert len(search(one, other).ask()) == 4  # continues
    with pytest.raises(SearchError, match="3, 5; if a > 1 or b == 2', is '3, 5; if a > 1'"):
        search(one)


class Killed(BaseException):
    """Stands for SIGKILL: no code catches it."""


def test_a_search_killed_after_every_second_trial_has_the_same_result(tmp_path: Path) -> None:
    undisturbed = problem.summary(problem.search().run(problem.evaluate))
    evaluated: list[str] = []
    kills = 0

    def evaluate(trial: Trial) -> float:
        nonlocal kills
        if len(evaluated) == 2 * (kills + 1):
            kills += 1
            raise Killed
        evaluated.append(trial.id)
        return problem.evaluate(trial)

    result = None
    while result is None:
        with contextlib.suppress(Killed):
            search = problem.search(storage=f"sqlite:///{tmp_path / 'search.db'}")
            result = search.run(evaluate)
    assert problem.summary(result) == undisturbed
    assert len(evaluated) == len(set(evaluated)) == len(undisturbed)
    assert kills == 9


def test_a_storage_that_another_program_wrote_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    search = problem.search(storage=url)
    trial = search.ask()[0]
    trial.id = "strange"
    with pytest.raises(SearchError, match="trial strange is not waiting for a result"):
        search.tell([trial], [1.0])
    trial.finish(1.0)
    OptunaStore(url, problem.space()).add(trial)
    search.close()
    with pytest.raises(SearchError, match="strange"):
        problem.search(storage=url).ask()
