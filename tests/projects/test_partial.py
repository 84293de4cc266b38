"""The problems with curves, and the comparison of partial trainings."""

from __future__ import annotations

import numpy as np
import pytest

from projects.search_quality import curves, partial, problems
from projects.search_quality.partial import METHODS, report, run_one


@pytest.mark.parametrize("name", curves.NAMES)
def test_curves_end_in_the_score_of_the_problem(name: str) -> None:
    problem = curves.get(name)
    levels = problems.random_levels(problem.problem, 5, np.random.default_rng(1))
    for config in problem.problem.space.configs(levels):
        curve = problem.curve(config, 0)
        assert curve.shape == (problem.epochs,)
        assert np.array_equal(curve, problem.curve(config, 0))
        if not problem.problem.noise and problem.problem.measured is None:
            assert curve[-1] == pytest.approx(problem.problem.truth([config])[0], abs=0.2)


def test_partial_scores_tell_or_mislead_as_stated() -> None:
    assert min(curves.rank_correlations(curves.get("continuous"))) > 0.7
    assert max(curves.rank_correlations(curves.get("misleading"))[:-1]) < 0.45


@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("JointNAS")])
def test_a_search_uses_the_epochs_that_it_may(
    method: str, monkeypatch: pytest.MonkeyPatch, short_training: None
) -> None:
    monkeypatch.setattr(partial, "WHOLE", 12)
    row = run_one("trainings", method, 0)
    assert len(row["regret"]) == len(partial.SHARES)
    assert 1 <= row["whole"] <= 12 or "paper" in method
    assert all(0 <= regret <= 1.5 for regret in row["regret"])


def test_the_report_compares_pairs_of_seeds() -> None:
    rows = [
        {"problem": "trainings", "method": method, "seed": seed, "regret": [1.0, 0.5, 0.2, end],
         "whole": 9, "seconds": 1.0}
        for method, end in (("JointNAS, rungs", 0.1), ("JointNAS, whole trainings", 0.3))
        for seed in range(3)
    ]  # fmt: skip
    text = report(rows)
    assert (
        "| `trainings` | JointNAS, rungs | 3 | 1.000 | 0.500 | 0.200 | 0.100 |  | 9 | 1 |" in text
    )
    assert "+0.200 (+0.200 to +0.200)" in text
