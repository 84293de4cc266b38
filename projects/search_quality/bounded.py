"""Compares searches under a bound on a score that is known only after an evaluation.

    python -m projects.search_quality.bounded run --seeds 10
    python -m projects.search_quality.bounded report

The problems are those of ``problems.py``. In other comparisons, methods know the cost before an
evaluation; here, they are told the cost together with the score. On ``hartmann6``, which has no
cost, the cost is the sum of the variables, with the upper bound 3. ``run`` continues where it was
interrupted: each (problem, method, seed) is a line of bounded.jsonl.

The regret is that of the best observed score among the evaluations that meet the bound. 0 is the
best known candidate, 1 the median of random candidates. Until an evaluation meets the bound, the
regret is 1.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fbnetv3.search import Constraint, JointNAS
from projects.search_quality import problems
from projects.search_quality.methods import Method, Optuna, RandomSearch
from projects.search_quality.methods.method import Budget, costs_of, limit_of
from projects.search_quality.problem import Configs, Floats, Problem
from projects.search_quality.study import Study

RESULTS = Path(__file__).with_name("bounded.jsonl")
PROBLEMS = ("trainings", "synthetic", "continuous", "hartmann6")
METHODS = ("JointNAS", "TPE", "GP (Optuna)", "random")
BATCH, FINALISTS, AT = 8, 8, (48, 96)
"""Evaluations per batch, finalists of JointNAS, evaluations after which regrets are compared."""
_COST, _HARTMANN_LIMIT = "cost", 3.0


@dataclass(frozen=True)
class Bounded:
    """A problem without constraints, and the cost that has an upper bound.

    Attributes:
        problem: The problem.
        cost: Function from configurations to their costs, (configurations,).
        limit: Largest allowed cost.
    """

    problem: Problem
    cost: Callable[[Configs], Floats]
    limit: float


class BoundedJointNAS:
    """JointNAS, which is told the cost as a score with a bound."""

    def __init__(self, bounded: Bounded, seed: int) -> None:
        total = AT[-1]
        self._cost = bounded.cost
        self._search = JointNAS(
            bounded.problem.space,
            batch_size=BATCH,
            iterations=(total - FINALISTS) // BATCH,
            finalists=FINALISTS,
            seed=seed,
            score_constraints=[Constraint(_COST, upper=bounded.limit)],
        )
        self._waiting: list[Any] = []

    def ask(self, count: int) -> Configs:
        self._waiting = self._search.ask()
        return [t.config for t in self._waiting]

    def tell(self, configs: Configs, scores: Floats) -> None:
        pairs = zip(scores.tolist(), self._cost(configs).tolist(), strict=True)
        self._search.tell(self._waiting, [{"score": s, _COST: cost} for s, cost in pairs])


class BoundedOptuna(Optuna):
    """One of Optuna's samplers, which is told the excess over the bound as a constraint."""

    def __init__(self, sampler: Any, bounded: Bounded, seed: int) -> None:
        super().__init__(sampler, bounded.problem, seed)
        self._bounded = bounded

    def tell(self, configs: Configs, scores: Floats) -> None:
        excesses = (self._bounded.cost(configs) - self._bounded.limit).tolist()
        for trial, excess in zip(self._waiting, excesses, strict=True):
            trial.set_constraint(_COST, excess)
        super().tell(configs, scores)


def _method(name: str, bounded: Bounded, seed: int) -> Method:
    """Returns the search method with a name of ``METHODS``."""
    import optuna

    if name == "JointNAS":
        return BoundedJointNAS(bounded, seed)
    if name == "random":
        return RandomSearch(bounded.problem, seed, Budget(AT[-1], BATCH))
    samplers = {
        "GP (Optuna)": lambda: optuna.samplers.GPSampler(seed=seed),
        "TPE": lambda: optuna.samplers.TPESampler(constant_liar=True, seed=seed),
    }
    return BoundedOptuna(samplers[name](), bounded, seed)


@cache
def _bounded(name: str) -> Bounded:
    problem = problems.get(name)
    limit = limit_of(problem)
    free = replace(problem, constraints=(), statistics=None)
    if limit is None:
        return Bounded(free, _sum_of_variables, _HARTMANN_LIMIT)
    return Bounded(free, lambda configs: costs_of(problem, configs), limit[1])


def _sum_of_variables(configs: Configs) -> Floats:
    return np.array([sum(config.values()) for config in configs])


def run_one(name: str, method: str, seed: int) -> dict[str, Any]:
    """Runs one search; returns its line of bounded.jsonl."""
    bounded, noise = _bounded(name), np.random.default_rng([seed, 1000])
    median, best = problems.reference(name)
    search, started = _method(method, bounded, seed), time.process_time()
    observed: list[float] = []
    truths: list[float] = []
    are_met: list[bool] = []
    while len(observed) < AT[-1] and (configs := search.ask(BATCH)):
        scores = bounded.problem.measure(configs, noise)
        search.tell(configs, scores)
        observed += scores.tolist()
        truths += bounded.problem.truth(configs).tolist()
        are_met += (bounded.cost(configs) <= bounded.limit).tolist()
    regrets = [1.0] * len(AT)
    for i, count in enumerate(AT):
        winners = np.flatnonzero(are_met[:count])
        if len(winners):
            truth = truths[max(winners, key=lambda j: observed[j])]
            regrets[i] = round((best - truth) / (best - median), 5)
    return {
        "problem": name,
        "method": method,
        "seed": seed,
        "regret": regrets,
        "met": round(float(np.mean(are_met)), 3),
        "evaluations": len(observed),
        "seconds": round(time.process_time() - started, 1),
    }


STUDY = Study(
    about=__doc__.splitlines()[0] if __doc__ else "",
    results=RESULTS,
    problems=PROBLEMS,
    methods=METHODS,
    at=AT,
    figure="regret",
    higher_is_better=False,
    shares=("met",),
)

if __name__ == "__main__":
    STUDY.main(run_one)
