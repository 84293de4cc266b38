"""Tests the paper's claims that pre-training (Fig. 5) and stage 2 (Table 5) help.

    python -m projects.search_quality.claims synthetic

Prints Markdown tables for each of the problems of ``problems.py`` that are named.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.stats import kendalltau

from fbnetv3.search import JointNAS, Trial
from fbnetv3.search.predictors.encoder import Pretrained, pretrain
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from projects.search_quality import problems
from projects.search_quality.report import interval

COUNTS = (24, 48, 96, 144, 192)
"""Numbers of labelled candidates to which predictors are fitted."""
UNSEEN = 1000
"""Number of further candidates on which the predictors are scored."""


def pretraining(name: str, splits: int) -> None:
    """Prints Kendall's tau on unseen candidates, with and without pre-training.

    Args:
        name: Name of the problem.
        splits: Number of random sets of labelled and unseen candidates.
    """
    problem = problems.get(name)
    encoding = Encoding(problem.space)
    feasible = FeasibleSpace(Costs(problem.space, problem.statistics), tuple(problem.constraints))
    pool = feasible.sample(20_000, seed=0)
    columns = encoding.columns_of("architecture")
    trained = pretrain(encoding.encode(pool.levels), pool.statistics, columns, 0)
    print(
        "| predictor | labels | pre-trained | not pre-trained | difference |\n|---|---|---|---|---|"
    )
    for kind in ("paper", "default"):
        for count in COUNTS:
            taus = np.array(
                [
                    _taus(problem, kind, count, split, (trained, Pretrained(columns)))
                    for split in range(splits)
                ]
            )
            gain = taus[:, 0] - taus[:, 1]
            low, high = interval(gain)
            with_, without = taus.mean(0)
            print(
                f"| {kind} | {count} | {with_:.3f} | {without:.3f} | {gain.mean():+.3f} "
                f"({low:+.3f} to {high:+.3f}) |",
                flush=True,
            )


def _taus(
    problem: problems.Problem, kind: str, count: int, split: int, starts: Sequence[Pretrained]
) -> list[float]:
    """Returns Kendall's tau on the unseen candidates of one split, for each initial encoder."""
    random = np.random.default_rng([split, count])
    levels = problems.random_levels(problem, count + UNSEEN, random)
    configs = problem.space.configs(levels)
    features = Encoding(problem.space).encode(levels)
    labels = problem.measure(configs[:count], random)
    truth = problem.truth(configs[count:])
    taus = []
    for start in starts:
        predictor = fit_function(kind)(features[:count], labels, start, split)
        taus.append(float(kendalltau(predictor.predict(features[count:]), truth).statistic))
    return taus


def _regrets_of_stages(name: str, kind: str, seed: int) -> tuple[float, float]:
    """Returns the regrets of the best observed candidates of stage 1 and of stage 2 of a search."""
    problem = problems.get(name)
    median, best = problems.reference(name)
    noise = np.random.default_rng([seed, 1001])
    search = JointNAS(
        problem.space,
        statistics=problem.statistics,
        constraints=problem.constraints,
        predictor=kind,
        early_stop_threshold=None,
        seed=seed,
    )
    while trials := search.ask():
        search.tell(trials, problem.measure([t.config for t in trials], noise).tolist())

    def regret(trials: Sequence[Trial]) -> float:
        scored = [t for t in trials if t.score is not None]
        chosen = max(scored, key=lambda t: t.score or 0.0).config
        return float((best - problem.truth([chosen])[0]) / (best - median))

    coarse = [t for t in search.trials if t.stage == "coarse"]
    fine = [t for t in search.trials if t.stage == "fine"]
    # stage 2 has no finalists if all of its best candidates were trained before
    return regret(coarse), regret(fine or coarse)


def stage_two(name: str, seeds: int) -> None:
    """Prints how much the eight finalists of stage 2 improve on stage 1.

    Args:
        name: Name of the problem.
        seeds: Number of searches.
    """
    head = "| predictor | best of stage 1 | best of the finalists | better in | gain |\n"
    print(head + "|---" * 5 + "|")
    for kind in ("default", "paper"):
        regrets = np.array([_regrets_of_stages(name, kind, seed) for seed in range(seeds)])
        gain = regrets[:, 0] - regrets[:, 1]
        low, high = interval(gain)
        print(
            f"| {kind} | {regrets[:, 0].mean():.3f} | {regrets[:, 1].mean():.3f} | "
            f"{(gain > 0).sum()} of {seeds} | {gain.mean():+.3f} ({low:+.3f} to {high:+.3f}) |",
            flush=True,
        )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problems", nargs="*", default=["synthetic"], help="names of problems")
    parser.add_argument(
        "--seeds", type=int, default=20, help="number of random splits, and of searches"
    )
    arguments = parser.parse_args()
    for name in arguments.problems:
        print(f"## {name}\n")
        pretraining(name, arguments.seeds)
        print()
        stage_two(name, arguments.seeds)


if __name__ == "__main__":
    main()
