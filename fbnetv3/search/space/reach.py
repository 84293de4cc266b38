"""Whether constraints can be met: a probe of the space before anything is trained."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3.search.errors import InfeasibleError
from fbnetv3.search.space.constraints import Constraint
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.genetic import mutate
from fbnetv3.search.space.pool import Pool

MIN_ACCEPTANCE = 1e-3
"""Share of the space below which constraints count as infeasible."""
_REACH_STREAM = 13  # separates the random streams of one seed
_PROBE = 2**14
"""Number of candidates from which shares of the space are estimated."""
_CLIMBERS, _CHILDREN, _GENERATIONS = 64, 4, 30
"""Survivors, children per survivor and generations of the evolution towards an extreme value."""
_SLOW_PROBE = 2**7
"""Number of probed candidates if statistics take long to compute; there is no evolution then."""


@dataclass(frozen=True)
class Reach:
    """The range of a constrained statistic.

    Attributes:
        low: Smallest value that a short evolution reached. For statistics that take long to
            compute, there is no evolution: smallest value among the probed candidates and the two
            at the ends of the space (all variables at their first or last values).
        high: Largest value, found in the same way.
        acceptance: Share of the probed candidates that meet the constraint, in [0, 1].
    """

    low: float
    high: float
    acceptance: float


def measure_reach(feasible: FeasibleSpace, seed: int) -> dict[str, Reach]:
    """Measures the range of each constrained statistic.

    Args:
        feasible: Space and constraints.
        seed: Random seed of the probe.

    Returns:
        The range of each constrained statistic, by name; {} without constraints.

    Raises:
        SearchError: A constraint is on an unknown statistic.
        InfeasibleError: Too few candidates meet one of the constraints, or all of them together.
            The message names these constraints. If the probe has enough candidates to find it, the
            message also states the nearest bound on a statistic that enough of them meet.
    """
    constraints = feasible.constraints
    feasible.costs.check(constraints)
    if not constraints:
        return {}
    size = _SLOW_PROBE if feasible.costs.is_slow else _PROBE
    probe = feasible.with_statistics(next(feasible.draws(seed, size)))
    reach = {c.name: _reach(feasible, c, probe, seed) for c in constraints}
    for constraint in constraints:
        if reach[constraint.name].acceptance < MIN_ACCEPTANCE:
            raise _infeasible(constraint, probe.statistics[constraint.name], reach)
    if len(feasible.select(probe)) / len(probe) < MIN_ACCEPTANCE:
        raise _contradictory(feasible, probe, reach)
    return reach


def _reach(feasible: FeasibleSpace, constraint: Constraint, probe: Pool, seed: int) -> Reach:
    ends = [_climb(feasible, constraint.name, sign, probe, seed) for sign in (-1.0, 1.0)]
    acceptance = constraint.is_met_by(probe.statistics[constraint.name]).mean()
    return Reach(-ends[0], ends[1], float(acceptance))


def _climb(feasible: FeasibleSpace, name: str, sign: float, probe: Pool, seed: int) -> float:
    """Returns the largest ``sign * statistic`` that a short evolution from the probe reaches."""
    space, random = feasible.space, np.random.default_rng([seed, _REACH_STREAM])
    ends = np.stack([np.zeros_like(space.sizes), space.sizes - 1])
    # Most statistics grow with every variable, so both ends of the space are good starts.
    best = _highest(probe.joined(feasible.with_statistics(space.canonical(ends))), name, sign)
    for _ in range(0 if feasible.costs.is_slow else _GENERATIONS):
        parents = np.repeat(best.levels, _CHILDREN, axis=0)
        children = mutate(space, parents, 2.0 / len(space), random)
        best = _highest(best.joined(feasible.with_statistics(children)), name, sign)
    return float(sign * best.statistics[name][0])


def _highest(pool: Pool, name: str, sign: float) -> Pool:
    """Returns the candidates with the highest ``sign * statistic``, best first; NaN comes last."""
    order = np.argsort(-sign * pool.statistics[name], kind="stable")
    return pool.take(order[:_CLIMBERS])


def _infeasible(
    constraint: Constraint, values: npt.NDArray[np.float64], reach: dict[str, Reach]
) -> InfeasibleError:
    """Returns the error for a constraint that too few candidates meet.

    Args:
        constraint: The constraint.
        values: (candidates,) the constrained statistic of the probed candidates; NaN for those that
            the space refuses (see ``Costs``).
        reach: Range of each constrained statistic, by name.
    """
    measured = reach[constraint.name]
    if measured.acceptance:
        share = f"only {measured.acceptance:.2%} of the space meets it"
    else:
        share = f"none of {len(values)} candidates drawn from the space meets it"
    text = (
        f"constraint {constraint}: {share}; {constraint.name} ranges from {measured.low:.6g} to "
        f"{measured.high:.6g}"
    )
    existing = values[~np.isnan(values)]
    if len(existing) < _enough(values):
        return InfeasibleError(
            f"{text}; the space refuses all but {len(existing)} of {len(values)} drawn candidates"
        )
    return InfeasibleError(
        f"{text}; the nearest bound that enough candidates meet is "
        f"{_nearest_bound(constraint, existing, _enough(values))}"
    )


def _nearest_bound(constraint: Constraint, values: npt.NDArray[np.float64], need: int) -> str:
    """Returns the closest bound that enough candidates meet, such as ``upper=1.2e6``.

    The opposite bound of the constraint stays as it is, unless both have to be looser.

    Args:
        constraint: Constraint that too few of the candidates meet.
        values: (candidates,) statistic of the candidates; at least ``need``.
        need: Number of candidates that must meet the constraint.
    """
    low = -np.inf if constraint.lower is None else constraint.lower
    high = np.inf if constraint.upper is None else constraint.upper
    ordered = np.sort(values)
    above, below = ordered[ordered >= low], ordered[ordered <= high]
    options = []
    if constraint.upper is not None and len(above) >= need:
        options.append((above[need - 1] - high, f"upper={_rounded(above[need - 1], up=True)}"))
    if constraint.lower is not None and len(below) >= need:
        options.append((low - below[-need], f"lower={_rounded(below[-need], up=False)}"))
    if options:
        return min(options)[1]
    distances = np.maximum(low - ordered, ordered - high)
    nearest = ordered[np.argsort(distances, kind="stable")[:need]]
    return (
        f"lower={_rounded(min(low, nearest.min()), up=False)}, "
        f"upper={_rounded(max(high, nearest.max()), up=True)}"
    )


def _enough(probe: Sized) -> int:
    """Returns the number of probed candidates that must meet a suggested bound."""
    return max(2, int(np.ceil(2 * MIN_ACCEPTANCE * len(probe))))


def _rounded(value: float, *, up: bool) -> str:
    """Returns a value as a bound of 6 significant digits, rounded so that the value meets it."""
    text = f"{value:.6g}"
    is_inside = float(text) < value if up else float(text) > value
    return f"{value + abs(value) * (1e-5 if up else -1e-5):.6g}" if is_inside else text


def _contradictory(
    feasible: FeasibleSpace, probe: Pool, reach: dict[str, Reach]
) -> InfeasibleError:
    """Returns the error for constraints that can be met one by one, but hardly ever together."""
    constraints = feasible.constraints
    hardest = min(constraints, key=lambda c: reach[c.name].acceptance)
    others = feasible.with_constraints([c for c in constraints if c is not hardest])
    values = others.select(probe).statistics[hardest.name]
    text = f"constraints {' and '.join(map(str, constraints))} cannot be met together"
    if len(values) < _enough(probe):
        return InfeasibleError(f"{text}; drop or relax one")
    return InfeasibleError(
        f"{text}; among the candidates that meet the others, {hardest.name} ranges from "
        f"{values.min():.6g} to {values.max():.6g}; set its bound to "
        f"{_nearest_bound(hardest, values, _enough(probe))}"
    )
