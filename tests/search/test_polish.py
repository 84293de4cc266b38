from __future__ import annotations

import numpy as np
import pytest

from fbnetv3.search import Choice, Constraint, FloatRange, IntRange, SearchSpace, When
from fbnetv3.search.candidates import Candidates
from fbnetv3.search.constraints import Costs
from fbnetv3.search.encoding import Encoding
from fbnetv3.search.networks import Floats
from fbnetv3.search.polish import polished
from fbnetv3.search.pool import make_pool

SPACE = SearchSpace(
    [
        IntRange("depth", 1, 5),
        FloatRange("a", 0.0, 1.0),
        Choice("optimizer", ["sgd", "adam"]),
        FloatRange("b", 1e-3, 1e-1, log=True),
        FloatRange("momentum", 0.0, 1.0, active_if=When("optimizer", "==", "sgd")),
    ]
)
PEAK = np.array([0.7, 0.25])


def cost(configs: list[dict]) -> dict[str, np.ndarray]:
    return {"size": np.array([c["a"] for c in configs])}


def candidates_of(space: SearchSpace, *constraints: Constraint) -> Candidates:
    costs = Costs(space, cost if constraints else None)
    pool, _ = make_pool(space, costs, constraints, 16, seed=0)
    return Candidates(space, Encoding(space), costs, constraints, pool, pool.levels[:0])


def bowl(encoding: Encoding, start: np.ndarray) -> object:
    """A quadratic whose peak is at ``PEAK`` of a and b, and at 0.5 of whatever else is moved."""
    _, columns = encoding.continuous(start)

    def value(x: Floats) -> tuple[float, Floats]:
        target = np.full(len(x), 0.5)
        target[columns[:2]] = PEAK
        return -float(((x - target) ** 2).sum()), -2 * (x - target)

    return value


@pytest.fixture
def start() -> np.ndarray:
    config = {"depth": 2, "a": 0.1, "optimizer": "adam", "b": 0.1, "momentum": 0.0}
    return SPACE.levels([config])[0]


def test_the_peak_is_met_to_the_last_digits(start) -> None:
    candidates = candidates_of(SPACE)
    found = polished(candidates, start, bowl(candidates.encoding, start))
    best = SPACE.configs(found[:1])[0]
    assert best["a"] == pytest.approx(PEAK[0], abs=1e-5)
    assert best["b"] == pytest.approx(1e-3 * 100 ** PEAK[1], rel=1e-4)


def test_only_active_continuous_variables_move(start) -> None:
    candidates = candidates_of(SPACE)
    found = polished(candidates, start, bowl(candidates.encoding, start))
    moved = [name for i, name in enumerate(SPACE.names) if (found[:, i] != start[i]).any()]
    assert moved == ["a", "b"]  # momentum is of sgd
    assert (SPACE.canonical(found) == found).all()
    by_sgd = SPACE.levels([SPACE.configs(start[None])[0] | {"optimizer": "sgd"}])[0]
    found = polished(candidates, by_sgd, bowl(candidates.encoding, by_sgd))
    assert SPACE.configs(found[:1])[0]["momentum"] == pytest.approx(0.5, abs=1e-5)


def test_a_barred_peak_is_approached_as_far_as_allowed(start) -> None:
    candidates = candidates_of(SPACE, Constraint("size", upper=0.5))
    found = polished(candidates, start, bowl(candidates.encoding, start))
    sizes = cost(SPACE.configs(found))["size"]
    assert sizes.max() <= 0.5
    assert sizes.max() == pytest.approx(0.1 + 0.5 * 0.6, abs=1e-4)  # half of the way is allowed


def test_a_space_of_choices_and_steps_has_nothing_to_polish() -> None:
    space = SearchSpace([IntRange("depth", 1, 50), FloatRange("dropout", 0.0, 0.5, step=0.1)])
    candidates = candidates_of(space)
    start = candidates.pool.levels[0]
    assert polished(candidates, start, bowl(candidates.encoding, start)).shape == (0, 2)
