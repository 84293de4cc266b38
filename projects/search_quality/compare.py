"""Compares search methods with equally many evaluations.

    python -m projects.search_quality.compare run --seeds 20
    python -m projects.search_quality.compare report
    python -m projects.search_quality.compare forget --methods JointNAS    # to run these again

An interrupted ``run`` continues when it is called again: each finished (problem, method, seed) is a
line of results.jsonl. All methods start without data and have the same batch sizes and noise level.
The regret is computed from the true score of the configuration with the best observed score so far.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fbnetv3.io import atomic_write
from projects.search_quality import problems
from projects.search_quality.methods import METHODS, OF_PEERS_TXT
from projects.search_quality.methods.method import Budget

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.jsonl"
BATCH, TOTAL, STEP = 48, 192, 8
"""Evaluations per batch by default, per search, and between two regrets of a row."""
PACKAGES = (
    "optuna", "cmaes", "scikit-learn", "smac", "HEBO", "pymoo", "ax-platform", "botorch",
    "gpytorch", "syne-tune", "neural-pipeline-search", "torch", "numpy", "scipy",
)  # fmt: skip
"""Packages whose versions are printed."""


def run_one(problem_name: str, method: str, seed: int, budget: Budget) -> dict[str, Any]:
    """Runs one search; returns its line of results.jsonl.

    ``regret`` lists the regrets after 8, 16, ... evaluations, ``cpu_seconds`` the CPU time of the
    method for each batch, without the evaluations.

    Args:
        problem_name: A name of ``problems.NAMES``.
        method: A name of ``METHODS``.
        seed: Random seed of the search and of the noise.
        budget: Number of evaluations, and sizes of batches.
    """
    problem = problems.get(problem_name)
    median, best = problems.reference(problem_name)
    noise = np.random.default_rng([seed, 1000])
    started = time.perf_counter()
    cpu = time.process_time()
    search = METHODS[method](problem, seed, budget)
    sizes = iter(budget.sizes())
    observed: list[float] = []
    truths: list[float] = []
    cpu_seconds: list[float] = []
    while len(observed) < budget.total:
        configs = search.ask(next(sizes, budget.batch))
        cpu_seconds.append(round(time.process_time() - cpu, 2))
        if not configs:
            break
        scores = problem.measure(configs, noise)
        cpu = time.process_time()
        search.tell(configs, scores)
        observed += scores.tolist()
        truths += problem.truth(configs).tolist()
    best_indices = [int(np.argmax(observed[:n])) for n in range(STEP, budget.total + 1, STEP)]
    return {
        "problem": problem_name,
        "method": method,
        "seed": seed,
        "batch": budget.batch,
        "parts": budget.parts,
        "regret": [round((best - truths[i]) / (best - median), 5) for i in best_indices],
        "evaluations": len(observed),
        "cpu_seconds": cpu_seconds,
        "seconds": round(time.perf_counter() - started, 2),
    }


def finished_runs(path: Path) -> list[dict[str, Any]]:
    """Returns the finished runs, one per line of a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def division_of(row: dict[str, Any]) -> tuple[int, int]:
    """Returns the batch size and number of parts of the first batch; old lines mean 48 and 1."""
    return row.get("batch", BATCH), row.get("parts", 1)


def forget(arguments: argparse.Namespace) -> None:
    """Deletes the lines of the given problems, methods and division into batches."""
    path = Path(arguments.results)
    rows = finished_runs(path)
    kept = [
        row
        for row in rows
        if row["problem"] not in arguments.problems
        or row["method"] not in arguments.methods
        or division_of(row) != (arguments.batch, arguments.parts)
    ]
    with atomic_write(path) as temporary:
        text = "".join(json.dumps(row) + "\n" for row in kept)
        Path(temporary).write_text(text, encoding="utf-8")
    print(f"deleted {len(rows) - len(kept)} of {len(rows)} lines of {path}")


def run(arguments: argparse.Namespace) -> None:
    """Runs the unfinished searches seed by seed, so that all methods have equally many seeds."""
    budget = Budget(TOTAL, arguments.batch, arguments.parts)
    rows = finished_runs(Path(arguments.results))
    run_missing(
        arguments,
        {
            (row["problem"], row["method"], row["seed"])
            for row in rows
            if division_of(row) == (budget.batch, budget.parts)
        },
        lambda problem, method, seed: run_one(problem, method, seed, budget),
        lambda row: row["regret"][5::6],
    )


def run_missing(
    arguments: argparse.Namespace,
    known: Collection[tuple[str, str, int]],
    run_one: Callable[[str, str, int], dict[str, Any]],
    shown: Callable[[dict[str, Any]], Any],
) -> None:
    """Runs searches seed by seed, and appends a line for each to the file of results.

    Args:
        arguments: ``results``, ``problems``, ``methods``, ``first_seed`` and ``seeds``.
        known: Problem, method and seed of the finished searches.
        run_one: Function of problem, method and seed that runs a search and returns its row.
        shown: Function from a row to the figures that are printed.
    """
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for problem in arguments.problems:
            for method in arguments.methods:
                if (problem, method, seed) in known:
                    continue
                row = run_one(problem, method, seed)
                with Path(arguments.results).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(problem, method, seed, shown(row), row["seconds"], flush=True)


def versions() -> str:
    """Returns the versions of ``PACKAGES`` as a text."""
    names = []
    for name in PACKAGES:
        try:
            names.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            names.append(f"{name} not installed")
    return ", ".join(names)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "do", choices=("run", "report", "forget"),
        help="run searches, write the report of all of them, or delete their lines",
    )  # fmt: skip
    parser.add_argument(
        "--problems", nargs="+", default=list(problems.COMMITTED),
        choices=("all", *problems.NAMES),
        help="problems to run; by default those that need no published files",
    )  # fmt: skip
    parser.add_argument(
        "--methods", nargs="+", default=[m for m in METHODS if m not in OF_PEERS_TXT],
        choices=tuple(METHODS),
        help="methods to run; by default those that need no package of peers.txt",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=20, help="searches per problem and method")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first search")
    parser.add_argument("--batch", type=int, default=BATCH, help="evaluations per batch")
    parser.add_argument(
        "--parts", type=int, default=1,
        help="parts of the first batch, after each of which every method is told the scores",
    )  # fmt: skip
    parser.add_argument("--results", default=str(RESULTS), help="file of the finished searches")
    arguments = parser.parse_args()
    if "all" in arguments.problems:
        arguments.problems = list(problems.NAMES)
    print(versions())
    if arguments.do == "run":
        run(arguments)
    elif arguments.do == "forget":
        forget(arguments)
    else:
        from projects.search_quality.report import report

        report(finished_runs(Path(arguments.results)), versions())


if __name__ == "__main__":
    main()
