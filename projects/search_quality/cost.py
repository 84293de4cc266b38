"""Measures the CPU time of the first batch after a warm start, by the number of its trials.

The time is that of the fit of the predictor, its cross-validation and the choice of candidates.

python -m projects.search_quality.cost
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fbnetv3.search import JointNAS
from projects.search_quality import problems

COUNTS = (48, 96, 192, 240, 480, 1000, 2000, 5000, 10_000)
"""Numbers of earlier trials."""


def seconds_of_batch(name: str, count: int) -> float:
    """Returns the CPU seconds of the first ``ask`` of a search with a warm start.

    Args:
        name: Name of the problem.
        count: Number of trials of the warm start.
    """
    problem = problems.get(name)
    random = np.random.default_rng(count)
    configs = problem.space.configs(problems.random_levels(problem, count, random))
    scores = problem.measure(configs, random)
    search = JointNAS(
        problem.space,
        statistics=problem.statistics,
        constraints=problem.constraints,
        warm_start=list(zip(configs, scores.tolist(), strict=True)),
        early_stop_threshold=None,
    )
    _ = search.plan  # the pool and the pre-training are computed once per search
    started = time.process_time()
    search.ask()
    return time.process_time() - started


def main() -> None:
    """Prints a Markdown table."""
    print("| trials | synthetic (42 variables) | hartmann6 |\n|---|---|---|")
    for count in COUNTS:
        cells = [f"{seconds_of_batch(name, count):.1f} s" for name in ("synthetic", "hartmann6")]
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
