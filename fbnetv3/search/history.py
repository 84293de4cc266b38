"""The trials of a search so far, and the scores by which they are compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fbnetv3.errors import data_errors
from fbnetv3.search.acquisition.early_stopping import BETTER_HALF, EarlyStop, find_early_stop
from fbnetv3.search.direction import MAXIMIZE, gain
from fbnetv3.search.errors import SearchError
from fbnetv3.search.objectives import name_of
from fbnetv3.search.replicates import mean_scores, mean_scores_by_name
from fbnetv3.search.rungs import Ladder, Rung, is_further
from fbnetv3.search.schedule import Schedule
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.constraints import Columns, Costs
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import SCORE, Trial


@dataclass(frozen=True)
class History:
    """The batches that a search has proposed so far.

    Attributes:
        batches: Trials by batch, finished or not.
        finished: Number of leading batches in which every trial has a result.
    """

    batches: Sequence[Sequence[Trial]]
    finished: int

    @classmethod
    def of(cls, batches: Sequence[Sequence[Trial]]) -> History:
        """Returns the history of batches with all of their trials, some of which may still run."""
        unfinished = (
            i for i, batch in enumerate(batches) if any(t.state == "running" for t in batch)
        )
        return cls(batches, next(unfinished, len(batches)))

    @classmethod
    def stored(
        cls, trials: Sequence[Trial], schedule: Schedule, sizes: Mapping[int, int]
    ) -> History:
        """Returns the history of the finished trials that a storage holds.

        Args:
            trials: Finished trials, in the order of their numbers.
            schedule: Number of batches of the search, and the size that its settings give to each.
            sizes: Actual size of each proposed batch, by number of the batch. Storages of earlier
                versions lack these sizes. A batch then counts as finished if it has as many trials
                as the settings say, or if ``ahead`` is 0 and there is a later batch. (With
                ``ahead`` > 0, a batch is proposed while trials of the one before still run.)
        """
        recorded = [number for number in sizes if number < schedule.count]
        count = 1 + max([*(t.batch for t in trials), *recorded], default=-1)
        batches = [[t for t in trials if t.batch == number] for number in range(count)]
        # If ``ahead`` is 0, the next batch is proposed only once this one is finished, however
        # small it is.
        first = 0 if schedule.settings.ahead else max(0, count - 1)
        least = [sizes.get(i, schedule.size_of(i) if i >= first else 0) for i in range(count)]
        unfinished = (i for i in range(count) if len(batches[i]) < least[i])
        return cls(batches, next(unfinished, count))

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def trials(self) -> list[Trial]:
        """All trials, by batch."""
        return [trial for batch in self.batches for trial in batch]

    def head(self, count: int) -> History:
        """Returns the history of the first ``count`` batches."""
        return History(self.batches[:count], min(count, self.finished))


@dataclass(frozen=True)
class Known:
    """Trials and the scores by which they are compared.

    Attributes:
        trials: All trials, those of a warm start first.
        scores: Score of complete trials, by trial number: the score at the epoch of the early stop
            if there is one, else the final score. With rungs (numbers of epochs after which
            only some candidates train on), only replicates (trainings of finalists with another
            seed) and the last complete trial of each candidate have a score. The score of such a
            last trial is an estimate of the score at the end of a whole training.
        early_stop: The epoch after which trials stop, and the rank correlations behind it; None if
            there is no early stopping, if the first batch is unfinished, or if the reports of that
            batch do not suffice.
        direction: ``maximize`` or ``minimize``.
        ladder: The candidates on their rungs; None: every trial trains in one go.
    """

    trials: list[Trial]
    scores: dict[int, float]
    early_stop: EarlyStop | None
    direction: str = MAXIMIZE
    ladder: Ladder | None = None

    def epochs_of(self, stage: str, *, is_whole: bool) -> int | None:
        """Returns the number of epochs for which a new candidate trains; None: in full.

        Args:
            stage: ``coarse`` or ``fine``.
            is_whole: Whether the candidate trains in full in spite of rungs.
        """
        if self.ladder is not None:
            is_part = stage == "coarse" and not is_whole
            return self.ladder.rungs[self.ladder.first_rung if is_part else -1]
        return None if self.early_stop is None else self.early_stop.epoch

    @property
    def complete(self) -> list[Trial]:
        """Trials with a score, by number."""
        return sorted((t for t in self.trials if t.number in self.scores), key=lambda t: t.number)

    @property
    def ranked(self) -> list[Trial]:
        """Trials with a score, best first."""
        return sorted(
            self.complete, key=lambda t: (-gain(self.scores[t.number], self.direction), t.number)
        )

    @property
    def errors(self) -> dict[int, float] | None:
        """Standard deviation of the error of each score, by trial number; None if all are exact.

        With rungs, the score of a partly trained candidate is an estimate of its score after a
        whole training.
        """
        if self.ladder is None:
            return None
        return dict.fromkeys(self.scores, 0.0) | self.ladder.errors

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The state of each rung; () without rungs."""
        return () if self.ladder is None else self.ladder.summary()

    def with_running(self, trials: Sequence[Trial]) -> Known:
        """Returns a copy with additional trials, which have no result."""
        return replace(self, trials=[*self.trials, *trials])

    @property
    def running(self) -> list[Trial]:
        """Trials without a result."""
        return [t for t in self.trials if t.state == "running"]

    def finished(self) -> list[Trial]:
        """Returns copies of the trials with a result, with their ``score`` set.

        Without rungs, it is the score in :attr:`scores`. With rungs, it is the measured score of
        replicates and of trials of the highest rung that any candidate has finished; other trials
        have none. Trainings of one candidate with different seeds have the mean of their scores,
        and of each of their named scores.
        """
        scores = self.scores
        if self.ladder is not None:
            again = {t.number: scores[t.number] for t in self.complete if t.replicate}
            scores = self.ladder.finished_scores() | again
        by_name = mean_scores_by_name(t for t in self.trials if t.number in scores)
        scores = mean_scores(self.trials, scores)
        return [
            replace(t, score=scores.get(t.number), scores=by_name.get(t.number, t.scores))
            for t in self.trials
            if t.state != "running"
        ]


