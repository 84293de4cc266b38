"""Compares searches with partial trainings at equal numbers of epochs.

    python -m projects.search_quality.partial run --seeds 10
    python -m projects.search_quality.partial report

Every method may train for as many epochs as 48 whole trainings have. The regret after some of them
is that of the configuration with the best observed score among those trained in full. The paper's
rule compares configurations at the epoch at which candidates stop; it names the best of them, and
trains it in full from its checkpoint first. A search that has too few epochs left for that names
the last configuration for which it had enough. JointNAS proposes batches of 8; the peers receive
every result before the next training starts, which is to their advantage. An interrupted ``run``
continues: each finished search is a line of partial.jsonl.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fbnetv3.search import JointNAS, Trial
from projects.search_quality import curves, problems
from projects.search_quality.compare import finished_runs, run_missing, versions
from projects.search_quality.curves import CurveProblem
from projects.search_quality.partial_peers import Step, neps_steps, optuna_steps, syne_tune_steps
from projects.search_quality.report import interval

RESULTS = Path(__file__).with_name("partial.jsonl")
WHOLE = 48
"""Number of whole trainings that have as many epochs as a search may use."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of these epochs after which the regret is reported."""


def _ours(problem: CurveProblem, seed: int, batch: int, **options: Any) -> Iterator[Step]:
    """Yields the steps of JointNAS; without rungs, candidates may stop early."""
    base = problem.problem
    search = JointNAS(
        base.space,
        statistics=base.statistics,
        constraints=base.constraints,
        batch_size=batch,
        iterations=10_000,
        finalists=0,
        seed=seed,
        **options,
    )
    done: dict[str, int] = {}
    stop: int | None = None
    while trials := search.ask():
        finals = [_evaluate(problem, trial, seed) for trial in trials]
        search.tell(trials, finals)
        if stop is None and "rungs" not in options and options.get("early_stop_threshold", 1):
            early_stop = search.result().early_stop  # decided by the first batch
            stop = None if early_stop is None else early_stop.epoch
        for trial, final in zip(trials, finals, strict=True):
            last = trial.max_epochs or problem.epochs
            compared = trial.reports.get(stop, final) if stop else final
            is_whole = last == problem.epochs or last == stop
            epochs = last - done.get(trial.id, 0)
            score = compared if is_whole else None
            yield Step(epochs, trial.config, score, problem.epochs - last)
            done[trial.id] = last


def _evaluate(problem: CurveProblem, trial: Trial, seed: int) -> float:
    curve = problem.curve(trial.config, seed)[: trial.max_epochs]
    for epoch, score in enumerate(curve.tolist(), 1):
        trial.report(epoch, score)
    return float(curve[-1])


METHODS: dict[str, Callable[[CurveProblem, int], Iterator[Step]]] = {
    "JointNAS, rungs": lambda p, seed: _ours(p, seed, 8, rungs=p.rungs),
    "JointNAS, whole trainings": partial(_ours, batch=8, early_stop_threshold=None),
    "JointNAS, the paper's rule": partial(_ours, batch=8, early_stop_over="all"),
    "TPE, Hyperband (Optuna)": optuna_steps,
    "ASHA (Syne Tune)": syne_tune_steps,
    "Hyperband (NePS)": neps_steps,
}


def run_one(name: str, method: str, seed: int) -> dict[str, Any]:
    """Runs one search; returns its line of partial.jsonl."""
    problem, started = curves.get(name), time.process_time()
    median, best = problems.reference(problem.problem.name)
    budget, used, whole = WHOLE * problem.epochs, 0, 0
    top, rest, regret = -np.inf, 0, 1.0
    regrets = [regret] * len(SHARES)
    for step in METHODS[method](problem, seed):
        used += step.epochs
        if used > budget:
            break
        if step.score is not None:
            whole += 1
        if step.score is not None and step.score > top:
            truth = float(problem.problem.truth([step.config])[0])
            top, rest, regret = step.score, step.rest, (best - truth) / (best - median)
        for i, share in enumerate(SHARES):
            if used + rest <= share * budget:
                regrets[i] = round(regret, 5)
    return {
        "problem": name,
        "method": method,
        "seed": seed,
        "regret": regrets,
        "whole": whole,
        "seconds": round(time.process_time() - started, 1),
    }


def run(arguments: argparse.Namespace) -> None:
    """Runs the unfinished searches seed by seed."""
    rows = finished_runs(Path(arguments.results))
    known = {(row["problem"], row["method"], row["seed"]) for row in rows}
    run_missing(arguments, known, run_one, lambda row: (row["regret"], row["whole"]))


def report(rows: list[dict[str, Any]]) -> str:
    """Returns the mean regrets as a table in Markdown, with 95 % intervals of the differences."""
    lines = [
        "| problem | method | seeds | " + " | ".join(f"{share:.0%}" for share in SHARES)
        + " | minus that of the rungs at 100% | trained in full | CPU seconds |",
        "| --- | --- | --- |" + " --- |" * (len(SHARES) + 3),
    ]  # fmt: skip
    ours = next(iter(METHODS))
    for name in curves.NAMES:
        of = {m: {r["seed"]: r for r in rows if (r["problem"], r["method"]) == (name, m)}
              for m in METHODS}  # fmt: skip
        for method, runs in of.items():
            if not runs:
                continue
            means = np.mean([r["regret"] for r in runs.values()], 0)
            both = sorted(set(runs) & set(of[ours]))
            against = ""
            if method != ours and both:
                pairs = [runs[s]["regret"][-1] - of[ours][s]["regret"][-1] for s in both]
                low, high = interval(np.array(pairs))
                against = f"{np.mean(pairs):+.3f} ({low:+.3f} to {high:+.3f})"
            cells = [f"`{name}`", method, str(len(runs)), *(f"{mean:.3f}" for mean in means)]
            cells += [against, f"{np.mean([r['whole'] for r in runs.values()]):.0f}"]
            cells.append(f"{np.mean([r['seconds'] for r in runs.values()]):.0f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("do", choices=("run", "report", "correlations"))
    parser.add_argument("--problems", nargs="+", default=list(curves.NAMES), help="problems to run")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="methods to run")
    parser.add_argument("--seeds", type=int, default=10, help="searches per problem and method")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first search")
    parser.add_argument("--results", default=str(RESULTS), help="file of the finished searches")
    arguments = parser.parse_args()
    if arguments.do == "run":
        print(versions())
        run(arguments)
    elif arguments.do == "correlations":
        for name in arguments.problems:
            problem = curves.get(name)
            print(name, problem.rungs, [round(c, 2) for c in curves.rank_correlations(problem)])
    else:
        print(report(finished_runs(Path(arguments.results))))


if __name__ == "__main__":
    main()
