from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from fbnetv3.search.errors import SearchError
from fbnetv3.search.predictors.default import DefaultPredictor
from fbnetv3.search.predictors.encoder import Pretrained, pretrain
from fbnetv3.search.predictors.gp import MAX_POINTS, GaussianProcess, subset
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from tests.search import problem


def _data(count: int = 300) -> tuple[np.ndarray, np.ndarray, Pretrained]:
    space = problem.space()
    pool = FeasibleSpace(Costs(space, problem.statistics)).sample(count, seed=5)
    encoding = Encoding(space)
    features = encoding.encode(pool.levels)
    labels = np.array([problem.quality(c) for c in space.configs(pool.levels)])
    columns = encoding.columns_of("architecture")
    return features, labels, pretrain(features, pool.statistics, columns, seed=0)


@pytest.mark.parametrize(("name", "least"), [("default", 0.75), ("paper", 0.4)])
def test_predictors_rank_unseen_candidates(name: str, least: float) -> None:
    features, labels, pretrained = _data()
    fitted = fit_function(name)(features[:96], labels[:96], pretrained, 0)
    found = spearmanr(fitted.predict(features[96:]), labels[96:]).statistic
    assert found > least
    honest = spearmanr(fitted.cross_validated(), labels[:96]).statistic
    # what cross-validation promises is near what unseen candidates show
    assert abs(honest - found) < 0.25


@pytest.mark.parametrize("name", ["default", "paper", "random"])
def test_cross_validation_of_noise_is_near_zero(name: str) -> None:
    features, labels, pretrained = _data()
    noise = np.random.default_rng(0).permutation(labels[:96])
    fitted = fit_function(name)(features[:96], noise, pretrained, 0)
    assert abs(spearmanr(fitted.cross_validated(), noise).statistic) < 0.35


@pytest.mark.parametrize("name", ["default", "paper", "random"])
def test_a_fit_follows_from_its_seed(name: str) -> None:
    features, labels, pretrained = _data()
    one, same, other = (
        fit_function(name)(features[:40], labels[:40], pretrained, seed).predict(features)
        for seed in (1, 1, 2)
    )
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize("name", ["default", "paper"])
def test_equal_labels_and_a_recipe_alone_are_no_trouble(name: str) -> None:
    features, _, _ = _data()
    fitted = fit_function(name)(features[:10], np.full(10, 3.0), Pretrained([]), 0)
    assert np.allclose(fitted.predict(features), 3.0, atol=1.0)


def test_the_random_one_draws_anew_each_round() -> None:
    features, labels, pretrained = _data()
    first, again, following, other = (
        fit_function("random")(features[:n], labels[:n], pretrained, seed).predict(features)
        for n, seed in ((24, 0), (24, 0), (48, 0), (24, 1))
    )
    assert np.array_equal(first, again)
    for draws in (following, other):
        assert abs(np.corrcoef(first, draws)[0, 1]) < 0.2
    assert abs(np.corrcoef(first, labels)[0, 1]) < 0.2


def test_an_unknown_predictor() -> None:
    with pytest.raises(SearchError, match=r"'papr'.*did you mean paper"):
        fit_function("papr")


def test_pretraining_learns_the_statistics() -> None:
    _, _, pretrained = _data(2000)
    assert pretrained.correlation["macs"] > 0.97


def test_pretraining_leaves_out_what_does_not_vary() -> None:
    features, _, _ = _data()
    found = pretrain(features, {"macs": np.ones(len(features))}, [0, 1], seed=0)
    assert found.weight is None


def test_scores_beyond_the_best_label_stay_near_it() -> None:
    features, labels, pretrained = _data()
    fitted = DefaultPredictor(features[:96], labels[:96], pretrained, 0)
    spread = labels[:96].std()
    far = fitted._in_units(np.array([10.0, -10.0]))
    assert labels[:96].max() < far[0] < labels[:96].max() + 10 * spread
    assert far[1] < labels[:96].min()


def _sklearn(process: GaussianProcess) -> GaussianProcessRegressor:
    kernel = ConstantKernel(process._signal) * Matern(process._scale.numpy(), nu=2.5)
    noise = process._noise + 1e-6
    other = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
    return other.fit(process._x.numpy(), process._y.numpy())


def _process(n: int = 60) -> tuple[GaussianProcess, np.ndarray]:
    features, labels, _ = _data()
    y = (labels[:n] - labels[:n].mean()) / labels[:n].std()
    x = features.astype(np.float64)
    return GaussianProcess(x[:n], y), x[n:]


def test_the_posterior_mean_is_scikit_learns() -> None:
    process, unseen = _process()
    assert np.allclose(process.mean(unseen), _sklearn(process).predict(unseen), atol=1e-5)


def test_the_fit_follows_its_gradient() -> None:
    process, _ = _process(30)
    random = np.random.default_rng(0)
    for _ in range(3):
        vector = process._theta + random.standard_normal(len(process._theta))
        value = lambda theta: process._negative_log_posterior(theta, process._x, process._y)[0]  # noqa: E731
        assert np.allclose(
            process._negative_log_posterior(vector, process._x, process._y)[1],
            approx_fprime(vector, value, 1e-6),
            rtol=1e-3,
            atol=1e-3,
        )


def test_leave_one_out_is_what_leaving_one_out_gives() -> None:
    process, _ = _process(20)
    x, y = process._x.numpy(), process._y.numpy()
    for i in (0, 7, 19):
        rest = np.arange(20) != i
        other = _sklearn(process).fit(x[rest], y[rest])
        assert process.leave_one_out()[i] == pytest.approx(other.predict(x[i : i + 1])[0], abs=1e-5)


def test_draws_have_the_mean_and_spread_of_the_posterior() -> None:
    process, unseen = _process()
    draws = process.draws(2000, np.random.default_rng(0))(unseen[:40])
    mean, deviation = _sklearn(process).predict(unseen[:40], return_std=True)
    assert np.abs(draws.mean(1) - mean).max() < 0.15
    # a finite number of waves has a little less spread
    assert 0.8 < (draws.std(1) / deviation).mean() < 1.1


def test_many_labels_are_cut_to_the_best_and_some_others() -> None:
    labels = np.random.default_rng(0).standard_normal(5000)
    chosen = subset(labels, seed=0)
    assert len(set(chosen.tolist())) == MAX_POINTS
    assert set(np.argsort(-labels)[: MAX_POINTS // 2]) <= set(chosen)
    assert labels[chosen].min() < 0
