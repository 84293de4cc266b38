"""Batches for a front: improvement of the hypervolume, and scalarised samples."""

from __future__ import annotations

import numpy as np
import pytest

from fbnetv3.search.acquisition.front_batch import (
    FrontImprovement,
    ScalarisedSamples,
    Trained,
    next_front_batch,
)
from fbnetv3.search.acquisition.hypervolume import (
    hypervolume_improvement,
    log_expected_hypervolume_improvement,
    non_dominated_cells,
)
from fbnetv3.search.space.space import keys_of


@pytest.fixture(scope="module")
def trained(candidates) -> Trained:
    def cost_gains(levels: np.ndarray) -> np.ndarray:
        return -candidates.with_statistics(levels).statistics["macs"][:, None]

    worst = cost_gains(candidates.pool.levels).min(0)
    return Trained(candidates.pool.levels[:60], cost_gains, worst)


def test_a_batch_is_new_feasible_and_extends_the_front(
    candidates, predictor, trained, tried, quality
) -> None:
    pending = candidates.pool.levels[60:64]
    tried = tried | set(keys_of(pending))
    batch = next_front_batch(
        candidates, [predictor], trained, 12, tried, np.random.default_rng(0), pending
    )
    keys = set(keys_of(batch.levels))
    assert len(batch) == len(keys) == 12
    assert not keys & tried
    assert candidates.feasible(batch.levels).all()

    def points(levels: np.ndarray) -> np.ndarray:
        return np.column_stack([quality(levels), trained.cost_gains(levels)])

    known = points(trained.levels)
    cells = non_dominated_cells(known, trained.reference(known))
    pool = candidates.pool.levels[64:]
    gains = [hypervolume_improvement(points(x), cells).mean() for x in (batch.levels, pool)]
    assert gains[0] > 3 * gains[1]


def test_a_chosen_candidate_promises_no_further_improvement(candidates, predictor, trained) -> None:
    none = candidates.pool.levels[:0]
    improvement = FrontImprovement(candidates, [predictor.gp], trained, none, 1)
    levels = candidates.pool.levels[60:]
    visited = improvement.visit(levels, candidates.encode(levels))
    before = improvement.log_of_visited(visited)
    best = int(before.argmax())
    improvement.choose(visited, best)
    after = improvement.log_of_visited(visited)
    # as good as the fantasy for the same cost, which the smaller variance alone does not explain
    means, stds = (values[:, None] for values in visited.posteriors[0].posterior())
    costs, known = visited.costs, np.column_stack([
        predictor.gp.mean(candidates.encode(trained.levels)), trained.cost_gains(trained.levels)
    ])  # fmt: skip
    cells = non_dominated_cells(known, trained.reference(known))
    without = log_expected_hypervolume_improvement(means, stds, costs, cells)
    assert after[best] < without[best] - 0.1 < before[best] - 0.1
    direct = improvement.log_of(levels, candidates.encode(levels))
    np.testing.assert_allclose(after, direct, rtol=1e-6, atol=1e-6)


def test_each_function_alone_has_the_values_of_all_at_once(candidates, predictor, trained) -> None:
    random = np.random.default_rng(0)
    samples = [predictor.sample(6, random), predictor.sample(6, random)]
    scalarised = ScalarisedSamples(candidates, samples, trained, random)
    levels = candidates.pool.levels[:30]
    functions = np.arange(30) % 6
    values = scalarised(levels)
    assert values.shape == (30, 6)
    np.testing.assert_allclose(
        scalarised.evaluate_each(levels, functions), values[np.arange(30), functions]
    )


def test_directions_favour_different_costs(candidates, predictor, trained) -> None:
    random = np.random.default_rng(0)
    scalarised = ScalarisedSamples(candidates, [predictor.sample(16, random)], trained, random)
    optima = candidates.pool.levels[scalarised(candidates.pool.levels).argmax(0)]
    costs = -trained.cost_gains(optima)[:, 0]
    assert np.ptp(costs) > 0.4 * np.ptp(candidates.pool.statistics["macs"])
