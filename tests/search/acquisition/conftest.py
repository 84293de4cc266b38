"""Candidates of the synthetic problem, with a predictor that is fitted to 60 of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fbnetv3.search import Constraint
from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.predictors.default import DefaultPredictor
from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.space import keys_of
from tests.search import problem

_TRAINED, _ELITE = 60, 16


@pytest.fixture(scope="session")
def quality() -> Callable[[np.ndarray], np.ndarray]:
    """True scores, (n,), of candidates (n, variables)."""
    space = problem.space()

    def quality_of(levels: np.ndarray) -> np.ndarray:
        return np.array([problem.quality(config) for config in space.configs(levels)])

    return quality_of


@pytest.fixture(scope="session")
def candidates(quality) -> Candidates:
    space = problem.space()
    limit = Constraint("macs", upper=problem.UPPER)
    feasible = FeasibleSpace(Costs(space, problem.statistics), (limit,))
    pool = feasible.sample(512, seed=2)
    trained = pool.levels[:_TRAINED]
    elite = trained[np.argsort(-quality(trained))[:_ELITE]]
    return Candidates(feasible, Encoding(space), pool, elite)


@pytest.fixture(scope="session")
def predictor(candidates, quality) -> DefaultPredictor:
    trained = candidates.pool.levels[:_TRAINED]
    return DefaultPredictor(candidates.encode(trained), quality(trained), Pretrained([]), seed=0)


@pytest.fixture
def tried(candidates) -> set[bytes]:
    """Keys of the candidates that the predictor is fitted to."""
    return set(keys_of(candidates.pool.levels[:_TRAINED]))
