"""Ends a search whose first candidates have learned nothing, before more of them are trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fbnetv3.search.direction import MAXIMIZE, MINIMIZE, best_score, gain
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Evaluate
from fbnetv3.search.trial import Trial

_ADVICE = "train candidates longer, or with a higher learning rate"
_MIN_TRIALS = 4
"""Smallest number of scores in the first batch with which a search may be ended."""


def check_above_chance(
    evaluate: Evaluate,
    first_batch: Sequence[Trial],
    trials: Sequence[Trial],
    direction: str = MAXIMIZE,
) -> None:
    """Checks that a candidate scores better than chance, if the score of chance is known.

    Args:
        evaluate: Function that scored the trials. Its attribute ``chance_score`` is the best
            score that a candidate reaches by chance; without it, nothing is checked. Its attribute
            ``chance_advice`` is a clause that says what to change.
        first_batch: Trials of the first batch, which has finished.
        trials: All trials, those of a warm start included.
        direction: ``maximize`` or ``minimize``.

    Raises:
        SearchError: At least four trials of the first batch have a score, but no trial is better
            than chance.
    """
    chance = getattr(evaluate, "chance_score", None)
    if isinstance(chance, bool) or not isinstance(chance, int | float) or math.isnan(chance):
        return
    scores = [t.final_score for t in trials if t.final_score is not None]
    judged = sum(t.final_score is not None for t in first_batch)
    best = best_score(scores, direction)
    if judged < _MIN_TRIALS or gain(best, direction) > gain(float(chance), direction):
        return
    side = "below" if direction == MINIMIZE else "above"
    raise SearchError(
        f"no candidate scores {side} chance ({chance:.4g}): the best of {len(scores)} has "
        f"{best:.4g}, so the search has nothing to choose by; "
        f"{getattr(evaluate, 'chance_advice', _ADVICE)}"
    )
