"""Compares search methods with equally many evaluations.

    python -m projects.search_quality.compare run --seeds 20
    python -m projects.search_quality.compare report

An interrupted ``run`` continues when it is called again: each finished (problem, method, seed) is a
line of results.jsonl. All methods start without data and have the same batch sizes and noise level.
The regret is computed from the true score of the configuration with the best observed score so far.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from projects.search_quality import problems
from projects.search_quality.methods import METHODS

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.jsonl"
BATCH, TOTAL, STEP = 48, 192, 8


def run_one(problem_name: str, method: str, seed: int) -> dict[str, Any]:
    """Runs one search; returns its line of results.jsonl.

    ``regret`` lists the regrets after 8, 16, ... evaluations.
    """
    problem = problems.get(problem_name)
    median, best = problems.reference(problem_name)
    noise = np.random.default_rng([seed, 1000])
    started = time.perf_counter()
    search = METHODS[method](problem, seed, TOTAL, BATCH)
    observed: list[float] = []
    truths: list[float] = []
    while len(observed) < TOTAL:
        configs = search.ask(BATCH)
        if not configs:
            break
        scores = problem.measure(configs, noise)
        search.tell(configs, scores)
        observed += scores.tolist()
        truths += problem.truth(configs).tolist()
    best_indices = [int(np.argmax(observed[:n])) for n in range(STEP, TOTAL + 1, STEP)]
    return {
        "problem": problem_name,
        "method": method,
        "seed": seed,
        "regret": [round((best - truths[i]) / (best - median), 5) for i in best_indices],
        "evaluations": len(observed),
        "seconds": round(time.perf_counter() - started, 2),
    }


def finished_runs(path: Path) -> list[dict[str, Any]]:
    """Returns the finished runs, one per line of a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(arguments: argparse.Namespace) -> None:
    """Runs the unfinished searches seed by seed, so that all methods have equally many seeds."""
    path = Path(arguments.results)
    known = {(r["problem"], r["method"], r["seed"]) for r in finished_runs(path)}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for problem in arguments.problems:
            for method in arguments.methods:
                if (problem, method, seed) in known:
                    continue
                row = run_one(problem, method, seed)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(problem, method, seed, row["regret"][5::6], row["seconds"], flush=True)


def versions() -> str:
    """Returns the versions of the peers and of the numerical packages."""
    names = []
    for name in ("optuna", "cmaes", "scikit-learn", "smac", "torch", "numpy", "scipy"):
        try:
            names.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            names.append(f"{name} not installed")
    return ", ".join(names)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("do", choices=("run", "report"))
    parser.add_argument(
        "--problems", nargs="+", default=list(problems.NAMES), help="problems to run"
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="methods to run")
    parser.add_argument("--seeds", type=int, default=20, help="searches per problem and method")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first search")
    parser.add_argument("--results", default=str(RESULTS), help="file of the finished searches")
    arguments = parser.parse_args()
    print(versions())
    if arguments.do == "run":
        run(arguments)
    else:
        from projects.search_quality.report import report

        report(finished_runs(Path(arguments.results)), versions())


if __name__ == "__main__":
    main()
