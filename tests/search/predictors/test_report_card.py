"""What report cards say about predictors that cannot be relied on."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from fbnetv3.search.predictors.report_card import make_card
from fbnetv3.search.report.marginals import _effect, _explained_share

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("predicted", "scores", "problem", "level"),
    [
        (np.arange(8.0), np.array([1.0, 0, 3, 2, 4, 6, 5, 7]), "", None),
        # Kendall 0.43 on 8 trials
        (
            np.arange(8.0),
            np.array([3.0, 0, 1, 6, 2, 7, 5, 4]),
            "too few trials to tell",
            logging.INFO,
        ),
        (np.arange(8.0), np.arange(8.0)[::-1], "too few trials to tell", logging.INFO),
        (np.arange(2.0), np.arange(2.0), "too few trials to tell", logging.INFO),
        (RANDOM.random(60), RANDOM.random(60), "no better than chance", logging.WARNING),
        (np.arange(30.0), np.full(30, 10.0), "are equal", logging.WARNING),
        (np.full(8, 0.5), np.arange(8.0), "are equal", logging.WARNING),
    ],
)
def test_a_card_says_what_is_wrong_with_a_ranking(
    predicted: np.ndarray,
    scores: np.ndarray,
    problem: str,
    level: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    card = make_card(predicted, scores, [])
    assert problem in card.problem
    assert bool(card.problem) == bool(problem)
    assert [record.levelno for record in caplog.records] == ([] if level is None else [level])


def test_kendall_of_equal_scores_is_unknown() -> None:
    card = make_card(np.arange(5.0), np.ones(5), [])
    assert math.isnan(card.kendall)
    assert "Kendall unknown, Spearman unknown, RMSE" in str(card)
    assert "nan" not in str(card)


@pytest.mark.parametrize(
    ("scores", "groups", "text"),
    [
        ([3.0] * 8, [0, 0, 0, 0, 1, 1, 1, 1], "all scores are equal"),
        ([3.0] * 7 + [4.0], [0, 0, 0, 1, 1, 1, 1, 2], "no effect beyond chance"),
        ([1.0, 2, 3, 4, 11, 12, 13, 14], [0, 0, 0, 0, 1, 1, 1, 1], "explains 72% of the variance"),
        ([1.0, 2, 3], [0, 0, 0], "no effect beyond chance"),
    ],
)
def test_the_effect_of_a_variable_is_one_beyond_chance(
    scores: list[float], groups: list[int], text: str
) -> None:
    values, labels = np.array(scores), np.array(groups)
    assert text in _effect(values, labels, _explained_share(values, labels))
