"""Warm starts from studies of Optuna, their csv, and the folders of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from fbnetv3.search import Choice, FloatRange, IntRange, SearchError, SearchSpace, StoredStudy, When
from fbnetv3.search.storage.database import sqlite_url
from fbnetv3.search.storage.earlier_trials import config_in_space
from fbnetv3.search.storage.warm_start import read_warm_start
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")

SPACE = SearchSpace(
    [
        IntRange("depth", 1, 5),
        FloatRange("lr", 1e-4, 1e-1, log=True),
        Choice("kernel", (3, 5)),
        Choice("optim", ("sgd", "rmsprop")),
        Choice("nesterov", (True, False), active_if=When("optim", "==", "sgd")),
    ]
)


def _objective(trial: optuna.Trial) -> float:
    optim = trial.suggest_categorical("optim", ["sgd", "rmsprop", "adam"])
    depth = trial.suggest_int("depth", 1, 6)
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trial.suggest_categorical("kernel", [3, 5])
    if optim == "sgd":
        trial.suggest_categorical("nesterov", [True, False])
    if trial.number == 17:
        raise optuna.TrialPruned
    if trial.number == 18:
        raise ValueError("broken")
    if trial.number == 19:
        trial.suggest_float("momentum", 0.0, 1.0)
    return depth - abs(lr - 0.01)


def _study(storage: str | None = None, direction: str = "maximize") -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=2)
    study = optuna.create_study(
        storage=storage, study_name="mine", direction=direction, sampler=sampler
    )
    for number in range(2):  # without kernel, and one that never ran
        study.enqueue_trial({"depth": number + 1})
    study.optimize(_objective, n_trials=20, catch=(ValueError,))
    study.add_trial(
        optuna.create_trial(
            params={"depth": 3},
            distributions={"depth": optuna.distributions.IntDistribution(1, 6)},
            value=1.0,
        )
    )
    study.enqueue_trial({"depth": 2})
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    return _study(sqlite_url(tmp_path_factory.mktemp("study") / "optuna.db"))


@pytest.fixture(scope="module")
def expected(study: optuna.Study) -> dict[int, tuple[Any, ...]]:
    """The values of each trial that fits to the space, by its number."""
    rows = {}
    for trial in study.trials[:17]:
        p = trial.params
        if p["optim"] != "adam" and p["depth"] <= 5:
            nesterov = p.get("nesterov", True)
            values = (p["depth"], pytest.approx(p["lr"], 1e-5), p["kernel"], p["optim"], nesterov)
            rows[trial.number] = (*values, trial.value)
    return rows


def _rows(trials: Any) -> list[tuple[Any, ...]]:
    return [(*(t.config[name] for name in SPACE.names), t.score) for t in trials]


def _source(kind: str, study: optuna.Study, folder: Path) -> Any:
    url = study._storage.url if hasattr(study._storage, "url") else study._storage._backend.url
    if kind == "csv":
        study.trials_dataframe().to_csv(folder / "trials.csv")
        return folder / "trials.csv"
    return {"study": study, "url": url, "named": StoredStudy(url, "mine")}[kind]


@pytest.mark.parametrize("kind", ["study", "url", "named", "csv"])
def test_trials_of_a_study_are_taken_and_the_others_are_counted(
    kind: str, study: optuna.Study, expected: dict[int, tuple[Any, ...]], tmp_path: Path
) -> None:
    source = _source(kind, study, tmp_path)
    started = read_warm_start(SPACE, source)
    assert _rows(started.trials) == list(expected.values())
    assert [t.batch for t in started.trials] == [-1] * len(expected)
    params = [t.params for t in study.trials[:17]]
    adam = sum(p["optim"] == "adam" for p in params)
    deep = sum(p["optim"] != "adam" and p["depth"] > 5 for p in params)
    assert min(adam, deep) > 0
    assert started.count == 22
    assert started.left_out == {
        "with a value of optim that is not in the space": adam,
        "with a value of depth that is not in the space": deep,
        "pruned": 1,
        "failed": 1,
        "with 'momentum', which the space lacks": 1,
        "without a value of kernel, lr, optim": 1,
        "without a result": 1,
    }
    text = str(started)
    assert f": {len(expected)} of 22 trials; not taken: " in text
    assert "1 pruned" in text


def test_active_variables_must_have_a_value() -> None:
    values = {"depth": 2, "lr": 0.01, "kernel": 3}
    assert config_in_space(SPACE, {**values, "optim": "rmsprop"})[1] == ""
    assert config_in_space(SPACE, {**values, "optim": "sgd", "nesterov": "True"})[1] == ""
    assert config_in_space(SPACE, {**values, "optim": "sgd"}) == ({}, "without a value of nesterov")


def test_a_search_starts_from_a_study_and_reports_it(study: optuna.Study) -> None:
    from fbnetv3.search import JointNAS

    arguments: dict[str, Any] = {"pool_size": 64, "batch_size": 2, "iterations": 1, "finalists": 0}
    search = JointNAS(SPACE, warm_start=study, **arguments)
    assert search.ask()[0].predicted is not None
    assert str(search.warm_start).startswith("warm start from the study 'mine': ")
    pairs = [(t.config, t.score) for t in search.warm_start.trials]
    again = JointNAS(SPACE, warm_start=pairs, **arguments)
    assert [t.id for t in again.ask()] == [t.id for t in search.ask()]


def test_a_minimised_study_starts_a_minimising_search() -> None:
    study = _study(direction="minimize")
    assert len(read_warm_start(SPACE, study, "minimize").trials) > 5
    with pytest.raises(SearchError, match=r"has the direction 'minimize', but the search has"):
        read_warm_start(SPACE, study)


def test_trials_of_a_run_folder_keep_the_types_of_their_values(tmp_path: Path) -> None:
    before = problem.search(
        storage=sqlite_url(tmp_path / "search.db"), iterations=1, finalists=0, pool_size=64
    )
    trials = before.ask()
    before.tell(trials, [*map(float, range(7)), None])
    before.close()
    started = read_warm_start(problem.space(), tmp_path)
    assert [(t.id, t.score) for t in started.trials] == [
        (t.id, float(i)) for i, t in enumerate(trials[:7])
    ]
    assert started.left_out == {"failed": 1}
    assert (tmp_path / "search.db").stat().st_size  # read from a copy
    url = sqlite_url(tmp_path / "search.db")
    table = optuna.load_study(study_name="jointnas", storage=url).trials_dataframe()
    table.to_csv(tmp_path / "trials.csv", index=False)
    again = read_warm_start(problem.space(), tmp_path / "trials.csv")
    assert [t.id for t in again.trials] == [t.id for t in trials[:7]]


def _two_studies(folder: Path) -> str:
    url = sqlite_url(folder / "two.db")
    for name in ("a", "b"):
        optuna.create_study(storage=url, study_name=name)
    return url


def _no_study(folder: Path) -> str:
    url = sqlite_url(folder / "none.db")
    optuna.create_study(storage=url, study_name="a")
    optuna.delete_study(storage=url, study_name="a")
    return url


def _several_objectives(folder: Path) -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(lambda trial: (trial.suggest_float("lr", 0, 1), 1.0), n_trials=2)
    return study


def _csv_of_several(folder: Path) -> Path:
    _several_objectives(folder).trials_dataframe().to_csv(folder / "x.csv")
    return folder / "x.csv"


def _text(folder: Path, text: str) -> Path:
    (folder / "x.csv").write_text(text, encoding="utf-8")
    return folder / "x.csv"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f, "holds no search.db; give the folder of a run"),
        (lambda f: sqlite_url(f / "no.db"), "no.db does not exist; give another one"),
        (_two_studies, "two.db has several studies; it has 'a', 'b'; name one of them"),
        (_no_study, "none.db has no study; give another one"),
        (lambda f: StoredStudy(_no_study(f), "c"), "none.db has no study; give another one"),
        (lambda f: StoredStudy(_two_studies(f), "c"), "two.db has no study 'c'; it has 'a', 'b'"),
        (_several_objectives, "has 2 objectives; allowed: studies with one"),
        (_csv_of_several, "has several objectives; allowed: studies with one"),
        (lambda f: _text(f, "state,params_lr\nCOMPLETE,1\n"), "the column 'value' is missing"),
        (
            lambda f: _text(f, "state,value,params_lr\nFAIL,,1\nPRUNED,1,1\n"),
            "none of the 2 trials of .*x.csv can be taken: 1 failed, 1 pruned; give another",
        ),
        (
            lambda f: optuna.create_study(study_name="s", direction="maximize"),
            "none of the 0 trials of the study 's' can be taken; give another source, or none",
        ),
        (lambda f: "nosuch://x", "warm start: cannot read storage nosuch://x: "),
    ],
)
def test_sources_without_trials_are_refused(make: Any, message: str, tmp_path: Path) -> None:
    source = make(tmp_path)
    with pytest.raises(SearchError, match=message) as caught:
        read_warm_start(SPACE, source)
    assert str(caught.value).isprintable()
