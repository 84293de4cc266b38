"""Runs a search of the paper's space with simulated trainings on many simulated workers.

    python -m projects.scale.simulate --workers 1000 --batch-size 1000 --iterations 10
    python -m projects.scale.simulate --workers 1000 --batch-size 100 --iterations 100 --ahead 900

All but the trainings is real: pool, predictors, proposals, the storage, and what the command line
does at each event: lines, report cards, the log of finished batches. A training's score is that
of a problem of projects/search_quality, by default one on the paper's space. Its time is one unit
on average: half of it in proportion to its MACs, times a log-normal factor (``--spread``); or, with
``--times``, as in a search that was run: by a line through that one's times and MACs, times a
factor drawn from those that its trainings were off the line. Prints one line of json:

* ``deciding_ms``: CPU time of the coordinator a trial, without the first set-up and what follows;
* ``storing_ms``: CPU time a trial in the storage;
* ``telling_ms``: CPU time a trial for lines, report cards and the log;
* ``growth``: the three of each tenth of the search, and the trials by then;
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


class Stopwatch:
    """CPU seconds spent in some blocks of code."""

    def __init__(self) -> None:
        self._before = 0.0
        self._begin: float | None = None

    @property
    def seconds(self) -> float:
        """So far, a block that runs included."""
        running = 0.0 if self._begin is None else time.process_time() - self._begin
        return self._before + running

    def start(self) -> None:
        """Begins to count."""
        self._begin = time.process_time()

    def stop(self) -> None:
        """Stops counting, if it was begun."""
        self._before, self._begin = self.seconds, None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts the time that the block takes."""
        self.start()
        try:
            yield
        finally:
            self.stop()


class SimulatedWorkers:
    """An executor whose workers take time on a clock of their own.

    Args:
        count: of workers.
        mean: MACs of the mean candidate.
        times: of trainings.
        seed: of their random part.

    Attributes:
        mean: see above; may be told later.
        busy: sum of the training times so far.
        clock: time so far.
        proposing: share of the workers' time at work when trials last came.
        inside: CPU time in :meth:`wait`.
        telling: CPU time from the end of :meth:`wait` until it is stopped.
    """

    def __init__(self, count: int, mean: float, times: Times, seed: int) -> None:
        self._count, self._times, self.mean = count, times, mean
        self._random = np.random.default_rng([seed, 51])
        self.busy = self.clock = self.proposing = 0.0
        self.inside, self.telling = Stopwatch(), Stopwatch()
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
        self.telling.start()
        return finished

    def _next(self) -> list[Finished]:
        if self._has_new and self.clock:
            ahead = sum(end - self.clock for end, _, _ in self._running)
            self.proposing = (self.busy - ahead) / (self._count * self.clock)
        self._has_new = False
        while self._waiting and len(self._running) < self._count:
            trial = self._waiting.popleft()
            took = self._duration(trial)
            self.busy += took
            heapq.heappush(self._running, (self.clock + took, trial.number, trial))
        if not self._running:
            return []
        self.clock, _, trial = heapq.heappop(self._running)
        return [Finished(trial, self._evaluate(trial))]

    def _duration(self, trial: Trial) -> float:
        return self._times(trial.statistics["macs"] / self.mean, self._random)

    def close(self) -> None:
        return


def simulate(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what one search cost and found."""
    problem = problems.get(args.problem)
    median, best = problems.reference(args.problem)
    noise = np.random.default_rng([args.seed, 52])
    times = recorded_times(args.times) if args.times else made_up_times(args.spread)
    total = args.batch_size * args.iterations
    workers = SimulatedWorkers(args.workers, 1.0, times, args.seed)
    whole, announcing, showing = Stopwatch(), Stopwatch(), Stopwatch()
    marks = [(0, 0.0, 0.0, 0.0)]

    def watch(search: JointNAS, event: Event) -> None:
        if event.kind == "finish":
            workers.telling.stop()
        # a batch's report card is shown where it was proposed, all else where a result is told
        with (announcing if event.kind == "start" else showing).running():
            shown(search, event)
        if event.kind == "finish":
            told.append(event.trial)
            if len(told) % max(1, total // 10) == 0:
                marks.append((len(told), *spent()))

    def spent() -> tuple[float, float, float]:
        """Returns the seconds so far for deciding, storing and telling."""
        outside = whole.seconds - workers.inside.seconds
        storing, telling = workers.telling.seconds, announcing.seconds + showing.seconds
        return outside - storing - telling, storing, telling

    def evaluate(trial: Trial) -> float:
        return float(problem.measure([trial.config], noise)[0])

    told: list[Trial] = []
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        database = Path(folder) / "search.db"
        progress = SearchProgress(total, nowhere, batches=args.iterations)
        shown = RunWatch(progress, BatchLog(Path(folder) / "log"), {})
        search = JointNAS(
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
        workers.mean = float(search.plan.pool.statistics["macs"].mean())
        with whole.running():
            search.run(evaluate, callbacks=[watch])
        size = database.stat().st_size if args.storage else 0
    scores = [t.score or -np.inf for t in told]
    truth = problem.truth([told[int(np.argmax(scores))].config])[0]
    count = len(told)
    deciding, storing, telling = (round(1e3 * seconds / count, 2) for seconds in spent())
    return {
        "trials": count,
        "deciding_ms": deciding,
        "storing_ms": storing,
        "telling_ms": telling,
        "growth": _growth(marks),
        "database_kb": round(size / 1e3 / count, 2),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "busy": round(workers.busy / (args.workers * workers.clock), 3),
        "busy_proposing": round(workers.proposing, 3) if args.ahead else None,
        "regret": round(float((best - truth) / (best - median)), 4),
    }


def _growth(marks: Sequence[tuple[int, float, float, float]]) -> list[list[float]]:
    """Returns (trials, milliseconds a trial for deciding, storing, telling) of each part."""
    found = []
    for before, after in pairwise(marks):
        count = after[0] - before[0]
        parts = zip(before[1:], after[1:], strict=True)
        found.append([after[0], *(round(1e3 * (b - a) / count, 2) for a, b in parts)])
    return found


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
