"""Compares searches for the Pareto front of score and cost with equally many evaluations.

    python -m projects.search_quality.fronts run --seeds 10
    python -m projects.search_quality.fronts report

The problems are those of ``problems.py`` that have a cost, without its constraint: the MACs, or the
latency of ``nasbench201`` (``public_tables.py`` makes its table). ``run`` continues where it was
interrupted: each (problem, method, seed) is a line of fronts.jsonl.

The hypervolume is computed from the noise-free scores of the configurations on the front of the
observed scores and the costs. The reference point has the largest cost of 2,000 random candidates
and the 10 % quantile of their scores. A hypervolume of 1 is the area of the rectangle from the
reference point to the smallest cost and the best score of these candidates; a front of better
candidates can exceed it.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fbnetv3.search.acquisition.hypervolume import hypervolume, non_dominated
from projects.search_quality import problems
from projects.search_quality.compare import BATCH, TOTAL
from projects.search_quality.methods import Method, Optuna, Ours, RandomSearch
from projects.search_quality.methods.ax_client import AxClient
from projects.search_quality.methods.method import Budget
from projects.search_quality.problems import Configs, Floats, Problem
from projects.search_quality.study import Study

RESULTS = Path(__file__).with_name("fronts.jsonl")
COSTS = {"trainings": "macs", "synthetic": "macs", "continuous": "macs", "nasbench201": "latency"}
"""The cost of each problem."""
AT = (96, 192)
"""Numbers of evaluations after which the hypervolumes are compared."""
_SAMPLE = 2000
"""Number of random candidates that define the reference point and the rectangle."""


class OptunaFront(Optuna):
    """One of Optuna's samplers with two objectives; it is told the costs with the scores."""

    def __init__(self, sampler: Any, problem: Problem, seed: int) -> None:
        import optuna

        super().__init__(sampler, problem, seed)
        self._study = optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])

    def tell(self, configs: Configs, scores: Floats) -> None:
        values = zip(self._waiting, scores.tolist(), _costs_of(self._problem, configs), strict=True)
        for trial, score, cost in values:
            self._study.tell(trial, [score, float(cost)])


class AxFront(AxClient):
    """Ax with two objectives; it is told the costs as an outcome without noise."""

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed, Budget(TOTAL, BATCH))
        self._cost = COSTS[problem.name]
        self._client.configure_optimization(objective=f"score, -{self._cost}")

    def _costs(self, config: dict[str, Any]) -> dict[str, Any]:
        return {self._cost: (float(_costs_of(self._problem, [config])[0]), 0.0)}


def _costs_of(problem: Problem, configs: Configs) -> Floats:
    assert problem.statistics is not None
    return np.asarray(problem.statistics(configs)[COSTS[problem.name]], dtype=np.float64)


def _method(name: str, problem: Problem, seed: int) -> Method:
    """Returns the search method with a name of ``METHODS``."""
    import optuna

    samplers = {
        "GP (Optuna)": lambda: optuna.samplers.GPSampler(seed=seed),
        "TPE": lambda: optuna.samplers.TPESampler(constant_liar=True, seed=seed),
        # a population of one batch instead of 50
        "NSGA-II": lambda: optuna.samplers.NSGAIISampler(population_size=BATCH, seed=seed),
    }
    if name == "JointNAS":
        return Ours(
            problem, seed, Budget(TOTAL, BATCH), objectives=["score", f"-{COSTS[problem.name]}"]
        )
    if name == "random":
        return RandomSearch(problem, seed, Budget(TOTAL, BATCH))
    if name == "Ax":
        return AxFront(problem, seed)
    return OptunaFront(samplers[name](), problem, seed)


METHODS = ("JointNAS", "GP (Optuna)", "Ax", "TPE", "NSGA-II", "random")


@cache
def _problem(name: str) -> Problem:
    return replace(problems.get(name), constraints=())


@cache
def _corners(name: str) -> tuple[Floats, Floats]:
    """Returns the reference point and the best corner of the rectangle, (score, -MACs) each."""
    problem = _problem(name)
    levels = problems.random_levels(problem, _SAMPLE, np.random.default_rng(99))
    configs = problem.space.configs(levels)
    scores, costs = problem.truth(configs), _costs_of(problem, configs)
    reference = np.array([np.quantile(scores, 0.1), -costs.max()])
    return reference, np.array([scores.max(), -costs.min()])


def volume(name: str, observed: Floats, configs: Configs) -> float:
    """Returns the hypervolume of the observed front by its true scores, in rectangles."""
    problem, (reference, corner) = _problem(name), _corners(name)
    costs = -_costs_of(problem, configs)
    front = non_dominated(np.column_stack([observed, costs]))
    true = np.column_stack([problem.truth(configs), costs])[front]
    return hypervolume(true, reference) / float(np.prod(corner - reference))


def run_one(name: str, method: str, seed: int) -> dict[str, Any]:
    """Runs one search; returns its line of fronts.jsonl."""
    problem, noise = _problem(name), np.random.default_rng([seed, 1000])
    search, started = _method(method, problem, seed), time.process_time()
    observed: list[float] = []
    evaluated: Configs = []
    while len(observed) < TOTAL and (configs := search.ask(BATCH)):
        scores = problem.measure(configs, noise)
        search.tell(configs, scores)
        observed += scores.tolist()
        evaluated += configs
    volumes = [volume(name, np.array(observed[:n]), evaluated[:n]) for n in AT]
    return {
        "problem": name,
        "method": method,
        "seed": seed,
        "hypervolume": [round(v, 5) for v in volumes],
        "evaluations": len(observed),
        "seconds": round(time.process_time() - started, 1),
    }


STUDY = Study(
    about=__doc__.splitlines()[0] if __doc__ else "",
    results=RESULTS,
    problems=tuple(COSTS),
    methods=METHODS,
    at=AT,
    figure="hypervolume",
    higher_is_better=True,
)

if __name__ == "__main__":
    STUDY.main(run_one)
