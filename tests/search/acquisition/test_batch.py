from __future__ import annotations

import mpmath
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from fbnetv3.search import Constraint, IntRange, SearchSpace
from fbnetv3.search.acquisition.batch import (
    improvement_batch,
    log_improvement,
    next_batch,
    thompson_batch,
)
from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.predictors.believed import Believed
from fbnetv3.search.predictors.default import DefaultPredictor
from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.predictors.gp import GaussianProcess
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.space import keys_of
from tests.search import problem

SPACE = problem.space()
FEASIBLE = FeasibleSpace(
    Costs(SPACE, problem.statistics), (Constraint("macs", upper=problem.UPPER),)
)


def _quality(levels: np.ndarray) -> np.ndarray:
    return np.array([problem.quality(c) for c in SPACE.configs(levels)])


@pytest.fixture(scope="module")
def candidates() -> Candidates:
    pool = FEASIBLE.sample(512, seed=2)
    order = np.argsort(-_quality(pool.levels[:60]))
    return Candidates(FEASIBLE, Encoding(SPACE), pool, pool.levels[:60][order[:16]])


@pytest.fixture(scope="module")
def predictor(candidates) -> DefaultPredictor:
    trained = candidates.pool.levels[:60]
    features = candidates.encode(trained)
    return DefaultPredictor(features, _quality(trained), Pretrained([]), seed=0)


@pytest.fixture
def tried(candidates) -> set[bytes]:
    return set(keys_of(candidates.pool.levels[:60]))


@pytest.mark.parametrize("z", [40.0, 3.0, 0.0, -0.99, -1.01, -5.0, -20.0, -300.0, -9e4, -2e5])
def test_log_improvement_is_that_of_its_formula_with_many_digits(z: float) -> None:
    with mpmath.workdps(60):
        exact = mpmath.log(0.5 * (mpmath.npdf(z) + z * mpmath.ncdf(z)))
    found = log_improvement(np.array([1.0 + 0.5 * z]), np.array([0.5]), 1.0)[0]
    assert found == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


def test_believing_predictions_is_having_them_for_labels() -> None:
    random = np.random.default_rng(0)
    x, new, watched = random.random((30, 3)), random.random((4, 3)), random.random((9, 3))
    y = np.sin(5 * x).sum(1)
    process = GaussianProcess(x, (y - y.mean()) / y.std())
    believed = Believed(process, 8)
    early = believed.watch(watched)
    for row in new[:3]:
        believed.add(row[None])
    late = believed.watch(watched)
    last = believed.watch(new)
    assert believed.add_watched(last, 3) == pytest.approx(process.mean(new[3:])[0])
    kernel = ConstantKernel(process._signal) * Matern(process._scale.numpy(), nu=2.5)
    other = GaussianProcessRegressor(kernel, alpha=process._noise + 1e-6, optimizer=None)
    labels = np.concatenate([process._y.numpy(), process.mean(new)])
    mean, deviation = other.fit(np.concatenate([x, new]), labels).predict(watched, return_std=True)
    for found in (early.posterior(), late.posterior(), believed.posterior(watched)):
        assert np.allclose(found[0], mean, atol=1e-6)
        assert np.allclose(found[1], deviation, atol=1e-6)


def test_improvement_is_climbed_beyond_the_pool(candidates, predictor, tried) -> None:
    random = np.random.default_rng(0)
    process = predictor.process
    batch = improvement_batch(candidates, process, 5, tried, random)

    def improvement(levels: np.ndarray) -> np.ndarray:
        x = candidates.encode(levels).astype(np.float64)
        return log_improvement(*Believed(process, 0).posterior(x), process.best)

    assert improvement(batch[:1])[0] > improvement(candidates.pool.levels).max()
    assert _quality(batch).min() > np.quantile(_quality(candidates.pool.levels), 0.9)


@pytest.mark.parametrize("count", [1, 2, 7, 24, 150])
def test_a_batch_is_new_distinct_feasible_and_follows_from_its_seed(
    candidates, predictor, tried, count: int
) -> None:
    one, same, other = (
        next_batch(candidates, predictor, count, tried, np.random.default_rng(seed))
        for seed in (0, 0, 1)
    )
    keys = keys_of(one.levels)
    assert len(set(keys)) == len(one) == count
    assert not tried & set(keys)
    assert (one.statistics["macs"] <= problem.UPPER).all()
    assert (SPACE.canonical(one.levels) == one.levels).all()
    assert (one.levels == same.levels).all()
    assert keys != keys_of(other.levels)


def test_draws_spread_a_batch(candidates, predictor, tried) -> None:
    draws = predictor.draws(12, np.random.default_rng(0))
    batch = thompson_batch(candidates, draws, tried, np.random.default_rng(0))
    assert len(set(keys_of(batch))) == 12
    assert candidates.encode(batch).std(0).sum() > 0.1


def test_a_function_a_candidate_is_what_all_functions_give(candidates, predictor) -> None:
    draws = predictor.draws(30, np.random.default_rng(0))
    features = candidates.encode(candidates.pool.levels[:50])
    functions = np.random.default_rng(1).integers(0, 30, 50)
    wanted = draws(features)[np.arange(50), functions]
    assert np.allclose(draws.own(features, functions), wanted, rtol=1e-6, atol=1e-6)


def test_an_exhausted_space_gives_what_is_left() -> None:
    space = SearchSpace([IntRange("a", 1, 4), IntRange("b", 1, 3)])
    feasible, encoding = FeasibleSpace(Costs(space, None)), Encoding(space)
    pool = feasible.sample(100, seed=0)
    assert len(pool) == 12
    trained, features = pool.levels[:9], encoding.encode(pool.levels[:9])
    predictor = DefaultPredictor(features, trained.sum(1).astype(float), Pretrained([]), 0)
    whole = Candidates(feasible, encoding, pool, trained[:4])
    batch = next_batch(whole, predictor, 6, set(keys_of(trained)), np.random.default_rng(0))
    assert set(keys_of(batch.levels)) == set(keys_of(pool.levels[9:]))
