"""Fronts and hypervolumes agree with botorch's; the expected improvement also with sampling."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fbnetv3.search.acquisition.hypervolume import (
    hypervolume,
    hypervolume_improvement,
    log_expected_hypervolume_improvement,
    non_dominated,
    non_dominated_cells,
    reference_point,
)
from fbnetv3.search.acquisition.normal_improvement import log_expected_improvement

pytest.importorskip("botorch")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
    from botorch.acquisition.multi_objective.monte_carlo import qExpectedHypervolumeImprovement
    from botorch.sampling.normal import IIDNormalSampler
    from botorch.utils.multi_objective.box_decompositions.non_dominated import (
        FastNondominatedPartitioning,
    )
    from botorch.utils.multi_objective.hypervolume import Hypervolume, infer_reference_point
    from botorch.utils.multi_objective.pareto import is_non_dominated
    from botorch.utils.testing import MockModel, MockPosterior

GRID = st.integers(0, 5).map(float)  # equal values are frequent


def _points(count: int, objectives: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, objectives))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4).flatmap(lambda m: arrays(float, (7, m), elements=GRID)))
def test_fronts_and_volumes_are_botorchs(points: np.ndarray) -> None:
    front = is_non_dominated(torch.tensor(points), deduplicate=False).numpy()
    assert (non_dominated(points) == front).all()
    reference = np.full(points.shape[1], 0.5)
    if points.shape[1] > 1:
        exact = Hypervolume(torch.tensor(reference)).compute(torch.tensor(points[front]))
    else:
        exact = max(0.0, points.max() - 0.5)
    assert hypervolume(points, reference) == pytest.approx(exact, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 4).flatmap(lambda m: arrays(float, (6, m), elements=GRID)))
def test_an_improvement_is_the_difference_of_two_volumes(points: np.ndarray) -> None:
    reference, new = np.full(points.shape[1], -1.0), points[:1] + 0.5
    old = points[1:]
    gained = hypervolume(np.concatenate([old, new]), reference) - hypervolume(old, reference)
    improvement = hypervolume_improvement(new, non_dominated_cells(old, reference))
    assert improvement[0] == pytest.approx(gained, abs=1e-9)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_cells_do_not_overlap_and_leave_no_gap(objectives: int) -> None:
    points, reference = _points(12, objectives), np.full(objectives, -1.5)
    cells = non_dominated_cells(points, reference)
    assert np.isinf(cells.upper[:, 0]).all()
    at = np.random.default_rng(1).uniform(-1.5, 4, (5000, objectives))
    covering = ((cells.lower <= at[:, None]) & (at[:, None] < cells.upper)).all(2).sum(1)
    dominated = (at[:, None] < points).all(2).any(1)
    assert (covering == ~dominated).all()


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_expected_improvement_of_normal_scores_is_botorchs(objectives: int) -> None:
    points, reference = _points(10, objectives), np.full(objectives, -2.0)
    means, stds = _points(20, objectives, 1), np.exp(_points(20, objectives, 2) - 1)
    cells = non_dominated_cells(points, reference)
    ours = log_expected_hypervolume_improvement(means, stds, np.zeros((20, 0)), cells)
    posterior = MockPosterior(
        mean=torch.tensor(means)[:, None], variance=torch.tensor(stds**2)[:, None]
    )
    partitioning = FastNondominatedPartitioning(torch.tensor(reference), torch.tensor(points))
    exact = ExpectedHypervolumeImprovement(
        MockModel(posterior), ref_point=reference.tolist(), partitioning=partitioning
    )(torch.zeros(20, 1, 1, dtype=torch.float64))
    np.testing.assert_allclose(np.exp(ours), exact.numpy(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_known_costs_enter_exactly_as_botorchs_samples_say(objectives: int) -> None:
    points, reference = _points(9, objectives), np.full(objectives, -2.0)
    mean, std, count = 0.4, 0.6, 2**16
    known = _points(5, objectives - 1, 3)
    cells = non_dominated_cells(points, reference)
    ours = log_expected_hypervolume_improvement(
        np.full((5, 1), mean), np.full((5, 1), std), known, cells
    )
    quantiles = torch.randn(count, generator=torch.Generator().manual_seed(0)).numpy()
    acquisition = qExpectedHypervolumeImprovement(
        MockModel(MockPosterior(samples=torch.zeros(1, objectives))),
        ref_point=reference.tolist(),
        partitioning=FastNondominatedPartitioning(torch.tensor(reference), torch.tensor(points)),
        sampler=IIDNormalSampler(torch.Size([count]), seed=0),
    )
    for row, value in zip(known, ours, strict=True):
        samples = np.column_stack([mean + std * quantiles, np.tile(row, (count, 1))])
        sampled = float(acquisition._compute_qehvi(torch.tensor(samples)[:, None, None]))
        assert np.exp(value) == pytest.approx(sampled, rel=0.02, abs=1e-3)


def test_one_objective_is_the_expected_improvement() -> None:
    means, stds = _points(50, 1), np.exp(_points(50, 1, 1))
    cells = non_dominated_cells(np.array([[0.3], [0.1]]), np.array([-1.0]))
    ours = log_expected_hypervolume_improvement(means, stds, np.zeros((50, 0)), cells)
    np.testing.assert_allclose(ours, log_expected_improvement(means[:, 0], stds[:, 0], 0.3))


def test_far_below_the_front_candidates_are_still_told_apart() -> None:
    cells = non_dominated_cells(np.array([[5.0, 1.0], [4.0, 2.0]]), np.array([0.0, 0.0]))
    far = np.array([[-300.0], [-301.0]])
    ours = log_expected_hypervolume_improvement(far, np.full((2, 1), 0.1), np.ones((2, 1)), cells)
    assert np.isfinite(ours).all()
    assert ours[0] > ours[1]


def test_a_cost_beyond_the_reference_point_rules_an_improvement_out() -> None:
    cells = non_dominated_cells(np.array([[1.0, -5.0]]), np.array([0.0, -10.0]))
    ours = log_expected_hypervolume_improvement(
        np.ones((2, 1)), np.ones((2, 1)), np.array([[-11.0], [-9.0]]), cells
    )
    assert ours[0] == -np.inf
    assert np.isfinite(ours[1])


@pytest.mark.parametrize("points", [_points(6, 3), np.array([[2.0, -3.0, 0.0]])])
def test_the_reference_point_is_botorchs(points: np.ndarray) -> None:
    ours = reference_point(points)
    np.testing.assert_allclose(ours[:2], infer_reference_point(torch.tensor(points)).numpy()[:2])


def test_a_known_worst_cost_replaces_that_of_the_front() -> None:
    points = np.array([[1.0, -4.0], [2.0, -6.0]])
    np.testing.assert_allclose(reference_point(points, np.array([np.nan, -14.0])), [0.9, -15.0])
