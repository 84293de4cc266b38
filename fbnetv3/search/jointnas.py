"""The two-stage search over architectures and training recipes (paper, Algorithm 1)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fbnetv3.search.batches import Batches
from fbnetv3.search.chance import check_above_chance
from fbnetv3.search.checks import as_items, as_whole
from fbnetv3.search.enqueued import enqueued_candidate
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Evaluate, Executor, InProcess
from fbnetv3.search.executors.worker import refuse_start_at_import
from fbnetv3.search.failures import trials_that_failed
from fbnetv3.search.plan import Plan
from fbnetv3.search.planner import Planner
from fbnetv3.search.result import Candidate, SearchResult, evolved_candidates
from fbnetv3.search.running import Deadline, RunLoop, store_results
from fbnetv3.search.schedule import Schedule
from fbnetv3.search.settings import SearchSettings, check_arguments, check_functions
from fbnetv3.search.space.constraints import Constraint, Costs, StatisticsFn
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.storage.batch_log import LoggedSearch, check_agreement, check_log, repeatable
from fbnetv3.search.storage.store import MemoryStore, open_store
from fbnetv3.search.storage.warm_start import WarmStarted, read_warm_start
from fbnetv3.search.trial import STUDY, Event, Trial

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from fbnetv3.search.storage.warm_start import WarmStart

Callback = Callable[["JointNAS", Event], None]
"""Function that a search calls at each event; it may read the search, as progress displays do."""


class JointNAS:
    """Searches a space for the candidate with the best score under constraints.

    Stage 1 trains batches of candidates; a predictor chooses all but the first batch. Stage 2
    evolves candidates on predicted scores, and the best are trained as finalists. The proposals
    depend on settings, statistics, warm start, enqueued candidates and the results of earlier
    batches only: not on the executor, the number of workers, or the order of results within a
    batch. With ``ahead``, they also depend on which trials were running.

    Args:
        space: Space of the candidates.
        settings: Settings of the search; None: the defaults of :class:`SearchSettings`.
        statistics: Function from configs to ``{name: values}``, cheap to compute, for constraints
            and for pre-training the predictor; see :class:`Costs`. If None, there are none.
        warm_start: Results of an earlier search: trials, (config, score) pairs, a study of Optuna
            (object, URL, :class:`StoredStudy` or csv), the folder of a run, or the path of a csv
            with a column for each variable and one named ``score``.
        executor: Executor of the evaluations; None: they run in this process.
        storage: Optuna URL of the database, from which an interrupted search continues, as a
            string or a URL of SQLAlchemy; None: the trials are kept in memory.
        study: Name of the search in the storage, which may hold many.
        evaluator_config: Settings that affect the scores besides the candidate, as plain values by
            name, such as ``{"epochs": 5}``. The storage keeps them and refuses other ones.
        read_only: Whether to write nothing, for :meth:`result` and :meth:`evolve`. The storage must
            hold the study and may be untrusted: a SQLite file is copied, statistics are checked.
        stop_after_failures: Number of failures that end :meth:`run` with an error: in a row and
            caused by the device or the data, or of the first candidates submitted, if no candidate
            has a score. The failed candidates run again in the next run. 0: failures never end it.
        **changes: Fields of :class:`SearchSettings` in place of those of ``settings``.

    Raises:
        InfeasibleError: Too few candidates meet the constraints.
        SearchError: An argument is not allowed, the warm start or the storage cannot be read, or
            the storage holds a search with other settings.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: SearchSettings | None = None,
        *,
        statistics: StatisticsFn | None = None,
        warm_start: WarmStart | None = None,
        executor: Executor | None = None,
        storage: str | URL | None = None,
        study: str = STUDY,
        evaluator_config: Mapping[str, Any] | None = None,
        read_only: bool = False,
        stop_after_failures: int = 5,
        **changes: Any,
    ) -> None:
        check_arguments(space, settings, executor, evaluator_config)
        settings = replace(settings or SearchSettings(), **changes)
        self._warm_start = WarmStarted([])
        if warm_start is not None:
            self._warm_start = read_warm_start(space, warm_start, settings.direction)
        warm_trials = self._warm_start.trials
        feasible = FeasibleSpace(costs := Costs(space, statistics), settings.constraints)
        self.space, self._settings, self._is_read_only = space, settings, read_only
        self._planner = Planner(feasible, settings, warm_trials)
        self._executor: Executor = executor or InProcess()
        self._description = settings.describe(space, warm_trials)
        self._identity = settings.identify(space, costs.names, evaluator_config)
        direction, whole = settings.direction, settings.full_epochs
        self._store = open_store(storage, space, study, read_only, direction, whole)
        self._store.check_settings(self._description, self._identity)
        checked = costs if read_only else None
        self._batches = Batches(space, settings, self._planner, self._store, checked)
        self._stop_after = as_whole("stop_after_failures", stop_after_failures, low=0)

    @property
    def plan(self) -> Plan:
        """The pool, the ranges of the constrained statistics and the pre-trained encoder."""
        return self._planner.plan

    @property
    def warm_start(self) -> WarmStarted:
        """The trials of the warm start, and what was not taken from its source and why."""
        return self._warm_start

    @property
    def size(self) -> int:
        """The largest number of trials of the search, the finished ones included."""
        self._batches.load()
        return self._batches.schedule.size()

    @property
    def trials(self) -> list[Trial]:
        """Copies of trials that :meth:`ask` has proposed or read since the last :meth:`retry`."""
        return [trial.copy() for batch in self._batches.all for trial in batch]

    def finished_trials(self) -> list[Trial]:
        """Returns copies of the trials in the storage, also of those that ask has not read yet.

        Without ``ahead``, :meth:`ask` reads a batch only once all earlier batches have finished.
        """
        return [trial.copy() for trial in self._batches.load()]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as plain values, as the storage keeps them."""
        return dict(json.loads(json.dumps(self._description)))

    @property
    def identity(self) -> dict[str, Any]:
        """The plain values that the scores depend on; see :meth:`SearchSettings.identify`."""
        return dict(self._identity)

    @property
    def order(self) -> dict[str, Any]:
        """``running_at_batch_N``: numbers of trials running when N was proposed, with ``ahead``."""
        return self._batches.records.order

    @property
    def earlier_failures(self) -> dict[int, list[str]]:
        """Reasons of the failures after which :meth:`retry` put trials back, by trial number."""
        retries = self._batches.records.retries
        return {number: retries.reasons(number) for number in retries.entries}

    def restore(self, logged: LoggedSearch) -> None:
        """Copies the finished trials of a log into the storage, before the first ask.

        Args:
            logged: Log of a search with the same settings. With ``ahead``, only the part that is
                :func:`~.batch_log.repeatable` is copied. Trials that the storage has are kept.

        Raises:
            SearchError: The log is that of another search, or contradicts the storage.
        """
        check_log(logged, self.space, self.settings, self._identity)
        Schedule.of(self._settings, logged.trials, "log")
        self._store.acquire()
        stored = check_agreement(logged, self._batches.load())
        part = repeatable(logged, self._settings.batch_size) if self._settings.ahead else logged
        for name, value in part.order.items():
            self._store.set_attr(name, value)
        for batch, size in Counter(trial.batch for trial in part.trials).items():
            self._batches.records.set_size(batch, size)  # a log has whole batches
        for trial in part.trials:
            if trial.number not in stored:
                self._store.add(trial)
        self._batches.forget()

    def ask(self) -> list[Trial]:
        """Returns copies of the trials that have no result yet; [] when the search is done.

        They belong to one batch, or to several with ``ahead``. What is done to a copy has no effect
        on the search, except for the reports that :meth:`tell` reads from it. From the first call
        on, this process coordinates the study until the process ends or calls :meth:`close`.

        Raises:
            SearchError: Another process coordinates the study (the message names it), or the
                storage holds trials that this search does not propose.
        """
        return [trial.copy() for trial in self._batches.advance()]

    def preview(self) -> list[Trial]:
        """Returns the trials that :meth:`ask` would return, but stores nothing and takes no lock.

        Raises:
            SearchError: The storage holds trials of another search.
        """
        copy = MemoryStore(self._store.load(), self._store.attrs())
        return Batches(self.space, self._settings, self._planner, copy, None).advance()

    def tell(
        self,
        trials: Sequence[Trial],
        scores: Sequence[float | Mapping[str, float] | None],
        reasons: Sequence[str | None] | None = None,
    ) -> None:
        """Stores results of any number of trials, in any order.

        Args:
            trials: Trials that :meth:`ask` returned, with their reports.
            scores: One score per trial, or scores by name; None, NaN or infinity if it failed.
            reasons: One reason of failure per trial, None if it has a score.

        Raises:
            SearchError: The lengths differ, or a trial is not waiting for a result or occurs twice.
        """
        store_results(self._batches, trials, scores, reasons)

    def retry(self, trial: Trial) -> None:
        """Puts a failed trial back: it runs again, and keeps the reason of its failure.

        Later batches that have results do not change: for them, the trial still counts as failed.
        :meth:`ask` returns it; without ``ahead``, only once all earlier batches have finished.

        Args:
            trial: Trial of the search, such as one of :attr:`SearchResult.trials`.

        Raises:
            SearchError: The trial has not failed, or another process coordinates the study.
        """
        (trial,) = as_items("retry: trial", [trial], Trial, "a trial of this search")
        self._batches.reopen({trial.number})

    def retry_failed(self, reason: str = "") -> list[Trial]:
        """Puts all failed trials with a certain reason back; see :meth:`retry`.

        Args:
            reason: Part of the reason, in upper or lower case, or a kind of failure: ``out of
                memory`` or ``out of time``. Empty: any reason.

        Returns:
            Copies of the trials as they were; [] if none has failed.

        Raises:
            SearchError: All failures have other reasons, or another process coordinates the study.
        """
        chosen = trials_that_failed(self._batches.load(), reason)
        return self._batches.reopen({t.number for t in chosen}) if chosen else []

    def enqueue(
        self, config: Mapping[str, Any], reason: str, *, skip_if_exists: bool = False
    ) -> bool:
        """Makes a candidate one of the next batch, at any time and from any process.

        The candidate takes a place of the next batch that is proposed; with more candidates than
        places, the rest wait for the batch after it. It trains as all others do, and its trial has
        the reason as :attr:`Trial.enqueued`. Another process may open a search on the same storage
        and enqueue, too. If the storage lacks the study, the process that enqueues coordinates it
        from then on.

        Args:
            config: Value of each variable; inactive ones may be missing.
            reason: Reason for which the candidate is enqueued, for the report.
            skip_if_exists: Whether nothing happens if the candidate is a trial, or enqueued,
                already; for programs that run again to continue a search.

        Returns:
            Whether the candidate was enqueued.

        Raises:
            SearchError: The config is not in the space or violates a constraint, the candidate is a
                trial or enqueued already, the last batch has been proposed, or the search is
                read-only.
        """
        if self._is_read_only:
            raise SearchError("enqueue: the search is read_only; open it without read_only=True")
        candidate = enqueued_candidate(self._planner.feasible, config, reason)
        return self._batches.enqueue(candidate, skip_if_exists=skip_if_exists)

    def run(
        self,
        evaluate: Evaluate,
        callbacks: Sequence[Callback] = (),
        *,
        max_hours: float | None = None,
    ) -> SearchResult:
        """Runs the search to its end: asks for trials, evaluates them and stores their results.

        Args:
            evaluate: Function trial -> score, or trial -> scores by name if the objectives or
                score constraints name them. It may call ``trial.report(epoch, score)``, and should
                train for ``trial.max_epochs`` epochs if that is not None. If it has an attribute
                ``chance_score``, a number, the search ends after a first batch of 4 or more scores
                if none is better; ``chance_advice`` replaces the advice in the message.
            callbacks: Functions that are called as ``callback(search, event)`` in this process
                when a trial is submitted, reports a score or has finished.
            max_hours: Hours, above 0, after which no trial starts any more. The running ones are
                finished, and the next call of :meth:`run` continues. None: no limit.

        Raises:
            SearchError: The first batch scores no better than chance, so that later batches could
                not be chosen; too many candidates fail in a row (``stop_after_failures``); or the
                storage or the executor cannot be used.
        """
        check_functions(evaluate, callbacks)
        loop = self._loop(evaluate, callbacks, Deadline(max_hours))
        if not isinstance(self._executor, InProcess):
            refuse_start_at_import()
        try:
            loop.run()
        finally:
            self._executor.close()
            self.close()
        return self.result()

    def _loop(
        self, evaluate: Evaluate, callbacks: Sequence[Callback], deadline: Deadline
    ) -> RunLoop:
        return RunLoop(
            self._batches,
            self._executor,
            evaluate,
            partial(self._notify, callbacks),
            partial(self._check_above_chance, evaluate),
            self._stop_after,
            deadline,
        )

    def _notify(self, callbacks: Sequence[Callback], kind: str, trial: Trial) -> None:
        for callback in callbacks:
            callback(self, Event(kind, trial.copy()))

    def _check_above_chance(self, evaluate: Evaluate, due: Sequence[Trial]) -> None:
        """Raises a SearchError before a further batch of stage 1 if no score is above chance."""
        if first := self._batches.first_before(due):
            trials = [*self._planner.warm_start, *self.trials]
            check_above_chance(evaluate, first, trials, self._settings.direction)

    def close(self) -> None:
        """Lets another process coordinate the study, until the next :meth:`ask`."""
        self._store.release()

    def result(self) -> SearchResult:
        """Returns a snapshot of the results so far, including those of earlier processes."""
        history = self._batches.history()
        known, model = self._planner.known(history), self._planner.model(history)
        return SearchResult(
            trials=[trial.copy() for trial in known.finished()],
            predictor=None if model is None else model.predictor,
            early_stop=known.early_stop,
            report_cards=list(self._batches.cards(history).values()),
            rungs=known.rungs,
            proxy_correlation=dict(self._planner.plan.pretrained.correlation),
            constraints=self._settings.constraints,
            budgets=self._settings.budgets,
            early_stop_over=self._settings.early_stop_over,
            failures=self._planner.models.failure_summary(history, self._planner.plan.pool),
            direction=self._settings.direction,
            objectives=self._planner.objectives,
            score_constraints=self._settings.score_constraints,
            worst_costs=self._planner.worst_costs,
            first_parts=len(self._batches.schedule.first_parts),
        )

    def evolve(
        self,
        constraints: Sequence[Constraint] | None = None,
        top_k: int | None = None,
        drop: Sequence[str] = (),
    ) -> list[Candidate]:
        """Runs stage 2 under further constraints, without training.

        Args:
            constraints: Bounds on the candidates, in addition to those of the search; None: no
                further bounds.
            top_k: Number of candidates to return; None: ``evolution.top`` of the settings.
            drop: Statistics whose constraint of the search need not hold.

        Returns:
            Candidates, best predicted score first; among equal ones, the cheapest first.

        Raises:
            SearchError: There are too few scores to predict from, a constraint contradicts another
                one, or a statistic to drop has no constraint.
            InfeasibleError: Too few candidates meet the constraints.
        """
        if constraints is not None:
            constraints = as_items("constraints", constraints, Constraint, "constraints")
        if top_k is not None:
            top_k = as_whole("top_k", top_k, low=1)
        drop = as_items("drop", drop, str, "statistics")
        evolved = self._planner.evolve(self._batches.history(), constraints, top_k, drop)
        return evolved_candidates(self.space, evolved)
