"""JointNAS: the two-stage search (paper, Algorithm 1), decided here and run elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from fbnetv3.search.acquisition.fine import EvolutionSettings
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Evaluate, Executor, InProcess
from fbnetv3.search.planner import Plan, Planner
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.result import Candidate, SearchResult
from fbnetv3.search.space.constraints import Constraint, Costs, StatisticsFn
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.storage.batch_log import RUNNING_AT, LoggedSearch, repeatable
from fbnetv3.search.storage.store import open_store
from fbnetv3.search.storage.warm_start import WarmStart, read_warm_start
from fbnetv3.search.trial import STUDY, Event, Trial, differences, trial_to_json

Callback = Callable[["JointNAS", Event], None]
"""Function that a search calls at each event; it may read the search, as progress displays do."""


class JointNAS:
    """Searches a space for the best score under constraints.

    Stage 1 trains batches that a predictor chooses; stage 2 evolves candidates by the predictor
    alone, and the best of them are trained before a winner is named. What is proposed depends on
    the seed and on the scores of earlier batches only: not on the executor, the number of
    workers, or the order of results within a batch.

    Args:
        space: of the candidates.
        statistics: configs -> {name: array}, free to compute; see Costs. None: no statistics.
        constraints: bounds of statistics.
        budgets: bounds for which a winner each is wanted, beside the constraints: the batches that
            the default predictor chooses and the finalists are divided among them evenly.
        pool_size: candidates in the quasi Monte-Carlo pool (n).
        batch_size: trained at a time (m).
        iterations: batches of stage 1 (T).
        predictor: ``default``, ``paper`` for the paper's, or ``random``: the baseline.
        early_stop_threshold: of the rank correlation; None: train all in full.
        finalists: candidates of stage 2 that are trained; 0: none.
        ahead: trials that may still run when the next batch of stage 1 is proposed. 0: none, and
            the search follows from the seed alone. More keep many workers busy beside stragglers;
            then it also follows from which trials those were, which the storage keeps.
        evolution: settings of stage 2.
        pretrain: whether the encoder learns the statistics first.
        warm_start: trials of an earlier search, (config, score) pairs or a csv.
        executor: runs evaluations; None: in this process.
        storage: an Optuna URL, from which an interrupted search goes on; None: in memory.
        study: name of the search in the storage.
        seed: of everything random.

    Raises:
        InfeasibleError: (nearly) nothing meets the constraints.
        SearchError: an argument is out of range, or the storage holds another search.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        statistics: StatisticsFn | None = None,
        constraints: Sequence[Constraint] = (),
        budgets: Sequence[Constraint] = (),
        pool_size: int = 20_000,
        batch_size: int = 48,
        iterations: int = 4,
        predictor: str = "default",
        early_stop_threshold: float | None = 0.92,
        finalists: int = 8,
        ahead: int = 0,
        evolution: EvolutionSettings | None = None,
        pretrain: bool = True,
        warm_start: WarmStart | None = None,
        executor: Executor | None = None,
        storage: str | None = None,
        study: str = STUDY,
        seed: int = 0,
    ) -> None:
        _check_counts(pool_size, batch_size, iterations, finalists, ahead)
        self.space, self._ahead = space, ahead
        self._batch_size, self._iterations, self._finalists = batch_size, iterations, finalists
        self._executor: Executor = executor or InProcess()
        warm = [] if warm_start is None else read_warm_start(space, warm_start)
        self._planner = Planner(
            space,
            Costs(space, statistics),
            tuple(constraints),
            tuple(budgets),
            fit=fit_function(predictor),
            pool_size=pool_size,
            batch_size=batch_size,
            threshold=early_stop_threshold,
            evolution=evolution or EvolutionSettings(),
            pretrain=pretrain,
            warm=warm,
            seed=seed,
        )
        self._store = open_store(storage, space, study)
        self._settings: dict[str, Any] = {
            "space": space.describe(),
            "constraints": [str(c) for c in constraints],
            **({"budgets": [str(c) for c in budgets]} if budgets else {}),
            "pool_size": pool_size,
            "batch_size": batch_size,
            "iterations": iterations,
            "predictor": predictor,
            "early_stop_threshold": early_stop_threshold,
            "finalists": finalists,
            **({"ahead": ahead} if ahead else {}),
            "evolution": vars(evolution or EvolutionSettings()),
            "pretrain": pretrain,
            "warm_start": [[t.id, t.score] for t in warm],
            "seed": seed,
        }
        self._store.check_settings(self._settings)
        self._batches: list[list[Trial]] = []
        self._running: dict[int, Trial] = {}
        self._stored: list[Trial] | None = None

    @property
    def plan(self) -> Plan:
        """What is known before anything trains: pool, reach of the constraints, pre-training."""
        return self._planner.plan

    @property
    def trials(self) -> list[Trial]:
        """All proposed trials, by number."""
        return [trial for batch in self._batches for trial in batch]

    @property
    def settings(self) -> dict[str, Any]:
        """What the proposals follow from, beside the statistics and scores; plain values."""
        found: dict[str, Any] = json.loads(json.dumps(self._settings))
        return found

    @property
    def order(self) -> dict[str, Any]:
        """What they follow from with ``ahead``: the trials that ran when a batch was proposed."""
        return {k: v for k, v in self._store.attrs().items() if k.startswith(RUNNING_AT)}

    def restore(self, logged: LoggedSearch) -> None:
        """Takes over finished trials of this search from a log, before the first ask.

        Args:
            logged: of a search with the same settings; with ``ahead``, what of it is
                :func:`~.batch_log.repeatable`. Trials that the storage has stay.

        Raises:
            SearchError: the log is of another search, or contradicts the storage.
        """
        different = differences(logged.settings, self.settings)
        if different:
            raise SearchError(f"the log is of a search with other settings: {different}")
        for trial in logged.trials:
            if self.space.ids(self.space.levels([trial.config])) != [trial.id]:
                raise SearchError(f"the log's trial {trial.id} has a config of another id")
        self._store.acquire()
        known = {t.number: trial_to_json(t) for t in self._store.load()}
        for trial in logged.trials:
            told = trial_to_json(trial)
            if known.get(trial.number, told) != told:
                raise SearchError(
                    f"the storage has another trial {trial.number} than the log; restore into an "
                    "empty one"
                )
        wanted = repeatable(logged, self._batch_size) if self._ahead else logged
        for name, value in wanted.order.items():
            self._store.set_attr(name, value)
        for trial in wanted.trials:
            if trial.number not in known:
                self._store.add(trial)
        self._stored = None

    def ask(self) -> list[Trial]:
        """Returns the trials that have no result yet; [] when the search is done.

        They belong to one batch, or to several with ``ahead``. From the first call on this process
        coordinates the study, until it ends or calls :meth:`close`.

        Raises:
            SearchError: Another process coordinates the study; the message names it.
        """
        self._store.acquire()
        if not self._batches:
            self._stored = self._store.load()  # another process may have added trials
        while self._is_due() and self._propose():
            pass
        return list(self._running.values())

    def _is_due(self) -> bool:
        """Tells whether few enough trials run to propose further ones."""
        is_coarse = len(self._batches) < self._iterations
        return len(self._running) <= (self._ahead if is_coarse else 0)

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
                raise SearchError(f"trial {trial.id} is not waiting for a result")
        for trial, score, reason in zip(trials, scores, reasons, strict=True):
            trial.finish(score, reason)
            self._store.add(trial)
            del self._running[trial.number]

    def run(self, evaluate: Evaluate, callbacks: Sequence[Callback] = ()) -> SearchResult:
        """Asks for trials, has them evaluated and tells their results until the search is done.

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
        """Returns what has been found so far, by earlier processes on the storage too."""
        batches = self._past()
        known, model = self._planner.known(batches), self._planner.model(batches)
        return SearchResult(
            trials=[t for t in known.trials if t.state != "running"],
            predictor=None if model is None else model.predictor,
            early_stop=known.early_stop,
            cards=self._planner.cards(batches),
            proxy_correlation=dict(self._planner.plan.pretrained.correlation),
        )

    def evolve(
        self, constraints: Sequence[Constraint] | None = None, top_k: int | None = None
    ) -> list[Candidate]:
        """Runs stage 2 for a budget, without training.

        Args:
            constraints: of this budget; None: the search's own.
            top_k: candidates to return, best predicted first; None: the settings' ``top``.

        Raises:
            SearchError: no scores to predict from yet.
            InfeasibleError: (nearly) nothing meets the constraints.
        """
        found = self._planner.evolve(self._past(), constraints, top_k)
        levels = found.pool.levels
        return [
            Candidate(key, config, float(score), _row(found.pool.statistics, i))
            for i, (key, config, score) in enumerate(
                zip(self.space.ids(levels), self.space.configs(levels), found.scores, strict=True)
            )
        ]

    def _past(self) -> list[list[Trial]]:
        """Returns the batches so far: before the first ask, those of the storage."""
        if self._batches:
            return self._batches
        if self._stored is None:
            self._stored = self._store.load()
        if not self._stored:
            return []
        last = max(t.batch for t in self._stored)
        found = [[t for t in self._stored if t.batch == number] for number in range(last + 1)]
        for number, batch in enumerate(found):
            wanted = self._finalists if number == self._iterations else self._batch_size
            if len(batch) < wanted and (self._ahead or number == last):
                batch.append(Trial("", -1, number, {}))  # others of it have no result yet
        return found

    def _note(self) -> None:
        """Keeps the conclusions so far where other programs see them."""
        stop = self._planner.known(self._batches).early_stop
        if stop is not None:
            self._store.set_attr("early_stop", vars(stop))
        hidden = ("batch", "held_out")
        cards = [vars(card) for card in self._planner.cards(self._batches)]
        self._store.set_attr(
            "report_cards", [{k: v for k, v in c.items() if k not in hidden} for c in cards]
        )

    def _propose(self) -> bool:
        """Adds the next batch; False where the search is done."""
        number = len(self._batches)
        if number and not self._running:
            self._note()
        if number >= self._iterations + (self._finalists > 0):
            return False
        trials = self._replayed(number)
        if trials is None:
            trials = self._proposed(number)
        self._batches.append(trials)
        # an exhausted space gives an empty batch: stage 1 is over, stage 2 has nothing new
        self._running |= {t.number: t for t in trials if t.state == "running"}
        return True

    def _replayed(self, number: int) -> list[Trial] | None:
        """Returns a batch from storage, if a later one shows that it was complete."""
        stored = self._stored or []
        if self._ahead or not any(t.batch > number for t in stored):
            return None
        return [t for t in stored if t.batch == number]

    def _proposed(self, number: int) -> list[Trial]:
        is_fine = number == self._iterations
        count = self._finalists if is_fine else self._batch_size
        past = self._seen_by(number)
        trials = self._planner.propose(past, count, "fine" if is_fine else "coarse")
        stored = {t.id: t for t in self._stored or [] if t.batch == number}
        strange = set(stored) - {t.id for t in trials}
        if strange:
            raise SearchError(
                f"the storage's batch {number} holds candidates ({', '.join(sorted(strange))}) "
                "other than this program proposes: another version or machine wrote it; use "
                "warm_start with its trials in a new storage"
            )
        return [stored.get(t.id, t) for t in trials]

    def _seen_by(self, number: int) -> list[list[Trial]]:
        """Returns the past as a batch was, or is now, proposed from: some of it may still run."""
        if not self._ahead:
            return self._batches
        name = f"{RUNNING_AT}{number}"
        running = self._store.attrs().get(name)
        if running is None:
            running = sorted(self._running)
            self._store.set_attr(name, running)  # before the batch, which can be repeated from it
        hidden = set(running)
        return [
            [t.unfinished() if t.number in hidden else t for t in batch] for batch in self._batches
        ]


def _row(statistics: dict[str, Any], i: int) -> dict[str, float]:
    return {name: float(values[i]) for name, values in statistics.items()}


def _check_counts(
    pool_size: int, batch_size: int, iterations: int, finalists: int, ahead: int
) -> None:
    if batch_size < 1 or iterations < 1 or finalists < 0 or ahead < 0:
        raise SearchError(
            f"batch_size={batch_size} and iterations={iterations} must be at least 1, "
            f"finalists={finalists} and ahead={ahead} at least 0"
        )
    if batch_size > pool_size:
        raise SearchError(
            f"batch_size={batch_size} is larger than the pool (pool_size={pool_size})"
        )
