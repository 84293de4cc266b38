from __future__ import annotations

import numpy as np
import pytest

from fbnetv3.search import IntRange, SearchSpace
from fbnetv3.search.acquisition.batch import next_batch
from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.predictors.default import DefaultPredictor
from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.space import keys_of
from tests.search import problem


@pytest.mark.parametrize("count", [1, 2, 7, 24, 150])
def test_a_batch_is_new_distinct_feasible_and_determined_by_its_seed(
    candidates, predictor, tried, count: int
) -> None:
    first, same, other = (
        next_batch(candidates, predictor, count, tried, np.random.default_rng(seed))
        for seed in (0, 0, 1)
    )
    keys = keys_of(first.levels)
    assert len(set(keys)) == len(first) == count
    assert not tried & set(keys)
    assert (first.statistics["macs"] <= problem.UPPER).all()
    assert (candidates.space.canonical(first.levels) == first.levels).all()
    assert (first.levels == same.levels).all()
    assert keys != keys_of(other.levels)


def test_a_batch_of_an_exhausted_space_is_all_that_is_left() -> None:
    space = SearchSpace([IntRange("a", 1, 4), IntRange("b", 1, 3)])
    feasible, encoding = FeasibleSpace(Costs(space, None)), Encoding(space)
    pool = feasible.sample(100, seed=0)
    assert len(pool) == 12
    trained, features = pool.levels[:9], encoding.encode(pool.levels[:9])
    predictor = DefaultPredictor(features, trained.sum(1).astype(float), Pretrained([]), 0)
    candidates = Candidates(feasible, encoding, pool, trained[:4])
    tried = set(keys_of(trained))
    batch = next_batch(candidates, predictor, 6, tried, np.random.default_rng(0))
    assert set(keys_of(batch.levels)) == set(keys_of(pool.levels[9:]))