def check_stored(
    trials: Sequence[Trial],
    space: SearchSpace,
    schedule: Schedule,
    costs: Costs | None = None,
) -> list[Trial]:
    """Returns the finished trials of a storage, which may be untrusted, after checking them.

    Args:
        trials: Trials, in the order of their numbers.
        space: Space of the search.
        schedule: Batches of the search.
        costs: Function from candidates, as levels of their variables, to the statistics that the
            trials must have; None: their statistics are not checked.

    Raises:
        SearchError: Two trials have the same number; two trials train a candidate with the same
            seed, and the second one does not continue to a higher rung; or the config, id, batch,
            stage, number, epochs, seed, objectives or statistics of a trial do not fit this search.
    """
    try:
        with data_errors(SearchError, "a config"):
            levels = space.levels([t.config for t in trials])
            ids = space.ids(levels)
    except SearchError as error:
        raise SearchError(
            f"a trial in the storage was not written by this search: {error}; use another storage"
        ) from error
    if costs is not None:
        _check_statistics(trials, costs(levels))
    earlier = _Earlier()
    for trial, key in zip(trials, ids, strict=True):
        problem = earlier.problem(trial, key, schedule)
        if problem:
            raise SearchError(
                f"trial {trial.number} ({trial.id}) in the storage was not written by this search: "
                f"{problem}; use another storage"
            )
        earlier.add(trial)
    return list(trials)


