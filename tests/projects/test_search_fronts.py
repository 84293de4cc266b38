"""The comparison of searches for a front: hypervolumes, methods and the table."""

from __future__ import annotations

import numpy as np
import pytest

from projects.search_quality import fronts


def test_the_volume_is_that_of_true_scores_on_the_observed_front() -> None:
    problem = fronts._problem("continuous")
    configs = problem.space.configs(problem.space.levels_at(np.eye(6)[:4] * 0.6 + 0.2))
    observed = problem.truth(configs)
    whole = fronts.volume("continuous", observed, configs)
    assert 0 < whole < 1.2
    noisy = observed + np.array([9.0, 0, 0, 0])  # hides what costs as much or more
    assert fronts.volume("continuous", noisy, configs) <= whole


@pytest.mark.parametrize("method", ["NSGA-II", "TPE", "random"])
def test_peers_propose_and_learn_two_objectives(method: str) -> None:
    problem = fronts._problem("continuous")
    search = fronts._method(method, problem, 0)
    for _ in range(2):
        configs = search.ask(8)
        assert len(configs) == 8
        search.tell(configs, problem.truth(configs))


def test_the_table_counts_pairs_of_seeds() -> None:
    rows = [
        {"problem": "continuous", "method": method, "seed": seed, "hypervolume": [0.5, value],
         "seconds": 3.0}
        for method, value in (("JointNAS", 0.9), ("TPE", 0.8))
        for seed in range(2 if method == "JointNAS" else 1)
    ]  # fmt: skip
    table = fronts.STUDY.table(rows)
    assert "| `continuous` | JointNAS | 2 | 0.500 | 0.900 |  | 3 |" in table
    assert "| `continuous` | TPE | 1 | 0.500 | 0.800 | 1 of 1 | 3 |" in table
