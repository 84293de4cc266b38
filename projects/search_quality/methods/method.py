"""The interface of search methods, and conversions of configurations for the peers.

A peer is a method of another library, or a textbook method such as random search. Most libraries
get continuous variables as values, and all other variables as levels (indices of their values).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fbnetv3.search import FloatRange
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.parameters import CONTINUOUS_LEVELS, Parameter
from fbnetv3.search.space.space import SearchSpace
from projects.search_quality.problem import Configs, Floats, Problem, random_levels

ROUNDS = 3
"""Number of times that a peer is asked for proposals to fill one batch."""


class Method(Protocol):
    """A search method that maximises the score."""

    def ask(self, count: int) -> Configs:
        """Returns at most ``count`` configurations to evaluate, [] if none is left."""

    def tell(self, configs: Configs, scores: Floats) -> None:
        """Receives the scores of the configurations of the last :meth:`ask`."""


@dataclass(frozen=True)
class Budget:
    """Number of evaluations of a search, and their division into batches.

    Attributes:
        total: Number of evaluations.
        batch: Number of evaluations per batch.
        parts: Number of parts of the first batch; scores are told after each part.
    """

    total: int
    batch: int
    parts: int = 1

    def sizes(self) -> list[int]:
        """Returns the number of evaluations of each part of the first batch, then of each batch."""
        least, rest = divmod(min(self.batch, self.total), self.parts)
        sizes = [least + (i < rest) for i in range(self.parts)]
        while (left := self.total - sum(sizes)) > 0:
            sizes.append(min(self.batch, left))
        return sizes


Maker = Callable[[Problem, int, Budget], Method]
"""Function that makes a method from a problem, a random seed and the budget of the search."""


def is_continuous(parameter: Parameter) -> bool:
    """Returns whether a variable is a range of real numbers without steps."""
    return isinstance(parameter, FloatRange) and parameter.size == CONTINUOUS_LEVELS


def varied(space: SearchSpace) -> list[Parameter]:
    """Returns the variables that have more than one value."""
    return [p for p in space.parameters if p.size > 1]


def config_from(space: SearchSpace, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration that a peer's values stand for.

    Args:
        space: Space of the search.
        values: Value of each continuous variable, and level of each other variable, by name;
            variables with one value may be missing.
    """
    config = {
        p.name: float(np.clip(values[p.name], p.low, p.high))
        if isinstance(p, FloatRange) and is_continuous(p)
        else p.value(int(values.get(p.name, 0)))
        for p in space.parameters
    }
    return space.configs(space.canonical(space.levels([config])))[0]


def values_of(space: SearchSpace, config: dict[str, Any]) -> dict[str, Any]:
    """Returns a peer's values of a configuration, the reverse of :func:`config_from`."""
    return {
        p.name: config[p.name] if is_continuous(p) else p.level(config[p.name])
        for p in varied(space)
    }


def is_feasible(problem: Problem, config: dict[str, Any]) -> bool:
    """Returns whether a configuration satisfies the constraints of its problem."""
    return bool(problem.allowed(problem.space.levels([config]))[0])


def random_configs(problem: Problem, count: int, random: np.random.Generator) -> Configs:
    """Draws feasible configurations uniformly."""
    return problem.space.configs(random_levels(problem, count, random))


def limit_of(problem: Problem) -> tuple[str, float] | None:
    """Returns the name and upper limit of the problem's cost, None without a constraint."""
    for constraint in problem.constraints:
        assert constraint.upper is not None
        return constraint.name, constraint.upper
    return None


def costs_of(problem: Problem, configs: Configs) -> Floats:
    """Returns the constrained cost of each configuration."""
    limit = limit_of(problem)
    assert limit is not None
    costs = Costs(problem.space, problem.statistics)(problem.space.levels(configs))
    return np.asarray(costs[limit[0]], dtype=np.float64)
