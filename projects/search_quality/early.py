"""Compares divisions of the first 96 evaluations of a search into batches.

    python -m projects.search_quality.early run --seeds 3
    python -m projects.search_quality.early report    # the table

A division is written as the sizes of its batches, such as 16-16-16-48. Batches are proposed by the
planner of JointNAS without stage 2 and without pre-training, from a pool of 4,096 candidates. The
regrets after 48 and 96 evaluations are compared. An interrupted ``run`` continues when it is called
again: each finished search is a line of the file of results.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fbnetv3.search import SearchSettings
from fbnetv3.search.history import History
from fbnetv3.search.planner import Planner
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from projects.search_quality import early_problems
from projects.search_quality.report import interval

DIVISIONS = ("48-48", "24-24-48", "16-16-16-48", "12-12-12-12-48")
MARKS = (48, 96)
"""Numbers of evaluations after which the regrets are compared."""
Row = dict[str, Any]


def run_one(name: str, division: str, seed: int) -> Row:
    """Runs one search; returns its row, with the regrets at ``MARKS`` and the CPU seconds."""
    problem = early_problems.get(name)
    median, best = early_problems.reference(name)
    noise, started = np.random.default_rng([seed, 1000]), time.process_time()
    constraints = tuple(problem.constraints)
    settings = SearchSettings(
        constraints=constraints, pool_size=4096, early_stop_threshold=None, seed=seed,
        pretrain=False, first_parts=1,
    )  # fmt: skip
    planner = Planner(
        FeasibleSpace(Costs(problem.space, problem.statistics), constraints), settings
    )
    batches: list[Any] = []
    observed: list[float] = []
    truths: list[float] = []
    for size in map(int, division.split("-")):
        trials = planner.propose(History.of(batches), size, "coarse")
        configs = [trial.config for trial in trials]
        scores = problem.measure(configs, noise).tolist()
        for trial, score in zip(trials, scores, strict=True):
            trial.finish(score)
        batches.append(trials)
        observed += scores
        truths += problem.truth(configs).tolist()
    seconds = round(time.process_time() - started, 2)
    regrets = [(best - truths[int(np.argmax(observed[:n]))]) / (best - median) for n in MARKS]
    return {"problem": name, "division": division, "seed": seed, "regret": regrets,
            "seconds": seconds}  # fmt: skip


def read(path: Path) -> list[Row]:
    """Returns the finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(arguments: argparse.Namespace, path: Path) -> None:
    """Runs the searches that the file of results lacks, seed by seed."""
    known = {(r["problem"], r["division"], r["seed"]) for r in read(path)}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for name in arguments.problems:
            for division in arguments.divisions:
                if (name, division, seed) not in known:
                    row = run_one(name, division, seed)
                    with path.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)


def report(rows: list[Row]) -> None:
    """Prints the regrets of each division, and their differences from the first one in ``rows``."""
    by_division: dict[str, dict[tuple[str, int], Any]] = {}
    for row in rows:
        runs = by_division.setdefault(row["division"], {})
        runs[row["problem"], row["seed"]] = np.array(row["regret"])
    first = next(iter(by_division.values()))
    print("| division | pairs | at 48 | at 96 | difference at 48 | difference at 96 |")
    print("|---|---|---|---|---|---|")
    for division, runs in by_division.items():
        pairs = sorted(set(runs) & set(first))
        means = np.mean([runs[pair] for pair in pairs], 0)
        gaps = np.array([runs[pair] - first[pair] for pair in pairs])
        cells = [f"{mean:.3f}" for mean in means]
        for column in range(len(MARKS)):
            low, high = interval(gaps[:, column])
            cells.append(f"{gaps[:, column].mean():+.3f} ({low:+.3f} to {high:+.3f})")
        print(f"| {division} | {len(pairs)} | {' | '.join(cells)} |")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("do", choices=("run", "report"), help="run searches, or print the table")
    parser.add_argument(
        "--problems", nargs="+", default=list(early_problems.TUNED),
        help="names of early_problems.py; by default those of TUNED",
    )  # fmt: skip
    parser.add_argument("--divisions", nargs="+", default=list(DIVISIONS), help="sizes of batches")
    parser.add_argument("--seeds", type=int, default=3, help="seeds per problem and division")
    parser.add_argument("--first-seed", type=int, default=101, help="the first seed")
    parser.add_argument("--results", default="output/early.jsonl", help="file of finished runs")
    arguments = parser.parse_args()
    path = Path(arguments.results)
    if arguments.do == "report":
        report(read(path))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        run(arguments, path)


if __name__ == "__main__":
    main()
