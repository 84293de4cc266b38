"""JointNAS as a method of the comparison."""

from __future__ import annotations

import math
from typing import Any

from fbnetv3.search import JointNAS
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from projects.search_quality.methods.method import Budget
from projects.search_quality.problem import Configs, Floats, Problem


class Ours:
    """JointNAS with ``ask`` and ``tell``.

    Args:
        problem: Problem to solve.
        seed: Random seed of the search.
        budget: Number of evaluations, and sizes of batches.
        fixed: ``architecture`` or ``recipe`` to search the other part alone. None searches both.
        finalists: Wanted number of finalists of stage 2, which are evaluated last.
        options: Further arguments of JointNAS.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        budget: Budget,
        *,
        fixed: str | None = None,
        finalists: int = 8,
        **options: Any,
    ) -> None:
        rounds, size, finalists = _schedule(budget.total, budget.batch, finalists)
        space = problem.space if fixed is None else problem.fixed(fixed)
        feasible = FeasibleSpace(Costs(space, problem.statistics), tuple(problem.constraints))
        # with a fixed part, a small grid may have fewer candidates than a batch
        pool = feasible.sample(budget.batch, seed)
        self._search = JointNAS(
            space,
            statistics=problem.statistics,
            constraints=problem.constraints,
            batch_size=min(size, len(pool)),
            iterations=rounds,
            first_parts=min(budget.parts, size, len(pool)),
            finalists=finalists,
            early_stop_threshold=None,
            seed=seed,
            **options,
        )
        self._waiting: list[Any] = []

    def ask(self, count: int) -> Configs:
        self._waiting = self._search.ask()
        return [t.config for t in self._waiting]

    def tell(self, configs: Configs, scores: Floats) -> None:
        self._search.tell(self._waiting, scores.tolist())


def _schedule(total: int, batch: int, finalists: int) -> tuple[int, int, int]:
    """Returns the number and size of the batches, and the number of finalists of stage 2.

    Each batch becomes smaller by the same number of candidates, if this makes room for exactly the
    wanted finalists. Otherwise, finalists take the place of one or more whole batches.

    Args:
        total: Number of evaluations.
        batch: Number of evaluations per batch.
        finalists: Wanted number of finalists.
    """
    rounds = total // batch
    size = batch - math.ceil(finalists / rounds)
    if rounds * size + finalists == total:
        return rounds, size, finalists
    finalists = batch * math.ceil(finalists / batch)
    return (total - finalists) // batch, batch, finalists
