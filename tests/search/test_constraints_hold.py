"""Constraints hold for everything that a search returns, and the cheapest of equal scores wins."""

from __future__ import annotations

from typing import Any

import pytest

from fbnetv3.search import (
    Constraint,
    FloatRange,
    JointNAS,
    SearchError,
    SearchResult,
    SearchSettings,
    SearchSpace,
    Trial,
)
from fbnetv3.search.report import About
from fbnetv3.search.report.page import render
from fbnetv3.search.space.constraints import cost_order, merge_bounds

pytestmark = pytest.mark.usefixtures("short_training")

SPACE = SearchSpace([FloatRange("x", 0.0, 1.0), FloatRange("y", 0.0, 1.0)])
CHEAP = Constraint("macs", upper=0.4)
OUTSIDE = [({"x": 0.9 + i / 100, "y": 0.5}, 99.0 + i) for i in range(6)]
"""Candidates of a warm start that violate CHEAP and have the highest scores."""


def _statistics(configs: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {"macs": [c["x"] for c in configs], "params": [c["y"] for c in configs]}


def _search(**changes: Any) -> JointNAS:
    arguments: dict[str, Any] = {
        "statistics": _statistics,
        "constraints": [CHEAP],
        "pool_size": 256,
        "batch_size": 6,
        "iterations": 2,
        "finalists": 2,
    }
    return JointNAS(SPACE, **{**arguments, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"predictor": "paper"},
        {"predictor": "random"},
        {"budgets": [Constraint("macs", upper=0.2), Constraint("params", upper=0.5)]},
        {"finalists": 0, "iterations": 1},
    ],
)
def test_a_warm_start_outside_the_constraints_teaches_and_is_not_returned(
    changes: dict[str, Any],
) -> None:
    search = _search(warm_start=OUTSIDE, **changes)
    result = search.run(lambda trial: float(trial.config["x"]))
    assert result.report_cards[-1].trials == len(result.trials)  # all of them were learned
    costs = [t.statistics["macs"] for t in result.trials[:6]]
    assert costs == pytest.approx([config["x"] for config, _ in OUTSIDE], rel=1e-5)
    limit = CHEAP.upper or 0.0
    returned = [result.best, *result.pareto("macs"), *result.pareto("params"), *result.feasible]
    for budget in (Constraint("params", upper=0.9), Constraint("macs", upper=2.0)):
        best = result.best_within(budget)
        returned += [best] if best is not None else []
    for constraints in (None, [Constraint("params", upper=0.5)], [Constraint("macs", upper=0.9)]):
        candidates = search.evolve(constraints, top_k=5)
        assert all(c.statistics["macs"] <= limit for c in candidates)
    assert all(t.statistics["macs"] <= limit for t in returned)
    page = render(SPACE, result, About(statistic="macs", budgets=(0.9,)))
    assert f"best score<strong>{result.best.score:.4g}</strong>" in page


def test_without_a_feasible_score_the_message_names_the_constraint() -> None:
    search = _search(warm_start=OUTSIDE)
    with pytest.raises(SearchError, match=r"none of 6 trials has a score and meets macs <= 0\.4"):
        _ = search.result().best


def test_an_evolution_refuses_bounds_that_contradict_the_constraints() -> None:
    search = _search(constraints=[Constraint("macs", 0.2, 0.4)])
    search.run(lambda trial: float(trial.config["x"]))
    assert all(
        0.2 <= c.statistics["macs"] <= 0.3 for c in search.evolve([Constraint("macs", upper=0.3)])
    )
    with pytest.raises(SearchError, match=r"lower=0.2 is above upper=0.1.*0.2 <= macs <= 0.4"):
        search.evolve([Constraint("macs", upper=0.1)])


MACS, PARAMS = Constraint("macs", upper=5.0), Constraint("params", upper=9.0)


