"""Non-dominated sorting and crowding agree with Optuna's; a front is evolved and spread."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna.samplers.nsgaii._elite_population_selection_strategy import _calc_crowding_distance
from optuna.study import _multi_objective

from fbnetv3.search import EvolutionSettings
from fbnetv3.search.acquisition.front_batch import even_directions
from fbnetv3.search.acquisition.front_evolution import evolve_front, spread_over_front
from fbnetv3.search.acquisition.hypervolume import hypervolume
from fbnetv3.search.acquisition.nsga2 import crowding_distances, non_domination_ranks, survivors

reference_ranks = getattr(_multi_objective, "_fast_non_domination_rank", None)
GRID = st.integers(0, 6).map(float)  # equal values are frequent


@pytest.mark.skipif(reference_ranks is None, reason="Optuna 3.6 has another function of ranks")
@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4).flatmap(lambda m: arrays(float, (15, m), elements=GRID)))
def test_ranks_are_optunas(points: np.ndarray) -> None:
    assert (non_domination_ranks(points) == reference_ranks(-points)).all()


@pytest.mark.parametrize("objectives", [2, 3])
def test_crowding_distances_are_optunas(objectives: int) -> None:
    points = np.random.default_rng(0).normal(size=(20, objectives))
    trials = [optuna.trial.create_trial(values=row) for row in points.tolist()]
    for number, trial in enumerate(trials):
        trial.number = number
    theirs = _calc_crowding_distance(list(trials))
    np.testing.assert_allclose(crowding_distances(points), [theirs[i] for i in range(20)])


def test_survivors_are_the_best_ranks_and_the_least_crowded() -> None:
    points = np.array([[0, 4], [1, 3], [1.1, 2.9], [4, 0], [0, 0], [0.5, 0.5]])
    assert survivors(points, 5).tolist()[:2] == [0, 3]
    assert set(survivors(points, 4)) == {0, 1, 2, 3}
    assert survivors(points, 6).tolist()[4:] == [5, 4]
    assert survivors(points[:0], 3).tolist() == []


def test_an_evolution_extends_the_front(candidates, quality) -> None:
    def points_of(pool) -> np.ndarray:
        return np.column_stack([quality(pool.levels), -pool.statistics["macs"]])

    first = candidates.pool.take(np.arange(60))
    reference = np.array([-10.0, -700.0])
    evolved = evolve_front(
        candidates.feasible_space, first, points_of, reference,
        EvolutionSettings(top=30, children=6), np.random.default_rng(0),
    )  # fmt: skip
    assert evolved.history[0] == pytest.approx(hypervolume(points_of(first), reference))
    assert evolved.history[-1] > 1.02 * evolved.history[0]
    assert len(evolved.pool) == 30
    assert (points_of(evolved.pool) == evolved.points).all()
    whole = hypervolume(points_of(candidates.pool), reference)
    assert evolved.history[-1] > 0.99 * whole


def test_chosen_points_are_spread_over_the_front() -> None:
    angle = np.linspace(0, np.pi / 2, 101)
    points = np.column_stack([np.cos(angle), np.sin(angle)])
    none = np.zeros((0, 2))
    chosen = spread_over_front(points, none, np.zeros(2), 7)
    gaps = np.diff(np.sort(chosen))
    assert len(set(chosen)) == 7
    assert gaps.max() < 25
    beyond = spread_over_front(points * 0.5, points, np.zeros(2), 3)
    assert len(set(beyond)) == 3  # none extends the front: those of NSGA-II
    assert set(beyond[:2]) == {0, 100}
    assert len(spread_over_front(points[:2], none, np.zeros(2), 5)) == 2


def test_directions_are_positive_and_spread_evenly() -> None:
    directions = even_directions(48, 2, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert (directions > 0).all()
    assert np.histogram(np.arctan2(*directions.T), 4, (0, np.pi / 2))[0].min() >= 6
