"""The two-stage search over architectures and training recipes (paper, Algorithm 1)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fbnetv3.search.chance import check_above_chance
from fbnetv3.search.checks import as_items, as_whole
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Evaluate, Executor, InProcess
from fbnetv3.search.executors.worker import refuse_start_at_import
from fbnetv3.search.history import History, check_stored
from fbnetv3.search.planner import Plan, Planner
from fbnetv3.search.records import Records
from fbnetv3.search.result import Candidate, SearchResult, evolved_candidates
from fbnetv3.search.settings import SearchSettings, check_arguments, check_functions
from fbnetv3.search.space.constraints import Constraint, Costs, StatisticsFn
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.storage.batch_log import LoggedSearch, check_agreement, check_log, repeatable
from fbnetv3.search.storage.store import open_store
from fbnetv3.search.storage.warm_start import WarmStart, read_warm_start
from fbnetv3.search.trial import STUDY, Event, Trial

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

Callback = Callable[["JointNAS", Event], None]
"""Function that a search calls at each event; it may read the search, as progress displays do."""


class JointNAS:
    """Searches a space for the candidate with the best score under constraints.

    Stage 1 trains batches of candidates that a predictor chooses. Stage 2 evolves candidates on
    predicted scores alone, and the best of them are trained as finalists. The proposals depend
    on the seed and on the scores of earlier batches only: not on the executor, the number of
    workers, or the order of results within a batch.

    Args:
        space: Space of the candidates.
        settings: Settings of the search; None: the defaults of :class:`SearchSettings`.
        statistics: Function from configs to ``{name: values}``, cheap to compute, for constraints
            and for pre-training the predictor; see :class:`Costs`. If None, there are none.
        warm_start: Results of an earlier search: trials, (config, score) pairs, or the path of a
            csv with a column for each variable and one named ``score``.
        executor: Executor of the evaluations; None: they run in this process.
        storage: Optuna URL of the database, as text or as a URL of SQLAlchemy, from which an
            interrupted search continues; None: the trials are kept in memory.
        study: Name of the search in the storage, which may hold many.
        evaluator_config: What decides the scores besides the candidate, such as ``{"epochs": 5}``:
            plain values by name. The storage keeps it, and refuses a search with another one.
        read_only: Whether to write nothing to the storage, for :meth:`result` and :meth:`evolve`. A
            SQLite file, which may be untrusted, is copied first, and its statistics are checked.
        **changes: Fields of :class:`SearchSettings` that replace those of ``settings``, such as
            ``batch_size=16``.

    Raises:
        InfeasibleError: Too few candidates meet the constraints.
        SearchError: A setting is out of range, or the storage holds a search with other settings.
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
        **changes: Any,
    ) -> None:
        check_arguments(space, settings, executor, evaluator_config)
        settings = replace(settings or SearchSettings(), **changes)
        warm_trials = [] if warm_start is None else read_warm_start(space, warm_start)
        costs = Costs(space, statistics)
        feasible = FeasibleSpace(costs, settings.constraints)
        self.space, self._settings = space, settings
        self._planner = Planner(feasible, settings, warm_trials)
        self._executor: Executor = executor or InProcess()
        self._description = settings.describe(space, warm_trials)
        self._identity = settings.identify(space, costs.names, evaluator_config)
        self._store = open_store(storage, space, study, read_only)
        self._store.check_settings(self._description, self._identity)
        self._records = Records(self._store)
        self._checked_costs = costs if read_only else None
        self._batches: list[list[Trial]] = []
        self._running: dict[int, Trial] = {}
        self._stored: list[Trial] | None = None

    @property
    def plan(self) -> Plan:
        """The pool, the reach of the constraints and the pre-trained encoder."""
        return self._planner.plan

    @property
    def trials(self) -> list[Trial]:
        """Copies of all trials that were proposed or replayed; empty before the first ask."""
        return [trial.copy() for batch in self._batches for trial in batch]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as plain values, as the storage keeps them.

        The proposals depend on these, the statistics and the scores alone.
        """
        return dict(json.loads(json.dumps(self._description)))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the scores, as plain values; see :meth:`SearchSettings.identify`."""
        return dict(self._identity)

    @property
    def order(self) -> dict[str, Any]:
        """The numbers of the trials that were running when each batch was proposed ahead."""
        return self._records.order

    def restore(self, logged: LoggedSearch) -> None:
        """Copies the finished trials of a log into the storage, before the first ask.

        Args:
            logged: Log of a search with the same settings. With ``ahead``, only the part that is
                :func:`~.batch_log.repeatable` is copied. Trials that the storage has are kept.

        Raises:
            SearchError: The log is that of another search, or contradicts the storage.
        """
        check_log(logged, self.space, self.settings, self._identity)
        self._store.acquire()
        stored = check_agreement(logged, self._load())
        part = repeatable(logged, self._settings.batch_size) if self._settings.ahead else logged
        for name, value in part.order.items():
            self._store.set_attr(name, value)
        for batch, size in Counter(trial.batch for trial in part.trials).items():
            self._records.set_size(batch, size)  # a log has whole batches
        for trial in part.trials:
            if trial.number not in stored:
                self._store.add(trial)
        self._stored = None

    def ask(self) -> list[Trial]:
        """Returns copies of the trials that have no result yet; [] when the search is done.

        They belong to one batch, or to several with ``ahead``. What is done to a copy has no effect
        on the search, except for the reports that :meth:`tell` reads from it. From the first call
        on this process coordinates the study, until it ends or calls :meth:`close`.

        Raises:
            SearchError: Another process coordinates the study; the message names it.
        """
        return [trial.copy() for trial in self._ask()]

    def _ask(self) -> list[Trial]:
        """Returns the trials that have no result yet, the search's own ones."""
        self._store.acquire()
        if not self._batches:
            self._stored = self._load()  # another process may have added trials
        while self._is_due() and self._propose():
            pass
        return list(self._running.values())

    def _is_due(self) -> bool:
        """Returns whether few enough trials are running to propose the next batch."""
        is_coarse = len(self._batches) < self._settings.iterations
        return len(self._running) <= (self._settings.ahead if is_coarse else 0)

    def tell(
        self,
        trials: Sequence[Trial],
        scores: Sequence[float | None],
        reasons: Sequence[str | None] | None = None,
    ) -> None:
        """Stores results of any number of trials, in any order.

        Args:
            trials: Trials that :meth:`ask` returned, with their reports.
            scores: One score per trial; None, NaN or infinity if it failed.
            reasons: One reason of failure per trial, None where there is a score.

        Raises:
            SearchError: The lengths differ, or a trial is not waiting for a result or occurs twice.
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
        own = [self._waiting(trial) for trial in trials]
        twice = [key for key, count in Counter(t.id for t in own).items() if count > 1]
        if twice:
            raise SearchError(f"tell was given trial {twice[0]} twice; give each trial one result")
        for trial, given in zip(own, trials, strict=True):
            reports, trial.reports = dict(given.reports), {}
            for epoch, value in reports.items():
                trial.report(epoch, value)
        for trial, given, score, reason in zip(own, trials, scores, reasons, strict=True):
            self._finish(trial, score, reason)
            given.finish(score, reason)  # for the caller to read

    def _waiting(self, trial: Trial) -> Trial:
        """Returns the search's own trial for a copy of it that waits for a result."""
        own = self._running.get(trial.number)
        if own is None or own.id != trial.id:
            raise SearchError(
                f"trial {trial.id} is not waiting for a result: ask() did not return it, or it has "
                "one already"
            )
        return own

    def _finish(self, trial: Trial, score: Any, reason: str | None) -> None:
        """Decides a trial, which nothing changes from then on, and stores it."""
        trial.on_report = None
        trial.finish(score, reason)
        self._store.add(trial)
        del self._running[trial.number]

    def run(self, evaluate: Evaluate, callbacks: Sequence[Callback] = ()) -> SearchResult:
        """Runs the search to its end: asks for trials, evaluates them and stores their results.

        Args:
            evaluate: Function trial -> score; higher is better. It may call
                ``trial.report(epoch, score)``, and should train for ``trial.max_epochs`` epochs
                if that is not None. If it has an attribute ``chance_score``, a number, the search
                ends after the first batch unless a candidate scores above it. An attribute
                ``chance_advice`` replaces the advice in the message.
            callbacks: Functions that are called as ``callback(search, event)`` in this process
                when a trial is submitted, reports a score or has finished.

        Raises:
            SearchError: The first batch scores no better than chance, so that later batches could
                not be chosen; or the storage or the executor cannot be used.
        """
        check_functions(evaluate, callbacks)
        if not isinstance(self._executor, InProcess):
            refuse_start_at_import()
        try:
            self._run(evaluate, callbacks)
        finally:
            self._executor.close()
            self.close()
        return self.result()

    def _run(self, evaluate: Evaluate, callbacks: Sequence[Callback]) -> None:
        def notify(kind: str, trial: Trial) -> None:
            for callback in callbacks:
                callback(self, Event(kind, trial.copy()))

        submitted: set[int] = set()
        while trials := self._ask():
            if trials[-1].number not in submitted:  # a new batch
                self._check_above_chance(evaluate, trials)
            if not submitted:  # a search that is done already starts no workers
                self._executor.start(evaluate)
            for trial in trials:
                if trial.number not in submitted:
                    submitted.add(trial.number)
                    trial.on_report = lambda epoch, score, t=trial: notify("report", t)
                    notify("start", trial)
                    self._executor.submit(trial)
            for finished in self._executor.wait():
                trial = self._waiting(finished.trial)
                self._finish(trial, finished.score, finished.reason)
                notify("finish", trial)

    def _check_above_chance(self, evaluate: Evaluate, due: Sequence[Trial]) -> None:
        """Raises a SearchError before a further batch of stage 1 if no score is above chance."""
        is_further = any(t.batch > 0 and t.stage == "coarse" for t in due)
        if is_further and History.of(self._batches).finished:
            trials = [*self._planner.warm_start, *(t for batch in self._batches for t in batch)]
            check_above_chance(evaluate, self._batches[0], trials)

    def close(self) -> None:
        """Lets another process coordinate the study, until the next :meth:`ask`."""
        self._store.release()

    def result(self) -> SearchResult:
        """Returns a snapshot of the results so far, including those of earlier processes."""
        history = self._history()
        known, model = self._planner.known(history), self._planner.model(history)
        cards = self._planner.cards(history, self._records.cards())
        return SearchResult(
            trials=[trial.copy() for trial in known.finished()],
            predictor=None if model is None else model.predictor,
            early_stop=known.early_stop,
            cards=list(cards.values()),
            proxy_correlation=dict(self._planner.plan.pretrained.correlation),
            constraints=self._settings.constraints,
            budgets=self._settings.budgets,
            early_stop_over=self._settings.early_stop_over,
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
            Candidates, by falling predicted score. Of equal predictions, the cheapest is first.

        Raises:
            SearchError: There are too few scores to predict from, a constraint contradicts another
                one, or there is none to drop.
            InfeasibleError: Too few candidates meet the constraints.
        """
        if constraints is not None:
            constraints = as_items("constraints", constraints, Constraint, "constraints")
        if top_k is not None:
            top_k = as_whole("top_k", top_k, low=1)
        drop = as_items("drop", drop, str, "statistics")
        evolved = self._planner.evolve(self._history(), constraints, top_k, drop)
        return evolved_candidates(self.space, evolved)

    def _history(self) -> History:
        """Returns the batches so far; before the first ask, those of the storage."""
        if self._batches:
            return History.of(self._batches)
        if self._stored is None:
            self._stored = self._load()
        return History.stored(self._stored, self._settings, self._records.sizes)

    def _load(self) -> list[Trial]:
        trials = self._store.load()
        return check_stored(trials, self.space, self._settings, self._checked_costs)

    def _propose(self) -> bool:
        """Adds the next batch; returns False where the search is done."""
        number = len(self._batches)
        if number and not self._running:
            history = History.of(self._batches)
            cards = self._planner.cards(history, self._records.cards())
            self._records.save(self._planner.known(history).early_stop, cards)
        if number >= self._settings.batch_count():
            return False
        trials = self._replayed(number)
        if trials is None:
            trials = self._proposed(number)
        self._records.set_size(number, len(trials))  # before any of them is stored
        self._batches.append(trials)
        # the batch is empty where the space is exhausted: stage 2 then has nothing new either
        self._running |= {t.number: t for t in trials if t.state == "running"}
        return True

    def _replayed(self, number: int) -> list[Trial] | None:
        """Returns a batch from the storage if it is finished; None if it is not."""
        stored = self._stored or []
        batch, size = [t for t in stored if t.batch == number], self._records.sizes.get(number)
        if size is not None:
            return batch if len(batch) == size else None
        # In older storages, a later batch shows that it is finished.
        is_finished = not self._settings.ahead and any(t.batch > number for t in stored)
        return batch if is_finished else None

    def _proposed(self, number: int) -> list[Trial]:
        """Returns a new batch, with the results that the storage has of it."""
        stage = "fine" if number == self._settings.iterations else "coarse"
        trials = self._planner.propose(self._seen_by(number), self._settings.size_of(number), stage)
        stored = {t.id: t for t in self._stored or [] if t.batch == number}
        unknown = set(stored) - {t.id for t in trials}
        if unknown:
            raise SearchError(
                f"batch {number} of the storage holds candidates that this program does not "
                f"propose ({', '.join(sorted(unknown))}); it was written by another version or on "
                "another machine: use an empty storage, and pass these trials as warm_start"
            )
        return [stored.get(t.id, t) for t in trials]

    def _seen_by(self, number: int) -> History:
        """Returns the history from which a batch is proposed, or was when it was stored.

        With ``ahead`` some trials are still running then; the storage records which.
        """
        if not self._settings.ahead:
            return History.of(self._batches)
        hidden = self._records.running_at(number, self._running)
        return History.of(
            [[t.unfinished() if t.number in hidden else t for t in b] for b in self._batches]
        )
