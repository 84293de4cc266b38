"""Winners for other budgets, evolved with the predictor of a search, without training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fbnetv3.errors import FBNetError
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.winners import Winner, cost_text, score_line, winner_name, write_winner
from fbnetv3.search.jointnas import JointNAS
from fbnetv3.search.result import Candidate
from fbnetv3.search.space.constraints import Constraint
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.trial import Trial

_NEIGHBOURS = 3


def evolve_winners(
    setup: SearchSetup, folder: RunFolder, search: JointNAS, budgets: Sequence[Constraint]
) -> list[Winner]:
    """Runs stage 2 for each budget and writes the candidate with the best predicted score.

    Args:
        setup: Config and space of the search.
        folder: Folder of the run.
        search: The search, on the storage of the run.
        budgets: Upper bounds, one winner each.

    Raises:
        FBNetError: There are too few scores to fit a predictor, a statistic is unknown, or no
            candidate of the space meets a budget.
    """
    complete = [t for t in search.result().trials if t.state == "complete"]
    winners = []
    for budget in budgets:
        try:
            (best,) = search.evolve([budget], top_k=1)
        except FBNetError as error:
            raise FBNetError(f"budget {budget}: {error}") from None
        facts = [
            f"predicted score {best.predicted:.4f}{cost_text(best.statistics)}",
            *(f"nearest trial {t.id}: {score_line(t)}" for t in _nearest(search, best, complete)),
        ]
        winners.append(write_winner(setup, folder, winner_name(budget), best.config, facts))
    return winners


def _nearest(search: JointNAS, candidate: Candidate, trials: list[Trial]) -> list[Trial]:
    """Returns the trials whose encodings are nearest to a candidate's (Euclidean distance)."""
    levels = search.space.levels([candidate.config, *(t.config for t in trials)])
    features = Encoding(search.space).encode(levels)
    distance = np.square(features[1:] - features[0]).sum(1)
    return [trials[i] for i in np.argsort(distance, kind="stable")[:_NEIGHBOURS]]
