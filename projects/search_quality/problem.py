"""A search problem, and the true scores by which methods are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.search import Constraint, SearchSpace
from fbnetv3.search.space.constraints import Costs, StatisticsFn
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Levels

Floats = npt.NDArray[np.float64]
Configs = list[dict[str, Any]]


@dataclass(frozen=True)
class Problem:
    """A search problem, and the true scores by which methods are compared.

    Attributes:
        name: Name in tables.
        space: Space of the search.
        statistics: Function from configurations to their costs, as for JointNAS.
        constraints: Constraints on the costs.
        truth: Function from configurations to scores without noise; higher is better.
        noise: Standard deviation of the noise of an evaluation; unused with ``measured``.
        measured: Function from configurations and a random generator to scores of real trainings.
            None adds noise to the true scores.
        usual: Feasible default configuration, from which :meth:`fixed` takes the values of a part.
        best: Highest known true score under the constraints. None: not known;
            ``problems.find_reference`` estimates it.
    """

    name: str
    space: SearchSpace
    truth: Callable[[Configs], Floats]
    statistics: StatisticsFn | None = None
    constraints: Sequence[Constraint] = ()
    noise: float = 0.0
    usual: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    measured: Callable[[Configs, np.random.Generator], Floats] | None = None

    def measure(self, configs: Configs, random: np.random.Generator) -> Floats:
        """Returns noisy scores, like those of trainings."""
        if self.measured is not None:
            return self.measured(configs, random)
        return self.truth(configs) + self.noise * random.standard_normal(len(configs))

    def allowed(self, levels: Levels) -> npt.NDArray[np.bool_]:
        """Returns a mask of the candidates that satisfy the constraints."""
        costs = Costs(self.space, self.statistics)
        return FeasibleSpace(costs, tuple(self.constraints)).are_feasible(levels)

    def fixed(self, part: str) -> SearchSpace:
        """Returns the space with the variables of a part fixed at their usual values.

        Args:
            part: ``architecture`` or ``recipe``.
        """
        from fbnetv3.search import Choice

        return SearchSpace(
            [
                Choice(p.name, (self.usual[p.name],), part=p.part, active_if=p.active_if)
                if p.part == part
                else p
                for p in self.space.parameters
            ]
        )


def random_levels(problem: Problem, count: int, random: np.random.Generator) -> Levels:
    """Draws feasible candidates uniformly by rejection sampling, (count, variables) levels."""
    space, kept = problem.space, np.zeros((0, len(problem.space)), dtype=np.int64)
    while len(kept) < count:
        drawn = space.canonical(random.integers(0, space.sizes, (2 * count, len(space))))
        kept = np.concatenate([kept, drawn[problem.allowed(drawn)]])
    return kept[:count]
