"""Candidates that a person or a program enqueues, to be evaluated in the next batch with room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fbnetv3.search.checks import as_text
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import reason_text
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.trial import Trial


class Enqueued(NamedTuple):
    """An enqueued candidate.

    Attributes:
        id: Hash of the candidate, as in :class:`Trial`.
        config: Value of each variable.
        reason: Reason for which it was enqueued.
    """

    id: str
    config: dict[str, Any]
    reason: str

    def trial(self, number: int, batch: int) -> Trial:
        """Returns the trial of the candidate, without statistics and prediction."""
        return Trial(self.id, number, batch, self.config, enqueued=self.reason)


def enqueued_candidate(
    feasible: FeasibleSpace, config: Mapping[str, Any], reason: str, name: str = "enqueue"
) -> Enqueued:
    """Returns a candidate after checking it.

    Args:
        feasible: Space and constraints of the search.
        config: Value of each variable; inactive ones may be missing.
        reason: Reason for which the candidate is enqueued.
        name: Subject of the messages.

    Raises:
        SearchError: The config is not in the space, violates a constraint or has unknown costs; or
            the reason is empty or no string.
    """
    reason = reason_text(as_text(f"{name}: reason", reason))
    try:
        levels = feasible.space.levels([config])
    except SearchError as error:
        raise SearchError(f"{name}: {error}") from None
    pool = feasible.with_statistics(levels)
    if any(np.isnan(values).any() for values in pool.statistics.values()):
        raise SearchError(
            f"{name}: this candidate is not allowed: its network cannot be built, or it is none of "
            "the networks for which alone the space has costs; enqueue another one"
        )
    violated = [
        f"{c.name} is {pool.statistics[c.name][0]:.6g}, but the constraint is {c}"
        for c in feasible.constraints
        if not c.is_met_by(pool.statistics[c.name])[0]
    ]
    if violated:
        raise SearchError(f"{name}: the candidate violates constraints: {'; '.join(violated)}")
    return Enqueued(feasible.space.ids(levels)[0], feasible.space.configs(levels)[0], reason)
