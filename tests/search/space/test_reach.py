"""The advice in the errors of constraints that too few candidates meet."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fbnetv3.search import Constraint, InfeasibleError, IntRange, SearchSpace
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.reach import _nearest_bound, measure_reach

SPACE = SearchSpace([IntRange(name, 0, 999, part="architecture") for name in "ab"])


def _feasible(*constraints: Constraint) -> FeasibleSpace:
    def statistics(configs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        a, b = (np.array([c[name] for c in configs], dtype=float) for name in "ab")
        return {"a": a, "near_a": a + b / 1000}

    return FeasibleSpace(Costs(SPACE, statistics), constraints)


@pytest.mark.parametrize(
    "constraints",
    [
        (Constraint("a", upper=500), Constraint("near_a", lower=501.2)),
        (Constraint("a", upper=5), Constraint("near_a", lower=6.2)),
        (Constraint("a", lower=500), Constraint("near_a", upper=499)),
        (Constraint("a", lower=500), Constraint("near_a", upper=500.0001)),
    ],
)
def test_constraints_that_exclude_each_other_name_a_bound_that_helps(
    constraints: tuple[Constraint, ...],
) -> None:
    with pytest.raises(InfeasibleError, match="cannot be met together") as caught:
        measure_reach(_feasible(*constraints), 0)
    text = str(caught.value)
    advice = re.search(r"meet the others, (\w+) ranges .* set its bound to (\w+)=(\S+)$", text)
    assert advice is not None, text
    name, side, value = advice.groups()
    old = next(c for c in constraints if c.name == name)
    assert getattr(old, side) is not None, text
    relaxed = Constraint(name, **{side: float(value)})
    others = [c for c in constraints if c is not old]
    measure_reach(_feasible(*others, relaxed), 0)  # the advice is followed


def test_few_candidates_that_exist() -> None:
    class Statistics:
        may_refuse = True

        def __call__(self, configs: list[dict[str, Any]]) -> dict[str, list[float]]:
            return {"a": [0.0 if c["a"] + c["b"] == 0 else np.nan for c in configs]}

    feasible = FeasibleSpace(Costs(SPACE, Statistics()), (Constraint("a", upper=5),))
    with pytest.raises(InfeasibleError, match=r"refuses all but 0 of \d+ drawn candidates"):
        measure_reach(feasible, 0)


def test_bounds_between_two_values_are_both_moved() -> None:
    values = np.array([9.0, 1.0])
    advice = _nearest_bound(Constraint("a", lower=4, upper=5), values, 2)
    assert advice == "lower=1, upper=9"
