"""Statistics that take long are computed for the architectures of a search's pool only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fbnetv3.search import Choice, Constraint, FloatRange, IntRange, JointNAS, SearchSpace
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.reach import measure_reach

SPACE = SearchSpace(
    [
        IntRange("depth", 1, 60, part="architecture"),
        IntRange("width", 1, 60, part="architecture"),
        FloatRange("lr", 0.1, 1.0, part="recipe"),
        Choice("optimizer", ("sgd", "adamw"), part="recipe"),
    ]
)


class Slow:
    """Statistics that record what they were computed for; odd widths have none."""

    is_slow = may_refuse = True

    def __init__(self) -> None:
        self.seen: set[tuple[int, int]] = set()

    def __call__(self, configs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        self.seen |= {(c["depth"], c["width"]) for c in configs}
        macs = [c["depth"] * c["width"] if c["width"] % 2 == 0 else np.nan for c in configs]
        return {"macs": np.array(macs)}


@pytest.fixture
def slow() -> Slow:
    return Slow()


def test_a_search_computes_the_statistics_of_its_pool_only(slow: Slow) -> None:
    search = JointNAS(
        SPACE,
        statistics=slow,
        constraints=[Constraint("macs", upper=1500)],
        budgets=(Constraint("macs", upper=500),),
        pool_size=100,
        batch_size=8,
        iterations=2,
        finalists=4,
        pretrain=False,
        seed=1,
    )
    seen = set(slow.seen)
    assert len(seen) < 600  # the pool, and the probe of the constraints
    result = search.run(lambda trial: trial.config["width"] - 10 * trial.config["lr"])
    evolved = search.evolve(top_k=5)
    assert slow.seen == seen
    assert len(result.trials) == 20
    for trial in [*result.trials, *evolved]:
        assert trial.config["width"] % 2 == 0
        assert trial.statistics["macs"] == trial.config["width"] * trial.config["depth"] <= 1500
    # recipes are not limited to those of the pool
    pool = {c["lr"] for c in SPACE.configs(search.plan.pool.levels)}
    assert {e.config["lr"] for e in evolved} - pool


def test_samples_have_known_architectures(slow: Slow) -> None:
    levels = SPACE.levels(
        [{"depth": d, "width": w, "lr": 0.1, "optimizer": "sgd"} for d, w in ((2, 4), (3, 6))]
    )
    limited = FeasibleSpace(Costs(SPACE, slow).limited_to(levels))
    slow.seen.clear()
    sample = limited.sample(50, seed=0)
    assert len(sample) == 50
    assert slow.seen == {(2, 4), (3, 6)}
    within = limited.within(Constraint("macs", upper=10))
    assert {c["depth"] for c in SPACE.configs(within.sample(20, seed=0).levels)} == {2}
    assert measure_reach(within, 0)["macs"].acceptance == 0.5
    others = SPACE.levels([{"depth": 9, "width": 4, "lr": 0.1, "optimizer": "sgd"}])
    assert not limited.meets(others).any()
    assert np.isnan(limited.price(others).statistics["macs"]).all()


def test_only_refused_candidates_may_have_no_statistics(slow: Slow) -> None:
    slow.may_refuse = False
    with pytest.raises(Exception, match="must be a finite number"):
        Costs(SPACE, slow)(np.array([[0, 0, 0, 0]]))
