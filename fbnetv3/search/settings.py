"""The settings of a search as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fbnetv3.search.acquisition.fine import EvolutionSettings
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.constraints import Constraint, merge_bounds
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search (the paper's names in brackets).

    Attributes:
        constraints: Bounds that every candidate meets. The first one's statistic is divided into
            bins by the first batch and by the predictor ``paper``.
        budgets: Upper bounds of statistics, beside the constraints, for each of which the search
            should find a winner. The batches that the predictor ``default`` chooses, and the
            finalists, are divided evenly among the budgets.
        pool_size: Number of candidates in the quasi Monte-Carlo pool (n in the paper); at least
            ``batch_size``.
        batch_size: Number of candidates trained per batch of stage 1 (m); at least 1.
        iterations: Number of batches of stage 1 (T); at least 1.
        predictor: ``default`` (networks and a Gaussian process), ``paper`` (the paper's network)
            or ``random`` (a baseline that learns nothing).
        early_stop_threshold: Rank correlation with the final scores from which on candidates stop
            training early, in (0, 1]; None: all candidates train in full.
        finalists: Number of candidates that stage 2 proposes for training; at least 0.
        ahead: Number of trials that may still run when the next batch of stage 1 is proposed; at
            least 0. With 0, the proposals follow from the seed and the scores alone. A larger
            number keeps workers busy while slow trials finish; the proposals then also depend on
            which trials were running, which the storage records.
        evolution: Settings of stage 2.
        pretrain: Whether the predictor's encoder is first trained on the statistics.
        seed: Random seed of the pool, the predictors and every draw.

    Raises:
        SearchError: A value is out of range or unknown, or two bounds on a statistic contradict or
            repeat each other.
    """

    constraints: tuple[Constraint, ...] = ()
    budgets: tuple[Constraint, ...] = ()
    pool_size: int = 20_000
    batch_size: int = 48
    iterations: int = 4
    predictor: str = "default"
    early_stop_threshold: float | None = 0.92
    finalists: int = 8
    ahead: int = 0
    evolution: EvolutionSettings = field(default_factory=EvolutionSettings)
    pretrain: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "constraints", tuple(self.constraints))
        object.__setattr__(self, "budgets", tuple(self.budgets))
        self._check_bounds()
        if min(self.batch_size, self.iterations) < 1 or min(self.finalists, self.ahead) < 0:
            raise SearchError(
                f"batch_size={self.batch_size} and iterations={self.iterations} must be at least "
                f"1, finalists={self.finalists} and ahead={self.ahead} at least 0"
            )
        if self.batch_size > self.pool_size:
            raise SearchError(
                f"batch_size={self.batch_size} is larger than the pool (pool_size={self.pool_size})"
            )
        # imported late: reading a search's config needs no torch
        from fbnetv3.search.predictors.predictor import fit_function

        fit_function(self.predictor)

    def _check_bounds(self) -> None:
        """Raises a SearchError if constraints and budgets contradict or repeat each other."""
        bounds = {c.name: c for c in merge_bounds(self.constraints)}
        for number, budget in enumerate(self.budgets):
            if budget in self.budgets[:number]:
                raise SearchError(f"the budget {budget} occurs twice; keep one")
            if budget.name in bounds:
                bounds[budget.name].tightened(budget)

    def batch_count(self) -> int:
        """Returns the number of batches, the finalists' included."""
        return self.iterations + (self.finalists > 0)

    def size_of(self, batch: int) -> int:
        """Returns the number of trials of a batch; the finalists are the one after stage 1."""
        return self.finalists if batch == self.iterations else self.batch_size

    def describe(self, space: SearchSpace, warm_start: Sequence[Trial] = ()) -> dict[str, Any]:
        """Returns what identifies a search in its storage, as plain values.

        Args:
            space: Space of the search.
            warm_start: Trials of an earlier search that this one starts from.
        """
        return {
            "space": space.describe(),
            "constraints": [str(c) for c in self.constraints],
            # keys added in later versions are left out at their defaults: older storages lack them
            **({"budgets": [str(c) for c in self.budgets]} if self.budgets else {}),
            "pool_size": self.pool_size,
            "batch_size": self.batch_size,
            "iterations": self.iterations,
            "predictor": self.predictor,
            "early_stop_threshold": self.early_stop_threshold,
            "finalists": self.finalists,
            **({"ahead": self.ahead} if self.ahead else {}),
            "evolution": dict(vars(self.evolution)),
            "pretrain": self.pretrain,
            "warm_start": [[t.id, t.score] for t in warm_start],
            "seed": self.seed,
        }
