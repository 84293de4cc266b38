"""Runs a search of the paper's space with simulated trainings on many simulated workers.

    python -m projects.scale.simulate --workers 1000 --batch-size 1000 --iterations 10
    python -m projects.scale.simulate --workers 1000 --batch-size 100 --iterations 100 --ahead 900

Only the trainings are simulated; pool, predictors, proposals, storage, and the command line's
progress, report cards and log are real. The score of a training is that of a problem of
projects/search_quality. The time of a training is 0.5 + 0.5 * MACs / mean MACs, times a log-normal
factor with mean 1 (``--spread``). With ``--times``, a line is fitted to recorded times against
MACs; the time of a training is that of the line, times a random one of the ratios of recorded to
fitted time. The command prints one line of JSON:

* ``deciding_ms``: coordinator CPU time per trial, without set-up, storing and telling;
* ``storing_ms``: CPU time per trial in the storage;
* ``telling_ms``: CPU time per trial for progress, report cards and the log;
* ``growth``: these three times for each tenth of the search, with the number of trials;
* ``database_kb``, ``memory_mb``: storage size per trial; peak memory of the process;
* ``busy``: share of the workers' time in stage 1 that was spent on trainings;
* ``busy_proposing``: the same share until the last batch was submitted (null without ``--ahead``);
* ``regret``: regret of the best observed candidate, as in projects/search_quality.
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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fbnetv3.search import JointNAS, Trial
from fbnetv3.search.executors.base import Evaluate, Finished
from fbnetv3.search.fbnet.watch import RunWatch
from fbnetv3.search.report.progress import SearchProgress
from fbnetv3.search.storage.batch_log import BatchLog
from fbnetv3.search.trial import Event
from projects.search_quality import problems

Times = Callable[[float, np.random.Generator], float]
"""Function that draws the time of a training from its MACs and a random generator.

MACs are in units of the mean over the candidates, times in units of the mean time.
"""


def synthetic_times(spread: float) -> Times:
    """Returns times of ``0.5 + 0.5 * macs`` with log-normal noise.

    Args:
        spread: Standard deviation of the logarithm of the noise, whose mean is 1.
    """

    def draw(macs: float, random: np.random.Generator) -> float:
        factor = np.exp(spread * random.standard_normal() - spread**2 / 2)
        return float((0.5 + 0.5 * macs) * factor)

    return draw


def recorded_times(path: Path) -> Times:
    """Returns times that depend on MACs and vary as recorded times per epoch do.

    Args:
        path: A csv with the columns ``macs``, ``epochs`` and ``seconds``.
    """
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


class Stopwatch:
    """Measures the CPU time of blocks of code, in seconds."""

    def __init__(self) -> None:
        self._before = 0.0
        self._begin: float | None = None

    @property
    def seconds(self) -> float:
        """CPU time so far, including that of a running block."""
        running = 0.0 if self._begin is None else time.process_time() - self._begin
        return self._before + running

    def start(self) -> None:
        """Starts the measurement."""
        self._begin = time.process_time()

    def stop(self) -> None:
        """Stops the measurement, if it is running."""
        self._before, self._begin = self.seconds, None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measures the block of a ``with`` statement."""
        self.start()
        try:
            yield
        finally:
            self.stop()


