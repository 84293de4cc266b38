"""The loop that evaluates the trials of a search on an executor and stores their results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fbnetv3.search.batches import Batches
from fbnetv3.search.checks import as_items, as_real
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Evaluate, Executor
from fbnetv3.search.failures import FailureLimit
from fbnetv3.search.trial import Trial


class Deadline:
    """A time after which no trial is submitted, on the monotonic clock.

    Args:
        hours: Hours from the construction on, above 0; None: no limit.

    Raises:
        SearchError: ``hours`` is not a finite number above 0.
    """

    def __init__(self, hours: float | None) -> None:
        if hours is not None:
            hours = as_real("max_hours", hours, above=0.0)
        self._end = None if hours is None else time.monotonic() + 3600 * hours

    def is_over(self) -> bool:
        """Returns whether the time is over."""
        return self._end is not None and time.monotonic() >= self._end


@dataclass(frozen=True)
class RunLoop:
    """Submits the trials of a search, and stores their results, until the search is done.

    Attributes:
        batches: Batches of the search.
        executor: Executor of the evaluations.
        evaluate: Function from a trial to its score or scores.
        notify: Function that is called with the kind of an event, ``start``, ``report`` or
            ``finish``, and its trial.
        check: Function that is called with all running trials before a new batch among them is
            submitted; it may raise an error to end the search.
        stop_after: Number of failures that end the search if they meet a condition of
            :class:`FailureLimit`; 0: failures never end it.
        deadline: Time after which no trial is submitted.
    """

    batches: Batches
    executor: Executor
    evaluate: Evaluate
    notify: Callable[[str, Trial], None]
    check: Callable[[Sequence[Trial]], None]
    stop_after: int
    deadline: Deadline

    def run(self) -> None:
        """Runs until the search is done, or the time is over and the running trials have ended.

        Raises:
            SearchError: Too many candidates fail (see :class:`FailureLimit`), ``check`` ends the
                search, or the storage or the executor cannot be used.
        """
        submitted: set[int] = set()
        limit = FailureLimit(self.stop_after, has_scores=self._has_scores())
        while not self.deadline.is_over() and (trials := self.batches.advance()):
            if trials[-1].number not in submitted:  # a new batch
                self.check(trials)
            if not submitted:  # so that a completed search starts no workers
                self.executor.start(self.evaluate)
            for trial in trials:
                if trial.number not in submitted:
                    submitted.add(trial.number)
                    limit.submitted(trial.number)
                    self._submit(trial)
            self._wait(limit)
        if submitted and self.deadline.is_over():
            self._end(limit)

    def _submit(self, trial: Trial) -> None:
        trial.on_report = lambda epoch, score: self.notify("report", trial)
        self.notify("start", trial)
        self.executor.submit(trial)

    def _wait(self, limit: FailureLimit) -> bool:
        """Stores the results of the next trials to finish; returns False if no trial is left."""
        results = self.executor.wait()
        for finished in results:
            trial = self.batches.waiting(finished.trial)
            self.batches.finish(trial, finished.score, finished.reason)
            limit.finished(finished)
            self.notify("finish", trial)
        self._stop_if(limit.problem())
        return bool(results)

    def _end(self, limit: FailureLimit) -> None:
        """Drops trials that have not started, if the executor can, and waits until none is left."""
        withdraw = getattr(self.executor, "withdraw", None)
        if withdraw is not None:
            withdraw()
        while self._wait(limit):
            pass

    def _has_scores(self) -> bool:
        """Returns whether a trial of the storage has a score."""
        return any(t.state == "complete" for t in self.batches.load())

    def _stop_if(self, problem: tuple[str, set[int]] | None) -> None:
        """Raises a SearchError for a problem, whose failed trials the next run evaluates again."""
        if problem is not None:
            text, numbers = problem
            self.batches.reopen(numbers)
            raise SearchError(text)


def store_results(
    batches: Batches,
    trials: Sequence[Trial],
    scores: Sequence[float | Mapping[str, float] | None],
    reasons: Sequence[str | None] | None,
) -> None:
    """Stores results of any number of running trials; see :meth:`JointNAS.tell`.

    Raises:
        SearchError: The lists have different lengths or wrong items, a trial is given twice or is
            not waiting for a result, or a result cannot be stored.
    """
    trials = as_items("tell: trials", trials, Trial, "trials that ask() returned")
    scores = as_items("tell: scores", scores, object, "scores")
    if reasons is not None:
        reasons = as_items("tell: reasons", reasons, str | None, "texts or None")  # type: ignore[arg-type]
    reasons = [None] * len(trials) if reasons is None else reasons
    if not len(trials) == len(scores) == len(reasons):
        raise SearchError(
            f"tell takes lists of equal length, not {len(trials)} trials, {len(scores)} scores "
            f"and {len(reasons)} reasons"
        )
    originals = [batches.waiting(trial) for trial in trials]
    twice = Counter(t.number for t in originals)  # replicates of a finalist share their id
    for trial in originals:
        if twice[trial.number] > 1:
            raise SearchError(
                f"tell was given trial {trial.name} twice; give each trial one result"
            )
    for trial, given in zip(originals, trials, strict=True):
        reports, trial.reports = dict(given.reports), {}
        for epoch, value in reports.items():
            trial.report(epoch, value)
    for trial, given, score, reason in zip(originals, trials, scores, reasons, strict=True):
        batches.finish(trial, score, reason)
        given.finish(score, reason)  # for the caller to read
