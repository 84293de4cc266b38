"""The comparison of searches under a bound on a measured score."""

from __future__ import annotations

import pytest

from projects.search_quality import bounded


def test_the_regret_is_that_of_evaluations_that_meet_the_bound() -> None:
    row = bounded.run_one("continuous", "random", 0)
    assert row["evaluations"] == 96
    assert 0 < row["met"] < 1
    assert 1 >= row["regret"][0] >= row["regret"][1] > 0  # scores of this problem have no noise


def test_the_table_counts_lower_regrets() -> None:
    rows = [
        {"problem": "continuous", "method": method, "seed": seed, "regret": [0.5, value]}
        | {"met": 0.5, "seconds": 1.0}
        for method, values in (("JointNAS", (0.1, 0.3)), ("TPE", (0.2, 0.2)))
        for seed, value in enumerate(values)
    ]
    lines = bounded.STUDY.table(rows).splitlines()
    assert lines[2] == "| `continuous` | JointNAS | 2 | 0.500 | 0.200 |  | 50% | 1 |"
    assert lines[3] == "| `continuous` | TPE | 2 | 0.500 | 0.200 | 1 of 2 | 50% | 1 |"


@pytest.mark.parametrize("name", ["continuous", "hartmann6"])
def test_the_search_does_not_know_the_bound_before_an_evaluation(name: str) -> None:
    problem = bounded._bounded(name).problem
    assert problem.statistics is None
    assert not problem.constraints