class SimulatedWorkers:
    """Executor whose workers run on a simulated clock.

    Args:
        count: Number of workers.
        mean: Mean MACs of the candidates.
        times: Function that draws the time of a training.
        seed: Random seed of the times.

    Attributes:
        mean: Mean MACs of the candidates, which may be set before the search.
        busy: Sum of the times of the trainings that have started.
        clock: Simulated time so far.
        proposing: Share of the workers' time spent on trainings until the last batch was submitted.
        inside: CPU time spent in :meth:`wait`.
        storing: CPU time from the end of :meth:`wait` until the stopwatch is stopped.
    """

    def __init__(self, count: int, mean: float, times: Times, seed: int) -> None:
        self._count, self._times, self.mean = count, times, mean
        self._random = np.random.default_rng([seed, 51])
        self.busy = self.clock = self.proposing = 0.0
        self.inside, self.storing = Stopwatch(), Stopwatch()
        self._waiting: deque[Trial] = deque()
        self._running: list[tuple[float, int, Trial]] = []
        self._has_new = False

    def start(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def submit(self, trial: Trial) -> None:
        self._waiting.append(trial)
        self._has_new = True

    def wait(self) -> list[Finished]:
        with self.inside.running():
            finished = self._next()
        self.storing.start()
        return finished

    def _next(self) -> list[Finished]:
        if self._has_new and self.clock:
            remaining = sum(end - self.clock for end, _, _ in self._running)
            self.proposing = (self.busy - remaining) / (self._count * self.clock)
        self._has_new = False
        while self._waiting and len(self._running) < self._count:
            trial = self._waiting.popleft()
            duration = self._duration(trial)
            self.busy += duration
            heapq.heappush(self._running, (self.clock + duration, trial.number, trial))
        if not self._running:
            return []
        self.clock, _, trial = heapq.heappop(self._running)
        return [Finished(trial, self._evaluate(trial))]

    def _duration(self, trial: Trial) -> float:
        return self._times(trial.statistics["macs"] / self.mean, self._random)

    def close(self) -> None:
        return


class CostMeter:
    """Callback of ``JointNAS.run`` that measures the CPU time of the coordinating process.

    Args:
        workers: Executor of the search.
        show: Callback that shows the events and logs the batches.
        total: Number of trials of the search.

    Attributes:
        whole: CPU time of the search, measured by the caller.
        finished: Finished trials so far.
        marks: (trials, seconds of deciding, storing and telling) after each tenth of the search.
    """

    def __init__(self, workers: SimulatedWorkers, show: RunWatch, total: int) -> None:
        self._workers, self._show = workers, show
        self._interval = max(1, total // 10)
        self._telling = Stopwatch()
        self.whole = Stopwatch()
        self.finished: list[Trial] = []
        self.marks = [(0, 0.0, 0.0, 0.0)]

    def __call__(self, search: JointNAS, event: Event) -> None:
        """Shows an event, and measures the time that this takes."""
        if event.kind == "finish":
            self._workers.storing.stop()
        with self._telling.running():
            self._show(search, event)
        if event.kind == "finish":
            self.finished.append(event.trial)
            if len(self.finished) % self._interval == 0:
                self.marks.append((len(self.finished), *self.seconds()))

    def seconds(self) -> tuple[float, float, float]:
        """Returns the CPU seconds of deciding, storing and telling so far."""
        outside = self.whole.seconds - self._workers.inside.seconds
        storing, telling = self._workers.storing.seconds, self._telling.seconds
        return outside - storing - telling, storing, telling


def simulate(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the costs and the regret of a search.

    Args:
        args: Command-line options.

    Returns:
        The values that are explained at the top of the file.
    """
    problem = problems.get(args.problem)
    noise = np.random.default_rng([args.seed, 52])
    times = recorded_times(args.times) if args.times else synthetic_times(args.spread)
    workers = SimulatedWorkers(args.workers, 1.0, times, args.seed)
    total = args.batch_size * args.iterations

    def evaluate(trial: Trial) -> float:
        return float(problem.measure([trial.config], noise)[0])

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        database = Path(folder) / "search.db"
        progress = SearchProgress(total, nowhere, batches=args.iterations)
        meter = CostMeter(workers, RunWatch(progress, BatchLog(Path(folder) / "log"), {}), total)
        search = _make_search(args, problem, workers, database)
        workers.mean = float(search.plan.pool.statistics["macs"].mean())
        with meter.whole.running():
            search.run(evaluate, callbacks=[meter])
        size = database.stat().st_size if args.storage else 0
    return _summary(args, problem, workers, meter, size)


def _make_search(
    args: argparse.Namespace, problem: problems.Problem, workers: SimulatedWorkers, database: Path
) -> JointNAS:
    """Returns a search of stage 1 only, without early stopping."""
    return JointNAS(
        problem.space,
        statistics=problem.statistics,
        constraints=problem.constraints,
        batch_size=args.batch_size,
        iterations=args.iterations,
        ahead=args.ahead,
        finalists=0,
        early_stop_threshold=None,
        executor=workers,
        storage=f"sqlite:///{database}" if args.storage else None,
        seed=args.seed,
    )


def _summary(
    args: argparse.Namespace,
    problem: problems.Problem,
    workers: SimulatedWorkers,
    meter: CostMeter,
    size: int,
) -> dict[str, Any]:
    """Returns the result of :func:`simulate`; ``size`` is that of the database in bytes."""
    median, best = problems.reference(args.problem)
    trials, count = meter.finished, len(meter.finished)
    observed = [-np.inf if t.score is None else t.score for t in trials]
    truth = problem.truth([trials[int(np.argmax(observed))].config])[0]
    deciding, storing, telling = (round(1e3 * s / count, 2) for s in meter.seconds())
    return {
        "trials": count,
        "deciding_ms": deciding,
        "storing_ms": storing,
        "telling_ms": telling,
        "growth": _growth(meter.marks),
        "database_kb": round(size / 1e3 / count, 2),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "busy": round(workers.busy / (args.workers * workers.clock), 3),
        "busy_proposing": round(workers.proposing, 3) if args.ahead else None,
        "regret": round(float((best - truth) / (best - median)), 4),
    }


def _growth(marks: Sequence[tuple[int, float, float, float]]) -> list[list[float]]:
    """Returns (trials, milliseconds per trial of deciding, storing and telling) between marks."""
    rows = []
    for before, after in pairwise(marks):
        count = after[0] - before[0]
        parts = zip(before[1:], after[1:], strict=True)
        rows.append([after[0], *(round(1e3 * (b - a) / count, 2) for a, b in parts)])
    return rows


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--problem", default="synthetic", help="problem of projects/search_quality that has MACs"
    )
    parser.add_argument("--workers", type=int, default=1000, help="number of simulated workers")
    parser.add_argument("--batch-size", type=int, default=1000, help="trials per batch")
    parser.add_argument("--iterations", type=int, default=10, help="number of batches")
    parser.add_argument(
        "--ahead",
        type=int,
        default=0,
        help="trials that may still run when a batch is proposed",
    )
    parser.add_argument(
        "--spread",
        type=float,
        default=0.25,
        help="standard deviation of the logarithm of the random factor of training times",
    )
    parser.add_argument("--times", type=Path, help="csv of recorded times: macs, epochs, seconds")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the search and times")
    parser.add_argument(
        "--no-storage", dest="storage", action="store_false", help="keep the trials in memory"
    )
    return parser


def main() -> None:
    """Runs the command line."""
    args = make_parser().parse_args()
    print(json.dumps({**vars(args), **simulate(args)}, default=str))


if __name__ == "__main__":
    main()
