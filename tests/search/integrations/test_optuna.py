"""The sampler of Optuna: Optuna's own tests of samplers, and what it learns."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest

from fbnetv3.search import SearchError
from fbnetv3.search.integrations.optuna import JointNASSampler

pytest.importorskip("optuna.testing.pytest_samplers")

from optuna.testing import pytest_samplers

pytestmark = pytest.mark.usefixtures("short_training")
optuna.logging.set_verbosity(optuna.logging.WARNING)


class TestOptunasOwnTests(
    pytest_samplers.BasicSamplerTestCase,
    pytest_samplers.RelativeSamplerTestCase,
    pytest_samplers.SingleOnlySamplerTestCase,
):
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return lambda: JointNASSampler(seed=0, n_startup_trials=6, pool_size=64, batch_size=2)


def _sphere(trial: optuna.Trial) -> float:
    x, y = trial.suggest_float("x", -3, 3), trial.suggest_int("y", -5, 5)
    kind = trial.suggest_categorical("kind", ["a", None, 1.5])
    return (x - 1) ** 2 + (y - 2) ** 2 + (kind is not None)


def _run(sampler: Any, objective: Any = _sphere, count: int = 25, **options: Any) -> optuna.Study:
    study = optuna.create_study(sampler=sampler, **options)
    study.optimize(objective, n_trials=count)
    return study


def test_it_finds_better_values_than_random_samples() -> None:
    best = [_run(JointNASSampler(seed=seed, pool_size=256)).best_value for seed in range(3)]
    randomly = [_run(optuna.samplers.RandomSampler(seed=seed)).best_value for seed in range(3)]
    assert np.median(best) < 0.5 * np.median(randomly)


def test_a_maximised_study_has_the_samples_of_the_minimised_negative() -> None:
    options = {"seed": 0, "pool_size": 64, "n_startup_trials": 6}
    low = _run(JointNASSampler(**options), count=12)
    high = _run(JointNASSampler(**options), lambda t: -_sphere(t), count=12, direction="maximize")
    assert [t.params for t in low.trials] == [t.params for t in high.trials]


def test_samples_follow_from_the_seed_and_a_pickle_goes_on() -> None:
    options = {"pool_size": 64, "n_startup_trials": 5, "batch_size": 3}
    params = [
        [t.params for t in _run(JointNASSampler(seed=seed, **options), count=10).trials]
        for seed in (0, 0, 1)
    ]
    assert params[0] == params[1]
    assert params[0] != params[2]
    study = _run(JointNASSampler(seed=0, **options), count=7)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(_sphere, n_trials=3)
    assert [t.params for t in study.trials] == params[0]


def test_startup_trials_spread_over_the_space() -> None:
    study = _run(JointNASSampler(seed=0, n_startup_trials=20, pool_size=64), count=17)
    x = np.array([t.params["x"] for t in study.trials[1:]])
    counts, _ = np.histogram(x, bins=4, range=(-3, 3))
    assert counts.tolist() == [4, 4, 4, 4]  # a scrambled Sobol sequence


def _constrained(trial: optuna.Trial) -> float:
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    if hasattr(trial, "set_constraint"):
        trial.set_constraint("sum", 1.0 - x - y)
    trial.set_user_attr("sum", 1.0 - x - y)
    return x + y  # the best values violate the constraint


@pytest.mark.parametrize("by_function", [False, True])
def test_candidates_stay_near_a_constraint_that_bounds_the_best(by_function: bool) -> None:
    if not by_function and not hasattr(optuna.Trial, "set_constraint"):
        pytest.skip("this Optuna has no trial.set_constraint")
    objective: Any = _constrained
    options: dict[str, Any] = {"seed": 0, "pool_size": 256}
    if by_function:
        options["constraints_func"] = lambda trial: [trial.user_attrs["sum"]]

        def objective(trial: optuna.Trial) -> float:
            x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
            trial.set_user_attr("sum", 1.0 - x - y)
            return x + y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = _run(JointNASSampler(**options), objective, count=30)
    feasible = [t.value for t in study.trials if t.user_attrs["sum"] <= 0]
    assert min(feasible) < 1.01  # the best allowed value is 1
    # the best candidates lie on the bound, so that many are beyond it, but only just
    assert np.quantile([t.user_attrs["sum"] for t in study.trials[10:]], 0.75) < 0.05
    unconstrained = _run(
        JointNASSampler(seed=0, pool_size=256), lambda t: sum(
            t.suggest_float(name, 0, 1) for name in "xy"
        ), count=20,
    )  # fmt: skip
    assert unconstrained.best_value < 0.3


def test_threads_share_a_sampler() -> None:
    study = optuna.create_study(sampler=JointNASSampler(seed=0, n_startup_trials=4, pool_size=64))
    study.optimize(_sphere, n_trials=12, n_jobs=3)
    values = [tuple(t.params.values()) for t in study.trials]
    assert len({*values}) >= 11  # the first ones are sampled at random


def test_trials_that_run_are_not_proposed_again() -> None:
    space = {"x": optuna.distributions.IntDistribution(1, 12)}
    study = optuna.create_study(sampler=JointNASSampler(seed=0, n_startup_trials=1))
    study.tell(study.ask(space), 1.0)
    asked = [study.ask(space).params["x"] for _ in range(11)]
    assert len({*asked, study.trials[0].params["x"]}) == 12
    assert study.ask(space).params["x"] in range(1, 13)  # all were tried


def test_conditions_fall_back_with_one_word(caplog: pytest.LogCaptureFixture) -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if trial.number % 2:
            x += trial.suggest_float("momentum", 0, 1)
        return x

    with caplog.at_level(logging.WARNING, "fbnetv3.search.integrations"):
        _run(JointNASSampler(seed=0, n_startup_trials=4, pool_size=64), objective, count=8)
    (record,) = caplog.records
    assert record.getMessage() == (
        "JointNASSampler samples 'momentum' at random, since not all complete trials have it in "
        "the same range; this is logged once (warn_independent_sampling=False: never)"
    )
    caplog.clear()
    options: dict[str, Any] = {"warn_independent_sampling": False, "pool_size": 64}
    _run(JointNASSampler(seed=0, **options), objective, count=4)
    assert not caplog.records


def test_failed_and_pruned_trials_are_not_sampled_again() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_int("x", 1, 10)
        if x % 3 == 0:
            raise optuna.TrialPruned
        if x % 3 == 1:
            return float("nan")
        return x

    study = _run(JointNASSampler(seed=0, n_startup_trials=2), objective, count=10)
    assert len({t.params["x"] for t in study.trials}) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_startup_trials": 0}, "n_startup_trials=0 is not allowed"),
        ({"batch_size": 0}, "batch_size=0 is not allowed"),
        ({"batch_size": 3, "pool_size": 2}, "pool_size=2 is not allowed"),
        ({"seed": -1}, "seed=-1 is not allowed"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        JointNASSampler(**options)


def test_without_optuna_the_extra_is_named() -> None:
    code = "import sys; sys.modules['optuna'] = None; import fbnetv3.search.integrations.optuna"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("pip install 'fbnetv3[search]'")
