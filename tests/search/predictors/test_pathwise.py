from __future__ import annotations

import numpy as np

from fbnetv3.search.predictors.fantasies import FantasyModel
from fbnetv3.search.predictors.pathwise import draw_matheron_paths
from tests.search.predictors.synthetic import fitted_gp


def test_samples_have_the_mean_and_spread_of_the_posterior() -> None:
    gp, unseen = fitted_gp()
    values = draw_matheron_paths(gp, 2000, np.random.default_rng(0))(unseen[:40])
    mean, std = FantasyModel(gp, 0).posterior(unseen[:40])
    assert np.abs(values.mean(1) - mean).max() < 0.15
    # a finite number of Fourier features has a slightly smaller spread
    assert 0.8 < (values.std(1) / std).mean() < 1.1


def test_samples_pass_near_the_labels() -> None:
    gp, _ = fitted_gp()
    values = draw_matheron_paths(gp, 200, np.random.default_rng(0))(gp.X.numpy())
    residuals = values - gp.y.numpy()[:, None]
    assert residuals.std() < 3 * np.sqrt(gp.noise)


def test_evaluate_each_selects_from_all_functions() -> None:
    gp, unseen = fitted_gp()
    samples = draw_matheron_paths(gp, 30, np.random.default_rng(0))
    functions = np.random.default_rng(1).integers(0, 30, 50)
    expected = samples(unseen[:50])[np.arange(50), functions]
    assert np.allclose(samples.evaluate_each(unseen[:50], functions), expected, atol=1e-9)