@pytest.mark.parametrize(
    ("bounds", "names"),
    [
        ((), ["macs", "params"]),
        ((MACS,), ["macs", "params"]),
        ((PARAMS,), ["params", "macs"]),
        ((PARAMS, MACS), ["params", "macs"]),
        ((Constraint("latency", upper=1.0), PARAMS), ["params", "macs"]),
    ],
)
def test_the_order_of_costs(bounds: tuple[Constraint, ...], names: list[str]) -> None:
    assert cost_order(bounds, ["macs", "params"]) == names
    assert cost_order(bounds, ["params", "macs"]) == names  # whatever the function's order


def _trial(number: int, score: float, macs: float, params: float) -> Trial:
    trial = Trial(f"t{number}", number, 0, {}, statistics={"macs": macs, "params": params})
    trial.finish(score)
    return trial


@pytest.mark.parametrize(
    ("rows", "constraints", "winner"),
    [
        ([(1, 3, 3), (1, 2, 9), (1, 2, 8)], (), 2),  # macs, then params
        ([(1, 3, 3), (1, 2, 9), (1, 2, 8)], (Constraint("params", upper=99.0),), 0),
        ([(1, 2, 8), (1, 2, 8)], (), 0),  # then the earlier one
        ([(1, 2, 8), (2, 9, 9)], (), 1),  # the score counts first
        ([(2, 9, 9), (1, 2, 8)], (MACS,), 1),  # within the constraints
    ],
)
def test_the_cheapest_of_equal_scores_wins(
    rows: list[tuple[float, float, float]], constraints: tuple[Constraint, ...], winner: int
) -> None:
    trials = [_trial(i, *row) for i, row in enumerate(rows)]
    result = SearchResult(trials, None, None, [], {}, constraints)
    assert result.best.number == winner
    within = result.best_within(Constraint("macs", upper=99.0))
    assert within is not None
    assert within.number == winner


def test_of_equal_predictions_the_cheapest_candidates_are_finalists() -> None:
    search = _search(constraints=[])
    result = search.run(lambda trial: 3.0)
    top = search.evolve()
    assert [c.statistics["macs"] for c in top] == sorted(c.statistics["macs"] for c in top)
    assert {c.predicted for c in top} == {3.0}
    coarse = [t.statistics["macs"] for t in result.trials if t.stage == "coarse"]
    fine = [t.statistics["macs"] for t in result.trials if t.stage == "fine"]
    assert max(fine) < sorted(coarse)[len(coarse) // 2]
    assert result.best.statistics["macs"] == min(t.statistics["macs"] for t in result.trials)


@pytest.mark.parametrize(
    ("bounds", "merged"),
    [
        ([], ()),
        ([Constraint("a", lower=1), Constraint("a", upper=2)], (Constraint("a", 1, 2),)),
        (
            [Constraint("a", upper=2), PARAMS, Constraint("a", lower=2)],
            (Constraint("a", 2, 2), PARAMS),
        ),
    ],
)
def test_bounds_on_one_statistic_are_merged(
    bounds: list[Constraint], merged: tuple[Constraint, ...]
) -> None:
    assert merge_bounds(bounds) == merged


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ([Constraint("a", lower=5), Constraint("a", upper=3)], "lower=5 is above upper=3"),
        (
            [Constraint("a", upper=5), Constraint("a", upper=3)],
            "two upper bounds, a <= 5 and a <= 3",
        ),
        ([MACS, MACS], "two upper bounds"),
        ([Constraint("a", 1, 2), Constraint("a", lower=1)], "two lower bounds"),
    ],
)
def test_bounds_that_repeat_or_contradict_each_other_are_refused(
    bounds: list[Constraint], text: str
) -> None:
    for make in (merge_bounds, lambda given: SearchSettings(constraints=tuple(given))):
        with pytest.raises(SearchError, match=text) as error:
            make(bounds)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("budgets", "text"),
    [
        ([MACS, MACS], "the budget macs <= 5 occurs twice"),
        ([Constraint("macs", upper=0.5)], "lower=1 is above upper=0.5"),
    ],
)
def test_budgets_that_repeat_or_contradict_are_refused(
    budgets: list[Constraint], text: str
) -> None:
    with pytest.raises(SearchError, match=text):
        SearchSettings(constraints=(Constraint("macs", lower=1.0),), budgets=tuple(budgets))
