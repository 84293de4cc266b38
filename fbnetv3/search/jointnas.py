"""The two-stage search over architectures and training recipes (paper, Algorithm 1)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Evaluate, Executor, InProcess
from fbnetv3.search.history import History, check_stored
from fbnetv3.search.planner import Plan, Planner
from fbnetv3.search.result import Candidate, SearchResult
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.constraints import Constraint, Costs, StatisticsFn
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.storage.batch_log import RUNNING_AT, LoggedSearch, repeatable
from fbnetv3.search.storage.store import open_store
from fbnetv3.search.storage.warm_start import WarmStart, read_warm_start
from fbnetv3.search.trial import STUDY, Event, Trial, differences, trial_to_json

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
            and for pre-training the predictor; see :class:`Costs`. None: no statistics.
        warm_start: Results of an earlier search: trials, (config, score) pairs, or the path of a
            csv with a column for each variable and one named ``score``. None: start without.
        executor: Executor of the evaluations; None: they run in this process.
        storage: Optuna URL of the database from which an interrupted search continues; None: the
            trials are kept in memory.
        study: Name of the search in the storage, which may hold many.
        read_only: Whether to read the storage once, for :meth:`result` and :meth:`evolve`, and to
            write nothing to it; a SQLite file, which may be untrusted, is copied first, and the
            statistics of its trials are computed again and compared.
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
        storage: str | None = None,
        study: str = STUDY,
        read_only: bool = False,
        **changes: Any,
    ) -> None:
        settings = replace(settings or SearchSettings(), **changes)
        warm_trials = [] if warm_start is None else read_warm_start(space, warm_start)
        costs = Costs(space, statistics)
        feasible = FeasibleSpace(costs, settings.constraints)
        self.space, self._settings = space, settings
        self._planner = Planner(feasible, settings, warm_trials)
        self._executor: Executor = executor or InProcess()
        self._description = settings.describe(space, warm_trials)
        self._store = open_store(storage, space, study, read_only)
        self._store.check_settings(self._description)
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
        """All trials that were proposed or replayed, by number; empty before the first ask."""
        return [trial for batch in self._batches for trial in batch]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as plain values, as the storage keeps them.

        The proposals depend on these, on the statistics and on the scores alone.
        """
        plain: dict[str, Any] = json.loads(json.dumps(self._description))
        return plain

    @property
    def order(self) -> dict[str, Any]:
        """The numbers of the trials that were running when each batch was proposed ahead."""
        return {k: v for k, v in self._store.attrs().items() if k.startswith(RUNNING_AT)}

    def restore(self, logged: LoggedSearch) -> None:
        """Copies the finished trials of a log into the storage, before the first ask.

        Args:
            logged: Log of a search with the same settings. With ``ahead``, only the part that is
                :func:`~.batch_log.repeatable` is copied. Trials that the storage has are kept.

        Raises:
            SearchError: The log is that of another search, or contradicts the storage.
        """
        self._check_log(logged)
        self._store.acquire()
        stored = {t.number: trial_to_json(t) for t in self._load()}
        for trial in logged.trials:
            if stored.get(trial.number, trial_to_json(trial)) != trial_to_json(trial):
                raise SearchError(
                    f"trial {trial.number} of the storage differs from that in the log; restore "
                    "the log into an empty storage"
                )
        part = repeatable(logged, self._settings.batch_size) if self._settings.ahead else logged
        for name, value in part.order.items():
            self._store.set_attr(name, value)
        for trial in part.trials:
            if trial.number not in stored:
                self._store.add(trial)
        self._stored = None

    def _check_log(self, logged: LoggedSearch) -> None:
        """Checks that a log belongs to a search with the same settings and candidates."""
        different = differences(logged.settings, self.settings)
        if different:
            raise SearchError(
                f"the log belongs to a search with other settings: {different}; use "
                "those of the log"
            )
        for trial in logged.trials:
            if self.space.ids(self.space.levels([trial.config])) != [trial.id]:
                raise SearchError(
                    f"the config of trial {trial.id} in the log does not match its id: the log is "
                    "damaged or was edited; use an unmodified copy"
                )

    def ask(self) -> list[Trial]:
        """Returns the trials that have no result yet; [] when the search is done.

        They belong to one batch, or to several with ``ahead``. From the first call on this process
        coordinates the study, until it ends or calls :meth:`close`.

        Raises:
            SearchError: Another process coordinates the study; the message names it.
        """
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
            trials: Trials that :meth:`ask` returned.
            scores: One score per trial; None, NaN or infinity if it failed.
            reasons: One reason of failure per trial, None where there is a score.

        Raises:
            SearchError: The lengths differ, or a trial is not waiting for a result.
        """
        reasons = [None] * len(trials) if reasons is None else reasons
        if not len(trials) == len(scores) == len(reasons):
            raise SearchError(
                f"tell takes lists of equal length, not {len(trials)} trials, {len(scores)} scores "
                f"and {len(reasons)} reasons"
            )
        for trial in trials:
            if self._running.get(trial.number) is not trial:
                raise SearchError(
                    f"trial {trial.id} is not waiting for a result: ask() did not return it, or it "
                    "has one already"
                )
        for trial, score, reason in zip(trials, scores, reasons, strict=True):
            trial.finish(score, reason)
            self._store.add(trial)
            del self._running[trial.number]

    def run(self, evaluate: Evaluate, callbacks: Sequence[Callback] = ()) -> SearchResult:
        """Runs the search to its end: asks for trials, evaluates them and stores their results.

        Args:
            evaluate: Function trial -> score; higher is better. It may call
                ``trial.report(epoch, score)``, and should train for ``trial.max_epochs`` epochs
                if that is not None.
            callbacks: Functions that are called as ``callback(search, event)`` in this process
                when a trial is submitted, reports a score or has finished.
        """
        submitted: set[int] = set()

        def notify(kind: str, trial: Trial) -> None:
            for callback in callbacks:
                callback(self, Event(kind, trial))

        def submit(trial: Trial) -> None:
            submitted.add(trial.number)
            trial.on_report = lambda epoch, score: notify("report", trial)
            notify("start", trial)
            self._executor.submit(trial)

        try:
            while trials := self.ask():
                if not submitted:  # a search that is done already starts no workers
                    self._executor.start(evaluate)
                for trial in trials:
                    if trial.number not in submitted:
                        submit(trial)
                for finished in self._executor.wait():
                    self.tell([finished.trial], [finished.score], [finished.reason])
                    notify("finish", finished.trial)
        finally:
            self._executor.close()
            self.close()
        return self.result()

    def close(self) -> None:
        """Lets another process coordinate the study, until the next :meth:`ask`."""
        self._store.release()

    def result(self) -> SearchResult:
        """Returns the results so far, those of earlier processes on the storage included.

        The result is a snapshot: it stays as it is while the search goes on.
        """
        history = self._history()
        known, model = self._planner.known(history), self._planner.model(history)
        return SearchResult(
            trials=known.finished(),
            predictor=None if model is None else model.predictor,
            early_stop=known.early_stop,
            cards=self._planner.cards(history),
            proxy_correlation=dict(self._planner.plan.pretrained.correlation),
        )

    def evolve(
        self, constraints: Sequence[Constraint] | None = None, top_k: int | None = None
    ) -> list[Candidate]:
        """Runs stage 2 for other constraints, without training.

        Args:
            constraints: Bounds on the candidates; None: those of the search.
            top_k: Number of candidates to return; None: ``evolution.top`` of the settings.

        Returns:
            Candidates, best predicted score first.

        Raises:
            SearchError: There are too few scores to predict from.
            InfeasibleError: Too few candidates meet the constraints.
        """
        evolved = self._planner.evolve(self._history(), constraints, top_k)
        levels = evolved.pool.levels
        ids, configs = self.space.ids(levels), self.space.configs(levels)
        return [
            Candidate(ids[i], configs[i], float(evolved.scores[i]), evolved.pool.row(i))
            for i in range(len(levels))
        ]

    def _history(self) -> History:
        """Returns the batches so far; before the first ask, those of the storage."""
        if self._batches:
            return History.of(self._batches)
        if self._stored is None:
            self._stored = self._load()
        return History.stored(self._stored, self._settings)

    def _load(self) -> list[Trial]:
        trials = self._store.load()
        return check_stored(trials, self.space, self._settings, self._checked_costs)

    def _save_conclusions(self) -> None:
        """Stores the early stop and the report cards, for other programs to read."""
        history = History.of(self._batches)
        stop = self._planner.known(history).early_stop
        if stop is not None:
            self._store.set_attr("early_stop", vars(stop))
        cards = [card.summary() for card in self._planner.cards(history)]
        self._store.set_attr("report_cards", cards)

    def _propose(self) -> bool:
        """Adds the next batch; returns False where the search is done."""
        number = len(self._batches)
        if number and not self._running:
            self._save_conclusions()
        if number >= self._settings.batch_count():
            return False
        trials = self._replayed(number)
        if trials is None:
            trials = self._proposed(number)
        self._batches.append(trials)
        # the batch is empty where the space is exhausted: stage 2 then has nothing new either
        self._running |= {t.number: t for t in trials if t.state == "running"}
        return True

    def _replayed(self, number: int) -> list[Trial] | None:
        """Returns a batch from the storage, where a later batch shows that it was finished."""
        stored = self._stored or []
        if self._settings.ahead or not any(t.batch > number for t in stored):
            return None
        return [t for t in stored if t.batch == number]

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
        name = f"{RUNNING_AT}{number}"
        running = self._store.attrs().get(name)
        if running is not None and not _are_numbers(running):
            raise SearchError(
                f"the storage has {name}={str(running)[:60]}, which is no list of trials; use "
                "another storage"
            )
        if running is None:
            running = sorted(self._running)
            self._store.set_attr(name, running)  # before the batch, which can be repeated from it
        hidden = set(running)
        return History.of(
            [[t.unfinished() if t.number in hidden else t for t in b] for b in self._batches]
        )


def _are_numbers(value: Any) -> bool:
    """Returns whether an attribute of a study is a list of the numbers of trials."""
    return isinstance(value, list) and all(type(number) is int for number in value)
