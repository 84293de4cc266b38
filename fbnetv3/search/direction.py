"""Whether a search looks for the highest or the lowest score.

Scores keep the user's sign in trials, storages, reports and predictions. Predictors learn gains
(``predictors/score_unit.py``), and scores are ranked by their gains: values with the sign for which
higher is better. A search that minimises a score therefore proposes exactly the candidates of the
search that maximises its negative.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

MAXIMIZE, MINIMIZE = "maximize", "minimize"
DIRECTIONS = (MAXIMIZE, MINIMIZE)

_Scores = TypeVar("_Scores", float, np.ndarray[Any, Any])


def gain(scores: _Scores, direction: str) -> _Scores:
    """Converts scores to gains, of which higher is better, or gains back to scores."""
    return -scores if direction == MINIMIZE else scores


def best_score(scores: Iterable[float], direction: str) -> float:
    """Returns the best score; if there are no scores, -inf for ``maximize``, else inf."""
    gains = (gain(score, direction) for score in scores)
    return gain(max(gains, default=float("-inf")), direction)
