"""The batches of a search: proposed by its planner, or replayed from its storage."""

from __future__ import annotations

from collections.abc import Sequence

from fbnetv3.search.enqueued import Enqueued, enqueued_candidate
from fbnetv3.search.errors import SearchError
from fbnetv3.search.history import History, check_stored
from fbnetv3.search.planner import Planner
from fbnetv3.search.predictors.report_card import ReportCard
from fbnetv3.search.records import Records, Retries
from fbnetv3.search.schedule import Schedule
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.storage.store import TrialStore
from fbnetv3.search.trial import Trial


class Batches:
    """The batches that a search has proposed, and their running trials.

    Batches that an earlier process has finished are not proposed again, but read from the storage.

    Args:
        space: Space of the search.
        settings: Settings of the search.
        planner: Planner of the search.
        store: Storage of the search.
        checked_costs: Statistics that the stored trials must have; None: the statistics of stored
            trials are not checked.

    Attributes:
        all: Trials by batch, finished or not.
        running: Trials without a result, by number.
        records: Sizes of batches, failed trials that run again, report cards and enqueued
            candidates in the storage; see ``records.py``.
        schedule: Number, stages and sizes of the batches, as of the last :meth:`load`.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: SearchSettings,
        planner: Planner,
        store: TrialStore,
        checked_costs: Costs | None,
    ) -> None:
        self._space, self._settings, self._planner = space, settings, planner
        self._store, self._checked_costs = store, checked_costs
        self.records = Records(store)
        self.schedule = Schedule(settings)
        self.all: list[list[Trial]] = []
        self.running: dict[int, Trial] = {}
        self._stored: list[Trial] | None = None

    def advance(self) -> list[Trial]:
        """Proposes batches until enough trials are running; returns the running ones.

        Raises:
            SearchError: Another process coordinates the study (the message names it), or the
                storage holds trials that this search does not propose.
        """
        self._store.acquire()
        if not self.all:
            self._stored = self.load()  # another process may have added trials
        while self._is_due() and self._propose():
            pass
        return list(self.running.values())

    def waiting(self, trial: Trial) -> Trial:
        """Returns the search's own trial of which ``trial`` is a copy.

        Raises:
            SearchError: The trial is not waiting for a result.
        """
        original = self.running.get(trial.number)
        if original is None or original.id != trial.id:
            raise SearchError(
                f"trial {trial.name} is not waiting for a result: ask() did not return it, or it "
                "has one already"
            )
        return original

    def finish(self, trial: Trial, score: object, reason: str | None) -> None:
        """Stores a trial with its final result and removes it from the running ones."""
        trial.on_report = None
        trial.finish(score, reason)
        self._store.add(trial)
        del self.running[trial.number]

    def reopen(self, numbers: set[int]) -> list[Trial]:
        """Puts failed trials back, so that they run again; they keep the reason of their failure.

        Batches that were proposed after these failures and have results of other trials stay as
        they are: for them, the trials still count as failed.

        Args:
            numbers: Numbers of the trials.

        Returns:
            Copies of the trials, with their failures.

        Raises:
            SearchError: One of the trials has not failed, or another process coordinates the study.
        """
        self._store.acquire()
        stored = {trial.number: trial for trial in self.load()}
        for number in sorted(numbers):
            if number not in stored or stored[number].state != "failed":
                raise SearchError(f"trial {number} has not failed, so it cannot be put back")
        kept = [trial.batch for number, trial in stored.items() if number not in numbers]
        failed = [stored[number] for number in sorted(numbers)]
        self.records.add_retries(failed, max(kept, default=-1) + 1)
        self.all, self.running, self._stored = [], {}, None
        return [trial.copy() for trial in failed]

    def forget(self) -> None:
        """Drops the trials that were read from the storage, since the storage has changed."""
        self._stored = None

    def history(self) -> History:
        """Returns the batches of this process or, before its first one, those in the storage."""
        if self.all:
            return History.of(self.all)
        if self._stored is None:
            self._stored = self.load()
        return History.stored(self._stored, self.schedule, self.records.sizes)

    def first_before(self, due: Sequence[Trial]) -> list[Trial]:
        """Returns the trials of the first batch, which may consist of several parts.

        The parts are trained one after the other, and are batches of the schedule.

        Args:
            due: Trials that are about to start.

        Returns:
            The trials; [] if some of them still run, or if no trial in ``due`` belongs to a later
            batch of stage 1.
        """
        parts = len(self.schedule.first_parts)
        is_later = any(t.batch >= parts and t.stage == "coarse" for t in due)
        history = History.of(self.all)
        return history.head(parts).trials if is_later and history.finished >= parts else []

    def cards(self, history: History) -> dict[int, ReportCard]:
        """Returns the report cards of the predictors, by the number of finished batches."""
        return self._planner.models.cards(history, self.records.cards())

    def load(self) -> list[Trial]:
        """Returns the checked trials of the storage, without failures of trials that run again."""
        stored = self._store.load()
        self.schedule = Schedule.of(self._settings, stored, sizes=self.records.sizes)
        trials = self.records.retries.current(stored)
        return check_stored(trials, self._space, self.schedule, self._checked_costs)

    def enqueue(self, candidate: Enqueued, *, skip_if_exists: bool = False) -> bool:
        """Stores a candidate for the next batch that is proposed, by this process or another one.

        Args:
            candidate: Candidate of the space that meets the constraints.
            skip_if_exists: Whether nothing happens if the candidate is a trial or enqueued already.

        Returns:
            Whether the candidate was stored.

        Raises:
            SearchError: No batch will follow; or the candidate is a trial or enqueued already, and
                ``skip_if_exists`` is False.
        """
        problem = self._why_known(candidate.id)
        if problem and skip_if_exists:
            return False
        proposed = max(len(self.all), 1 + max(self.records.sizes, default=-1))
        if not problem and proposed >= self.schedule.count:
            problem = "the last batch has been proposed; raise iterations (SEARCH.ITERATIONS)"
        if problem:
            raise SearchError(f"enqueue: candidate {candidate.id}: {problem}")
        self._store.start()
        self.records.enqueue(candidate)
        return True

    def _why_known(self, key: str) -> str:
        """Returns why the candidate with an id cannot be enqueued; "" if the id is a new one."""
        trials = [*self._planner.warm_start, *self.load(), *self.running.values()]
        for trial in trials:
            if trial.id != key:
                continue
            if trial.batch < 0:
                return f"its score, {trial.score:.6g}, is in the warm start"
            number = f"it is trial {trial.number}"
            if trial.state == "complete":
                return f"{number}, which has the score {trial.score:.6g}"
            return f"{number}, which {'is running' if trial.state == 'running' else 'has failed'}"
        return "it is enqueued already" if key in {c.id for c in self.records.enqueued} else ""

    def _is_due(self) -> bool:
        """Returns whether few enough trials are running to propose the next batch."""
        is_coarse = self.schedule.stage_of(len(self.all)) == "coarse"
        return len(self.running) <= (self._settings.ahead if is_coarse else 0)

    def _propose(self) -> bool:
        """Adds the next batch; returns False if the search is done."""
        number = len(self.all)
        if number and not self.running:
            history = History.of(self.all)
            self.records.save(self._planner.known(history).early_stop, self.cards(history))
        if number >= self.schedule.count:
            return False
        trials = self._replayed(number)
        if trials is None:
            trials = self._proposed(number)
        self.records.set_size(number, len(trials))  # before any of its trials is stored
        self.all.append(trials)
        # the batch is empty if the space is exhausted: then stage 2 has no new candidates either
        self.running |= {t.number: t for t in trials if t.state == "running"}
        return True

    def _replayed(self, number: int) -> list[Trial] | None:
        """Returns a batch from the storage if it is finished; None if it is not.

        An empty batch without a later one is not finished: no candidate may have had a score when
        it was proposed, or it may have been a batch of the other stage.
        """
        stored = self._stored or []
        batch, size = [t for t in stored if t.batch == number], self.records.sizes.get(number)
        has_later = any(t.batch > number for t in stored)
        if size is not None:
            return batch if len(batch) == size and (size or has_later) else None
        # Older storages have no sizes: there, a batch is finished if a later one has trials.
        return batch if has_later and not self._settings.ahead else None

    def _proposed(self, number: int) -> list[Trial]:
        """Proposes a batch, and returns it with the results that the storage already has."""
        stored = {t.name: t for t in self._stored or [] if t.batch == number}
        history, size = self._seen_by(number), self.schedule.size_of(number)
        stage, enqueued = self.schedule.stage_of(number), self._taken(number, size)
        trials = self._planner.propose(history, size, stage, enqueued)
        unknown = set(stored) - {t.name for t in trials}
        if unknown:  # perhaps from an earlier version, which did not predict failures
            trials = self._planner.propose(history, size, stage, enqueued, avoid_failures=False)
            unknown = set(stored) - {t.name for t in trials}
        if unknown:
            raise SearchError(
                f"batch {number} of the storage holds candidates that this program does not "
                f"propose ({', '.join(sorted(unknown))}); it was written by another version or on "
                "another machine: use an empty storage, and pass these trials as warm_start"
            )
        retries = self.records.retries
        reasons = {trial.id: trial.enqueued for trial in enqueued}
        for trial in trials:
            trial.enqueued = reasons.get(trial.id)
            trial.earlier_reasons = retries.reasons(trial.number)
        return [stored.get(t.name, t) for t in trials]

    def _taken(self, number: int, size: int) -> list[Trial]:
        """Returns trials of the enqueued candidates that a batch takes, at most ``size``.

        Raises:
            SearchError: The storage has an enqueued candidate that is not one of this search.
        """
        waiting = {candidate.id: candidate for candidate in self.records.enqueued}
        if not waiting:
            return []
        # There may be more than ``size`` ids: if the search is continued with fewer iterations, a
        # batch of finalists may have the number of a larger batch of stage 1 that took them.
        ids = self.records.enqueued_at(number)[:size]
        if not ids and not self.records.sizes.get(number):  # not proposed, or without candidates
            known = [*self._planner.warm_start, *(t for batch in self.all for t in batch)]
            ids = [key for key in waiting if key not in {trial.id for trial in known}][:size]
            if ids:
                # Stored before the batch, so that a later process proposes the same batch.
                self.records.set_enqueued_at(number, ids)
        first, taken = sum(map(len, self.all)), []
        for i, key in enumerate(ids):
            candidate = waiting.get(key)
            if candidate is None:
                raise SearchError(
                    f"the storage lacks the enqueued candidate {key}; use another storage"
                )
            where = "an enqueued candidate of the storage"
            checked = enqueued_candidate(
                self._planner.feasible, candidate.config, candidate.reason, where
            )
            taken.append(checked.trial(first + i, number))
        return taken

    def _seen_by(self, number: int) -> History:
        """Returns the history from which a batch is proposed, or was proposed by another process.

        With ``ahead``, some trials were still running at that time; the storage records which.
        Trials that had failed then count as failed, even if they were put back to run again since.
        """
        hidden: set[int] = set()
        if self._settings.ahead:
            is_empty = self.records.sizes.get(number) == 0  # no trial followed from the record
            hidden = self.records.running_at(number, self.running, renew=is_empty)
        retries = self.records.retries
        return History.of(
            [[_seen(trial, number, hidden, retries) for trial in batch] for batch in self.all]
        )


def _seen(trial: Trial, batch: int, hidden: set[int], retries: Retries) -> Trial:
    """Returns a trial as it was when a batch was proposed."""
    if trial.number in hidden:
        return trial.unfinished()
    reason = retries.reason_at(trial.number, batch)
    return trial if reason is None else trial.failed(reason)
