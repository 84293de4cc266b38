"""Final scores estimated from partial ones, against numpy on simulated trainings."""

from __future__ import annotations

import numpy as np
import pytest

from fbnetv3.search.predictors.final_scores import MIN_PAIRS, FinalScores

NAN = np.nan


def _simulated(count: int, seed: int = 0, promoted: float = 1.0) -> np.ndarray:
    """Returns gains after three rungs; only the best share after a rung reaches the next."""
    random = np.random.default_rng(seed)
    first = random.normal(50, 4, count)
    second = 20 + 0.8 * first + random.normal(0, 1.5, count)
    third = 5 + 1.1 * second + random.normal(0, 1, count)
    gains = np.stack([first, second, third], 1)
    kept = np.arange(count)
    for r in range(2):
        kept = kept[np.argsort(-gains[kept, r])][: round(promoted * len(kept))]
        gains[np.setdiff1d(np.arange(count), kept), r + 1 :] = NAN
    return gains


def test_whole_trainings_keep_their_scores() -> None:
    gains = _simulated(20)
    final = FinalScores(gains)
    assert np.array_equal(final.means, gains[:, -1])
    assert not final.stds.any()


def test_lines_are_those_of_least_squares_if_many_candidates_went_on() -> None:
    gains = _simulated(4000)
    for r, line in enumerate(FinalScores(gains).lines):
        slope, intercept = np.polyfit(gains[:, r], gains[:, r + 1], 1)
        residual = gains[:, r + 1] - slope * gains[:, r] - intercept
        assert line.slope == pytest.approx(slope, rel=2e-3)
        assert line.intercept == pytest.approx(intercept, rel=5e-3)
        assert line.variance == pytest.approx(residual.var(), rel=1e-2)
        assert line.pairs == 4000


def test_selection_hides_no_correlation() -> None:
    whole, kept = _simulated(3000), _simulated(3000, promoted=1 / 3)
    reached = [whole[~np.isnan(kept[:, r])] for r in range(3)]  # with all of their scores
    true = [float(np.corrcoef(gains[:, r], gains[:, 2])[0, 1]) for r, gains in enumerate(reached)]
    assert FinalScores(kept).correlations == pytest.approx(true, abs=0.03)
    # among those that went on, the correlation is much lower
    rows = ~np.isnan(kept[:, 1])
    assert np.corrcoef(kept[rows, 0], kept[rows, 1])[0, 1] < true[0] - 0.1


def test_estimates_of_good_candidates_are_as_far_off_as_they_say() -> None:
    misses = []
    for seed in range(20):
        whole, partial = _simulated(120, seed), _simulated(120, seed, promoted=1 / 3)
        final = FinalScores(partial)
        rows = np.isnan(partial[:, 2]) & (partial[:, 0] > np.median(partial[:, 0]))
        z = ((final.means - whole[:, 2]) / np.maximum(final.stds, 1e-9))[rows]
        misses.append(z.std())  # the candidates share the error of the line
    assert 0.8 < np.mean(misses) < 1.25


def test_scores_that_say_nothing_have_no_correlation() -> None:
    random = np.random.default_rng(3)
    gains = np.stack([random.normal(size=60), random.normal(size=60)], 1)
    gains[20:, 1] = NAN
    final = FinalScores(gains)
    assert final.correlations[0] < 0.4
    assert final.stds[30] > 0.7 * np.nanstd(gains[:, 1])
    opposed = FinalScores(np.stack([gains[:20, 1], -gains[:20, 1]], 1))
    assert opposed.correlations[0] < 0.2


@pytest.mark.parametrize(
    "gains",
    [
        np.zeros((0, 3)),
        np.array([[1.0, NAN, NAN]]),
        np.array([[1.0, NAN], [1.0, NAN], [1.0, 2.0]]),
        np.array([[NAN, NAN, 3.0], [1.0, NAN, NAN]]),
        np.array([[-1e300 / 2**1000, NAN], [0.0, 0.5]]),
    ],
    ids=["none", "one", "equal", "a rung was skipped", "tiny"],
)
def test_few_and_odd_gains_give_finite_estimates(gains: np.ndarray) -> None:
    final = FinalScores(gains)
    assert np.isfinite(final.means).all()
    assert np.isfinite(final.stds).all()
    assert all(0 <= c <= 1 for c in final.correlations)
    assert all(line.pairs < MIN_PAIRS for line in final.lines)


def test_without_further_trainings_the_order_is_that_of_the_scores() -> None:
    gains = np.stack([np.linspace(3, 9, 12), np.full(12, NAN), np.full(12, NAN)], 1)
    final = FinalScores(gains)
    assert (np.diff(final.means) > 0).all()
    assert len(set(final.stds.round(9))) == 1
