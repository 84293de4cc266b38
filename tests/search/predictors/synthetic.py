"""Candidates of the synthetic problem with labels, and a process fitted to some of them."""

from __future__ import annotations

import numpy as np

from fbnetv3.search.predictors.encoder import Pretrained, pretrain
from fbnetv3.search.predictors.gp import GaussianProcess
from fbnetv3.search.predictors.hyperparameters import fit_gp
from fbnetv3.search.predictors.networks import standardise
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from tests.search import problem


def labelled_pool(count: int = 300) -> tuple[np.ndarray, np.ndarray, Pretrained]:
    """Returns features, labels and an encoder that is pre-trained on the candidates' statistics."""
    space = problem.space()
    pool = FeasibleSpace(Costs(space, problem.statistics)).sample(count, seed=5)
    encoding = Encoding(space)
    features = encoding.encode(pool.levels)
    labels = np.array([problem.quality(config) for config in space.configs(pool.levels)])
    columns = encoding.columns_of("architecture")
    return features, labels, pretrain(features, pool.statistics, columns, seed=0)


def fitted_gp(n: int = 60) -> tuple[GaussianProcess, np.ndarray]:
    """Returns a process fitted to n candidates, and the features of the others."""
    features, labels, _ = labelled_pool()
    X = features.astype(np.float64)
    return fit_gp(X[:n], standardise(labels[:n])[0]), X[n:]
