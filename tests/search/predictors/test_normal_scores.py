from __future__ import annotations

import numpy as np
import pytest

from fbnetv3.search.predictors.normal_scores import NormalScores


def test_scores_are_normal_and_keep_the_order() -> None:
    labels = np.random.default_rng(0).standard_cauchy(201)
    scores = NormalScores(labels).scores
    assert (np.argsort(scores) == np.argsort(labels)).all()
    assert scores.mean() == pytest.approx(0, abs=1e-12)
    assert scores.std() == pytest.approx(1)
    assert np.abs(scores).max() < 3.5


def test_scores_map_back_to_their_labels() -> None:
    labels = np.array([3.0, 1.0, 2.0, 2.0, 7.0])
    normal_scores = NormalScores(labels)
    assert normal_scores.scores[2] == normal_scores.scores[3]
    assert normal_scores.to_labels(normal_scores.scores) == pytest.approx(labels)


def test_scores_beyond_the_known_ones_stay_near_the_labels() -> None:
    labels = np.random.default_rng(0).normal(70, 3, 96)
    low, high = NormalScores(labels).to_labels(np.array([-10.0, 10.0]))
    assert labels.max() < high < labels.max() + 10 * labels.std()
    assert labels.min() - 10 * labels.std() < low < labels.min()


def test_equal_labels_map_back_to_their_value() -> None:
    normal_scores = NormalScores(np.full(5, 3.0))
    assert normal_scores.scores.tolist() == [0.0] * 5
    assert normal_scores.to_labels(np.zeros(2)).tolist() == [3.0, 3.0]