class _Earlier:
    """The stored trials that come before the trial that is being checked."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._candidates: dict[str, list[int | None]] = {}
        self._sizes: Counter[int] = Counter()
        self._batch = 0

    def add(self, trial: Trial) -> None:
        """Adds a trial that has no problem."""
        self._numbers.add(trial.number)
        self._candidates.setdefault(trial.name, []).append(trial.max_epochs)
        self._sizes[trial.batch] += 1
        self._batch = trial.batch

    def problem(self, trial: Trial, key: str, schedule: Schedule) -> str:
        """Returns why a search with these batches cannot have written this trial next.

        Args:
            trial: The trial that follows those added so far in the order of the numbers.
            key: Id of the config of the trial.
            schedule: Batches of the search.

        Returns:
            The problem; "" if there is none.
        """
        size = schedule.limit_of(trial.batch)
        limit = schedule.limit_before(trial.batch) + size
        rungs, earlier = schedule.settings.rungs, self._candidates.get(trial.name, [])
        problems = {
            "its config has another id": trial.id != key,
            "its candidate is stored twice": bool(earlier)
            and not (rungs and is_further(trial, earlier)),
            "its number of epochs is none of the rungs": bool(rungs)
            and trial.max_epochs not in rungs,
            "only finalists train with other seeds, final_seeds in all": trial.replicate > 0
            and (trial.stage != "fine" or trial.replicate >= schedule.settings.final_seeds),
            "its number is stored twice": trial.number in self._numbers,
            "its batch does not exist": trial.batch >= schedule.count,
            "its batch precedes that of an earlier trial": trial.batch < self._batch,
            "its number is too large": trial.number >= limit,
            "its batch has too many trials": self._sizes[trial.batch] >= size,
            "its stage does not fit its batch": trial.stage != schedule.stage_of(trial.batch),
            "it has no value of an objective": _lacks(trial, schedule.settings),
        }
        return next((text for text, is_true in problems.items() if is_true), "")


def _lacks(trial: Trial, settings: SearchSettings) -> bool:
    """Returns whether a complete trial has no value of one of the objectives."""
    if trial.state != "complete":
        return False
    names = {name_of(text) for text in settings.objectives} - {SCORE}
    return not names <= {*trial.statistics, *trial.scores}


def _check_statistics(trials: Sequence[Trial], computed: Columns) -> None:
    """Checks that trials have the statistics of their configs.

    Args:
        trials: Trials.
        computed: Value of each statistic, (trials,), by name.

    Raises:
        SearchError: A statistic is missing, unknown, or has another value.
    """
    for row, trial in enumerate(trials):
        expected = {name: float(values[row]) for name, values in computed.items()}
        wrong = [
            f"{name}={trial.statistics.get(name)} instead of {expected.get(name)}"
            for name in sorted({*expected, *trial.statistics})
            if name not in expected
            or not math.isclose(trial.statistics.get(name, math.nan), expected[name], rel_tol=1e-6)
        ]
        if wrong:
            raise SearchError(
                f"trial {trial.number} ({trial.id}) in the storage was not written by this search: "
                f"it has {wrong[0]}; use another storage"
            )


def score_trials(
    history: History,
    warm_start: Sequence[Trial],
    threshold: float | None,
    over: str = BETTER_HALF,
    direction: str = MAXIMIZE,
    rungs: tuple[int, ...] = (),
    parts: int = 1,
) -> Known:
    """Returns the trials so far with the scores by which they are compared.

    Args:
        history: Batches of the search.
        warm_start: Complete trials of an earlier search.
        threshold: Smallest rank correlation with the final ranking at which trials stop early;
            None: no early stopping.
        over: Candidates of the first batch that are ranked; see :func:`find_early_stop`.
        direction: ``maximize`` or ``minimize``.
        rungs: Numbers of epochs after which candidates are compared; (): no rungs. With rungs,
            there is no early stopping.
        parts: Number of entries of ``history.batches`` that form the first batch, which may be
            proposed in several parts.
    """
    if rungs:
        trials = [*warm_start, *history.trials]
        ladder = Ladder(rungs, [t for t in trials if not t.replicate], direction)
        scores = ladder.scores
        for trial in trials:
            if trial.replicate and trial.final_score is not None:
                scores[trial.number] = trial.final_score
        return Known(trials, scores, None, direction, ladder)
    stop = None
    if threshold is not None and history.finished >= parts:
        first = history.head(parts).trials
        reports = [t.reports for t in first if t.state == "complete"]
        stop = find_early_stop(reports, threshold, over, direction)
    trials = [*warm_start, *history.trials]
    epoch = None if stop is None else stop.epoch
    scores = {t.number: _score_at(t, epoch) for t in trials if t.state == "complete"}
    return Known(trials, {k: s for k, s in scores.items() if math.isfinite(s)}, stop, direction)


def _score_at(trial: Trial, epoch: int | None) -> float:
    """Returns a trial's score at an epoch; its final score if the epoch has no finite score."""
    final = math.nan if trial.final_score is None else trial.final_score
    early = final if epoch is None else trial.reports.get(epoch, final)
    return early if math.isfinite(early) else final
