"""Winners for other budgets, evolved with the predictor of a search, without training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fbnetv3.errors import FBNetError
from fbnetv3.search.errors import InfeasibleError, SearchError
from fbnetv3.search.fbnet.bounds import budgets_from_config, constraints_from_config
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.winner_names import winner_name
from fbnetv3.search.fbnet.winners import Winner, cost_text, score_line, write_winner
from fbnetv3.search.jointnas import JointNAS
from fbnetv3.search.result import Candidate
from fbnetv3.search.space.constraints import Constraint
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.trial import Trial

_NEIGHBOURS = 3
"""Number of the nearest trials that the facts about a winner list."""

Budget = Constraint | Sequence[Constraint]
"""Bounds that one winner meets in addition to the search's constraints: one, several or none."""


def evolve_winners(
    setup: SearchSetup,
    folder: RunFolder,
    search: JointNAS,
    budgets: Sequence[Budget],
    drop: Sequence[str] = (),
) -> list[Winner]:
    """Runs stage 2 for each budget and writes the candidate with the best predicted score.

    Winners meet the constraints of the search, too, except those to drop.

    Args:
        setup: Config and space of the search.
        folder: Folder of the run.
        search: The search, opened on the storage of the run.
        budgets: Budgets; each gives one winner.
        drop: Statistics whose constraint in SEARCH.CONSTRAINTS does not apply to the winners.

    Raises:
        FBNetError: There are too few scores to fit a predictor, a statistic is unknown, no
            candidate of the space meets a budget, or a statistic to drop has no constraint.
    """
    complete = search.result().complete
    winners = []
    for budget in budgets:
        bounds = (budget,) if isinstance(budget, Constraint) else tuple(budget)
        try:
            (best,) = search.evolve(bounds, top_k=1, drop=drop)
        except FBNetError as error:
            text = (
                f"budget {', '.join(map(str, bounds))}" if bounds else "--evolve without a budget"
            )
            raise FBNetError(f"{text}: {error}{_advice(error, setup, bounds, drop)}") from None
        facts = _facts(search, best, complete, _bounds_text(setup, bounds, drop))
        winners.append(write_winner(setup, folder, _name(setup, bounds, drop), best.config, facts))
    return winners


def _name(setup: SearchSetup, bounds: Sequence[Constraint], drop: Sequence[str]) -> str:
    """Returns a name for a winner that differs from those of the search's own budgets."""
    name = winner_name(bounds, drop)
    is_taken = name in {winner_name([budget]) for budget in budgets_from_config(setup.cfg)}
    return f"{name}_evolved" if is_taken else name


def _bounds_text(setup: SearchSetup, bounds: Sequence[Constraint], drop: Sequence[str]) -> str:
    """Returns the constraints of the search and the bounds that a winner meets, as text."""
    kept = [c for c in constraints_from_config(setup.cfg) if c.name not in drop]
    texts = dict.fromkeys(map(str, [*kept, *bounds]))  # a budget may repeat a constraint
    return " and ".join(texts) or "no constraints"


def _facts(search: JointNAS, best: Candidate, complete: list[Trial], bounds: str) -> list[str]:
    """Returns lines about a winner: its prediction and costs, its bounds and its neighbours."""
    return [
        f"predicted score {best.predicted:.4f}{cost_text(best.statistics)}",
        f"meets {bounds}",
        *(f"nearest trial {t.id}: {score_line(t)}" for t in _nearest(search, best, complete)),
    ]


def _advice(
    error: FBNetError, setup: SearchSetup, bounds: Sequence[Constraint], drop: Sequence[str]
) -> str:
    """Returns the option that lifts the search's constraints that conflict with a budget, or ""."""
    own = {c.name: c for c in constraints_from_config(setup.cfg) if c.name not in drop}
    shared = [bound for bound in bounds if bound.name in own]
    is_infeasible = isinstance(error, InfeasibleError)
    names = [b.name for b in shared if is_infeasible or not _is_compatible(own[b.name], b)]
    if not names:
        return ""
    return f" (--drop-constraint {' '.join(names)} lifts the constraint of the search)"


def _is_compatible(constraint: Constraint, bound: Constraint) -> bool:
    try:
        constraint.tightened(bound)
    except SearchError:
        return False
    return True


def _nearest(search: JointNAS, candidate: Candidate, trials: list[Trial]) -> list[Trial]:
    """Returns the 3 trials whose features are nearest to a candidate's (Euclidean distance)."""
    levels = search.space.levels([candidate.config, *(t.config for t in trials)])
    features = Encoding(search.space).encode(levels)
    distance = np.square(features[1:] - features[0]).sum(1)
    return [trials[i] for i in np.argsort(distance, kind="stable")[:_NEIGHBOURS]]
