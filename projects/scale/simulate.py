"""Runs a search of the paper's space with simulated trainings on many simulated workers.

    python -m projects.scale.simulate --workers 1000 --batch-size 1000 --iterations 10
    python -m projects.scale.simulate --workers 1000 --batch-size 100 --iterations 100 --ahead 900

All but the trainings is real: pool, predictors, proposals, the storage. A training's score is that
of a problem of projects/search_quality, by default one on the paper's space. Its time is one unit
on average: half of it in proportion to its MACs, times a log-normal factor (``--spread``); or, with
``--times``, as in a search that was run: by a line through that one's times and MACs, times a
factor drawn from those that its trainings were off the line. Prints one line of json:

* ``deciding_ms``: CPU time of the coordinator a trial, without the storage's and the first set-up;
* ``storing_ms``: CPU time a trial in the storage;
* ``database_kb``, ``memory_mb``: size a trial of the storage's file; largest size of the process;
* ``busy``: share of the workers' time in stage 1 that was spent on trainings, and
  ``busy_proposing`` until the last batch was proposed, after which workers run out of work;
* ``regret``: as in projects/search_quality, of the best observed.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fbnetv3.search import JointNAS, Trial
from fbnetv3.search.executor import Evaluate, Finished, More
from projects.search_quality import problems

Times = Callable[[float, np.random.Generator], float]
"""(MACs in units of the mean candidate's, random source) -> time in units of the mean."""


def made_up_times(spread: float) -> Times:
    """Returns times half in proportion to MACs, with a factor of so large a deviation."""

    def draw(macs: float, random: np.random.Generator) -> float:
        factor = np.exp(spread * random.standard_normal() - spread**2 / 2)
        return float((0.5 + 0.5 * macs) * factor)

    return draw


def recorded_times(path: Path) -> Times:
    """Returns times like those in a csv with the columns ``macs``, ``epochs`` and ``seconds``."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    macs = np.array([float(row["macs"]) for row in rows])
    seconds = np.array([float(row["seconds"]) / float(row["epochs"]) for row in rows])
    macs, seconds = macs / macs.mean(), seconds / seconds.mean()
    line = np.polynomial.Polynomial.fit(macs, seconds, 1).convert()
    factors = seconds / line(macs)

    def draw(macs: float, random: np.random.Generator) -> float:
        return float(max(line(macs), 0.1) * random.choice(factors))

    return draw


class SimulatedWorkers:
    """An executor whose workers take time on a clock of their own.

    Args:
        count: of workers.
        mean: MACs of the mean candidate.
        times: of trainings.
        seed: of their random part.

    Attributes:
        busy: sum of the training times so far.
        clock: time so far.
        proposing: share of the workers' time at work when trials last came.
    """

    def __init__(self, count: int, mean: float, times: Times, seed: int) -> None:
        self._count, self._mean, self._times = count, mean, times
        self._random = np.random.default_rng([seed, 51])
        self.busy = self.clock = self.proposing = 0.0

    def run(
        self,
        evaluate: Evaluate,
        trials: Sequence[Trial],
        finished: Finished,
        more: More | None = None,
    ) -> None:
        waiting, running = list(trials)[::-1], list[tuple[float, int, Trial]]()
        while waiting or running:
            while waiting and len(running) < self._count:
                trial = waiting.pop()
                took = self._duration(trial)
                self.busy += took
                heapq.heappush(running, (self.clock + took, trial.number, trial))
            self.clock, _, trial = heapq.heappop(running)
            finished(trial, evaluate(trial), None)
            found = list(more() if more else ())
            if found:
                ahead = sum(end - self.clock for end, _, _ in running)
                self.proposing = (self.busy - ahead) / (self._count * self.clock)
            waiting[:0] = found[::-1]

    def _duration(self, trial: Trial) -> float:
        return self._times(trial.statistics["macs"] / self._mean, self._random)

    def close(self) -> None:
        return


class Stopwatch:
    """CPU seconds spent in some blocks of code."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Adds what the block takes."""
        begin = time.process_time()
        try:
            yield
        finally:
            self.seconds += time.process_time() - begin


def simulate(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what one search cost and found."""
    problem = problems.get(args.problem)
    median, best = problems.reference(args.problem)
    noise = np.random.default_rng([args.seed, 52])
    times = recorded_times(args.times) if args.times else made_up_times(args.spread)
    whole, storing = Stopwatch(), Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "search.db"
        search = JointNAS(
            problem.space,
            statistics=problem.statistics,
            constraints=problem.constraints,
            batch_size=args.batch_size,
            iterations=args.iterations,
            ahead=args.ahead,
            finalists=0,
            early_stop_threshold=None,
            storage=f"sqlite:///{database}" if args.storage else None,
            seed=args.seed,
        )
        workers = SimulatedWorkers(
            args.workers, float(search.plan.pool.statistics["macs"].mean()), times, args.seed
        )
        told: list[Trial] = []

        def finished(trial: Trial, score: float | None, reason: str | None) -> None:
            told.append(trial)
            with storing.running():
                search.tell([trial], [score], [reason])

        def waiting() -> list[Trial]:
            with whole.running():
                found = [t for t in search.ask() if t.number not in started]
            started.update(t.number for t in found)
            return found

        def evaluate(trial: Trial) -> float:
            return float(problem.measure([trial.config], noise)[0])

        started: set[int] = set()
        while trials := waiting():
            workers.run(evaluate, trials, finished, waiting if args.ahead else None)
        size = database.stat().st_size if args.storage else 0
    scores = [t.score or -np.inf for t in told]
    truth = problem.truth([told[int(np.argmax(scores))].config])[0]
    count = len(told)
    return {
        "trials": count,
        "deciding_ms": round(1e3 * whole.seconds / count, 2),
        "storing_ms": round(1e3 * storing.seconds / count, 2),
        "database_kb": round(size / 1e3 / count, 2),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "busy": round(workers.busy / (args.workers * workers.clock), 3),
        "busy_proposing": round(workers.proposing, 3) if args.ahead else None,
        "regret": round(float((best - truth) / (best - median)), 4),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problem", default="synthetic", help="one that has MACs")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--ahead", type=int, default=0)
    parser.add_argument("--spread", type=float, default=0.25, help="of the logarithm of times")
    parser.add_argument("--times", type=Path, help="csv of recorded ones: macs, epochs, seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-storage", dest="storage", action="store_false", help="in memory")
    args = parser.parse_args()
    print(json.dumps({**vars(args), **simulate(args)}, default=str))


if __name__ == "__main__":
    main()
