"""The pool: a quasi Monte-Carlo sample of the space under the constraints (paper, 3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from fbnetv3.search.errors import InfeasibleError
from fbnetv3.search.space.constraints import Columns, Constraint, Costs, feasible
from fbnetv3.search.space.genetic import mutate
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import SearchSpace, keys_of, unique_rows

MIN_ACCEPTANCE = 1e-3
"""Constraints that a smaller share of the space meets are refused as nearly infeasible."""
_PROBE = 2**14
_BLOCK = 2**15
_ENUMERATE = 2**16
_MAX_DRAWS = 2**22


@dataclass(frozen=True)
class Pool:
    """Distinct candidates that meet the constraints.

    Attributes:
        levels: (candidates, variables), in the order of the sequence: any head is spread out.
        statistics: {name: (candidates,)}.
    """

    levels: Levels
    statistics: Columns

    def __len__(self) -> int:
        return len(self.levels)

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Pool:
        """Returns some of the candidates."""
        return Pool(self.levels[index], {k: v[index] for k, v in self.statistics.items()})

    def joined(self, other: Pool) -> Pool:
        """Returns the candidates of both."""
        both = {k: np.concatenate([v, other.statistics[k]]) for k, v in self.statistics.items()}
        return Pool(np.concatenate([self.levels, other.levels]), both)


@dataclass(frozen=True)
class Reach:
    """What a probe of the space found of a constrained statistic.

    Attributes:
        low, high: smallest and largest value found, by a short search for each.
        acceptance: share of the space that meets the constraint.
    """

    low: float
    high: float
    acceptance: float


def priced(costs: Costs, levels: Levels) -> Pool:
    """Returns candidates with their statistics."""
    return Pool(levels, costs(levels))


def sobol_levels(space: SearchSpace, seed: int, block: int = _BLOCK) -> Iterator[Levels]:
    """Yields blocks of canonical levels from one scrambled Sobol sequence, without end."""
    sampler = qmc.Sobol(len(space), scramble=True, rng=np.random.default_rng([seed, 11]))
    while True:
        unit = sampler.random(block)
        levels = np.minimum((unit * space.sizes).astype(np.int64), space.sizes - 1)
        yield space.canonical(levels)


def make_pool(
    space: SearchSpace, costs: Costs, constraints: Sequence[Constraint], size: int, seed: int
) -> tuple[Pool, dict[str, Reach]]:
    """Samples ``size`` distinct candidates under the constraints, fewer where there are fewer.

    Returns:
        The pool, and the reach of each constrained statistic.

    Raises:
        InfeasibleError: too few candidates meet the constraints; within seconds.
    """
    reach = check_feasible(space, costs, constraints, seed)
    kept = priced(costs, np.zeros((0, len(space)), dtype=np.int64))
    seen: set[bytes] = set()
    small = 10**space.log10_cardinality <= _ENUMERATE
    drawn = 0
    for levels in sobol_levels(space, seed, min(_BLOCK, _power_of_two(size))):
        found = _feasible_part(priced(costs, levels), constraints)
        found = found.take(unique_rows(found.levels, seen))
        seen.update(keys_of(found.levels))
        kept, drawn = kept.joined(found), drawn + len(levels)
        if len(kept) >= size or drawn >= _MAX_DRAWS:
            break
        if small:
            kept = kept.joined(_rest(space, costs, constraints, seen, seed))
            break
    return kept.take(np.arange(min(size, len(kept)))), reach


def _power_of_two(n: int) -> int:
    return max(256, 1 << (n - 1).bit_length())


def _feasible_part(pool: Pool, constraints: Sequence[Constraint]) -> Pool:
    return pool.take(feasible(pool.statistics, constraints, len(pool)))


def _rest(
    space: SearchSpace,
    costs: Costs,
    constraints: Sequence[Constraint],
    seen: set[bytes],
    seed: int,
) -> Pool:
    """Returns what a small space has beside the candidates seen, in random order."""
    grid = np.indices(tuple(space.sizes.tolist())).reshape(len(space), -1).T
    levels = space.canonical(np.random.default_rng([seed, 12]).permutation(grid))
    return _feasible_part(priced(costs, levels[unique_rows(levels, seen)]), constraints)


def check_feasible(
    space: SearchSpace, costs: Costs, constraints: Sequence[Constraint], seed: int
) -> dict[str, Reach]:
    """Finds out whether enough of the space meets the constraints, before anything is trained.

    Raises:
        InfeasibleError: names the constraint, the reachable range and the nearest bound that
            enough candidates meet.
    """
    costs.check(constraints)
    if not constraints:
        return {}
    probe = priced(costs, next(sobol_levels(space, seed, _PROBE)))
    reach = {c.name: _reach(space, costs, c, probe, seed) for c in constraints}
    for constraint in constraints:
        if reach[constraint.name].acceptance < MIN_ACCEPTANCE:
            raise _infeasible(constraint, probe.statistics[constraint.name], reach)
    together = feasible(probe.statistics, constraints, len(probe))
    if together.mean() < MIN_ACCEPTANCE:
        raise _at_odds(constraints, probe, reach)
    return reach


def _reach(
    space: SearchSpace, costs: Costs, constraint: Constraint, probe: Pool, seed: int
) -> Reach:
    values = probe.statistics[constraint.name]
    ends = [sign * _climb(space, costs, constraint.name, sign, probe, seed) for sign in (-1.0, 1.0)]
    return Reach(ends[0], ends[1], float(constraint.holds(values).mean()))


def _climb(
    space: SearchSpace, costs: Costs, name: str, sign: float, probe: Pool, seed: int
) -> float:
    """Returns the largest ``sign * statistic`` that a short evolution finds."""
    random = np.random.default_rng([seed, 13])
    ends = np.stack([np.zeros_like(space.sizes), space.sizes - 1])
    # most costs grow with every variable: the ends are a good start
    start = probe.joined(priced(costs, space.canonical(ends)))
    best = start.take(np.argsort(-sign * start.statistics[name], kind="stable")[:64])
    for _ in range(30):
        children = mutate(space, np.repeat(best.levels, 4, axis=0), 2.0 / len(space), random)
        both = best.joined(priced(costs, children))
        best = both.take(np.argsort(-sign * both.statistics[name], kind="stable")[:64])
    return float(sign * best.statistics[name][0])


def _infeasible(
    constraint: Constraint, values: npt.NDArray[np.float64], reach: dict[str, Reach]
) -> InfeasibleError:
    found = reach[constraint.name]
    share = f"{found.acceptance:.2%} of the space" if found.acceptance else "nothing in the space"
    return InfeasibleError(
        f"constraint {constraint}: {share} meets it; {constraint.name} reaches {found.low:.6g} to "
        f"{found.high:.6g}; the nearest bound that enough candidates meet is "
        f"{_nearest_bound(constraint, values)}"
    )


def _nearest_bound(constraint: Constraint, values: npt.NDArray[np.float64]) -> str:
    """Returns ``upper=1.2e6``: how far to move a bound, the other one kept where it can be."""
    need = max(2, int(np.ceil(2 * MIN_ACCEPTANCE * len(values))))
    low = -np.inf if constraint.lower is None else constraint.lower
    high = np.inf if constraint.upper is None else constraint.upper
    ordered = np.sort(values)
    above, below = ordered[ordered >= low], ordered[ordered <= high]
    options = []
    if len(above) >= need:
        options.append((above[need - 1] - high, f"upper={_rounded(above[need - 1], up=True)}"))
    if len(below) >= need:
        options.append((low - below[-need], f"lower={_rounded(below[-need], up=False)}"))
    return min(options)[1]


def _rounded(value: float, *, up: bool) -> str:
    """Returns a number of 6 digits, rounded so that the bound still holds what it held."""
    text = f"{value:.6g}"
    off = float(text) < value if up else float(text) > value
    return f"{value + abs(value) * (1e-5 if up else -1e-5):.6g}" if off else text


def _at_odds(
    constraints: Sequence[Constraint], probe: Pool, reach: dict[str, Reach]
) -> InfeasibleError:
    """Each constraint can be met, all together (nearly) never."""
    hardest = min(constraints, key=lambda c: reach[c.name].acceptance)
    others = [c for c in constraints if c is not hardest]
    mask = feasible(probe.statistics, others, len(probe))
    values = probe.statistics[hardest.name][mask]
    text = " and ".join(map(str, constraints))
    need = max(2, int(np.ceil(2 * MIN_ACCEPTANCE * len(probe))))
    if len(values) < need:
        return InfeasibleError(f"constraints {text} can't be met together; drop or relax one")
    return InfeasibleError(
        f"constraints {text} can't be met together; with the others, {hardest.name} reaches "
        f"{values.min():.6g} to {values.max():.6g}; set {_nearest_bound(hardest, values)}"
    )
