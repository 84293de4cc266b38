"""Rungs: most candidates train for a part of the epochs first, and only the best of them go on.

A rung is a number of epochs after which candidates are compared. The training of a candidate from
one rung to the next is a trial of its own, with the candidate's id; its ``max_epochs`` is the rung
up to which it trains. A finished trial does not change when its candidate goes on.

A batch of stage 1 has new candidates, most of which train up to the first rung, and candidates of
earlier batches that go on from their own checkpoints to the next rung. With rungs after
e_1 < e_2 < ... epochs, the share of candidates that go on from rung r is at most e_r / e_{r+1}, as
in successive halving (Jamieson and Talwalkar, 2016), so that the trainings up to each rung take
about the same number of epochs in total. Which candidates go on is decided when a batch is
proposed, from all results so far, not when a worker becomes free. A candidate that did not go on
with one batch may go on with a later one, as in ASHA (Li et al., 2020).

The first ``MIN_PAIRS`` candidates of a search, those of a warm start included, train in full,
without a stop at a rung. They show how much the scores of a rung say about the final ones, and they
were not chosen by these scores. Later, a share e_1 / e_last of the new candidates of a batch, at
least one, train in full at once: the first ones, which have the highest expected improvement if
the batch was chosen by it. Otherwise, a promising candidate would need a batch for each rung before
the search learns its final score.

A candidate's final score is estimated from its score at the last rung that it has reached
(``predictors/final_scores.py``). The lowest rungs are left out if their scores are known to have a
correlation below ``LEAST_CORRELATION`` with the final ones: new candidates then train past them,
and candidates that have stopped at them do not go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fbnetv3.search.checks import MAX_EPOCHS, as_items, as_whole
from fbnetv3.search.direction import MAXIMIZE, gain
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short
from fbnetv3.search.predictors.final_scores import MIN_PAIRS, FinalScores
from fbnetv3.search.space.scaling import binary_exponent, scaled
from fbnetv3.search.trial import Trial

LEAST_CORRELATION = 0.6
"""Correlation with the final score below which new candidates do not stop at a rung."""


@dataclass(frozen=True)
class Rung:
    """State of a rung, for reports.

    Attributes:
        epochs: Number of epochs after which candidates are compared.
        candidates: Number of candidates that have trained for at least these epochs.
        promoted: Number of candidates that stopped at this rung and went on.
        correlation: Estimated correlation of the scores with the final ones, in [0, 1]; 1 for the
            last rung. None: fewer than ``MIN_PAIRS`` candidates have scores at this rung and at the
            next one.
        noise: Standard deviation of the final score around its estimate from this rung, in the
            unit of the score; 0 for the last rung. None as for ``correlation``.
    """

    epochs: int
    candidates: int
    promoted: int
    correlation: float | None
    noise: float | None

    def __str__(self) -> str:
        told = "" if self.correlation is None else f", correlation {self.correlation:.2f}"
        return f"rung {self.epochs}: {self.candidates} candidates, {self.promoted} went on{told}"


def as_rungs(value: object) -> tuple[int, ...]:
    """Returns numbers of epochs after checking them.

    Args:
        value: Ascending whole numbers from 1 to ``MAX_EPOCHS``, at least two; (): no rungs.

    Raises:
        SearchError: The value is something else.
    """
    items = as_items("rungs", value, object, "numbers of epochs such as 3, 9, 27")
    what = "rungs: a number of epochs"
    rungs = tuple(as_whole(what, item, low=1, high=MAX_EPOCHS) for item in items)
    if len(rungs) == 1 or any(a >= b for a, b in pairwise(rungs)):
        raise SearchError(
            f"rungs={short(list(rungs))} is not allowed; allowed: at least two ascending numbers "
            "of epochs such as [3, 9, 27], or [] for candidates that train in one go"
        )
    return rungs


class Ladder:
    """The candidates of a search on its rungs.

    Args:
        rungs: Numbers of epochs, ascending; the last one is the whole training.
        trials: Trials so far, whatever their state; those of a warm start count as trained in
            full.
        direction: ``maximize`` or ``minimize``.

    Attributes:
        rungs: The numbers of epochs.
        last: For each candidate with a complete trial, by id, its complete trial with the most
            epochs; in the order in which the candidates first occur among the trials.
        estimates: Distributions of the final gains (scores, negated if the lowest is the best) of
            these candidates, in the same order; all gains are divided by one power of two.
    """

    def __init__(
        self, rungs: tuple[int, ...], trials: Sequence[Trial], direction: str = MAXIMIZE
    ) -> None:
        self.rungs, self._direction = rungs, direction
        self._trials: dict[str, list[Trial]] = {}
        for trial in trials:
            self._trials.setdefault(trial.id, []).append(trial)
        complete = {
            key: [t for t in parts if t.state == "complete"] for key, parts in self._trials.items()
        }
        self.last = {
            key: max(parts, key=lambda t: (self._rung(t), t.number))
            for key, parts in complete.items()
            if parts
        }
        rows = [self._gains(complete[key]) for key in self.last]
        gains = np.array(rows, dtype=np.float64).reshape(-1, len(rungs))
        # scores may be as large as 1e160, whose square overflows
        self._exponent = binary_exponent(np.nan_to_num(gains))
        self.estimates = FinalScores(np.ldexp(gains, -self._exponent))

    def _rung(self, trial: Trial) -> int:
        """Returns the index of the rung up to which a trial is trained."""
        is_whole = trial.max_epochs is None or trial.max_epochs not in self.rungs
        return len(self.rungs) - 1 if is_whole else self.rungs.index(int(trial.max_epochs or 0))

    def _gains(self, parts: Sequence[Trial]) -> list[float]:
        """Returns a candidate's gain after each rung; NaN where it has none."""
        gains = [math.nan] * len(self.rungs)
        for trial in parts:
            own = self._rung(trial)
            for r in range(own):
                reported = trial.reports.get(self.rungs[r], math.nan)
                if math.isnan(gains[r]) and math.isfinite(reported):
                    gains[r] = float(gain(reported, self._direction))
            gains[own] = float(gain(float(trial.final_score or 0.0), self._direction))
        return gains

    @property
    def scores(self) -> dict[int, float]:
        """Estimated final score of each candidate, by number of its trial in :attr:`last`."""
        means = gain(scaled(self.estimates.means, self._exponent), self._direction).tolist()
        return {t.number: mean for t, mean in zip(self.last.values(), means, strict=True)}

    @property
    def errors(self) -> dict[int, float]:
        """Standard deviation of the final score around the estimate, by number as in `scores`."""
        stds = scaled(self.estimates.stds, self._exponent).tolist()
        return {t.number: std for t, std in zip(self.last.values(), stds, strict=True)}

    @property
    def in_full(self) -> int:
        """Number of candidates that are trained in full, or are being trained up to the end."""
        top = len(self.rungs) - 1
        return sum(
            any(self._rung(t) == top and t.state != "failed" for t in parts)
            for parts in self._trials.values()
        )

    @property
    def first_rung(self) -> int:
        """Index of the rung up to which new candidates train.

        It is the first one whose scores have a correlation of at least ``LEAST_CORRELATION`` with
        the final ones, or whose correlation is not known yet; without such a rung, the last one.
        """
        lines, correlations = self.estimates.lines, self.estimates.correlations
        for r, line in enumerate(lines):
            if line.pairs < MIN_PAIRS or correlations[r] >= LEAST_CORRELATION:
                return r
        return len(lines)

    def finished_scores(self) -> dict[int, float]:
        """Returns the scores at the highest rung that any candidate finished, by trial number."""
        top = max(map(self._rung, self.last.values()), default=0)
        finished = (t for t in self.last.values() if self._rung(t) == top)
        return {t.number: t.final_score for t in finished if t.final_score is not None}

    def waiting(self) -> list[Trial]:
        """Returns the last trial of each candidate that has stopped at a rung below the last one.

        Candidates with a trial that is running, or that failed to reach a higher rung, are not
        among them.
        """
        top = len(self.rungs) - 1
        return [
            trial
            for key, trial in self.last.items()
            if trial.batch >= 0 and self._rung(trial) < top
            if self._rung(trial) == max(map(self._rung, self._trials[key]))
        ]

    def promotions(self, values: Sequence[float], most: int) -> list[tuple[Trial, int]]:
        """Returns the trials that go on, those with most epochs first, and their new epochs.

        Args:
            values: Value by which each trial of :meth:`waiting` is ranked, highest first.
            most: Largest number of trials that go on; those with most epochs and, among them, the
                highest values come first.
        """
        ranked = sorted(
            zip(self.waiting(), values, strict=True), key=lambda pair: (-pair[1], pair[0].number)
        )
        chosen: list[tuple[Trial, int]] = []
        for r in reversed(range(self.first_rung, len(self.rungs) - 1)):
            places = self._quota(r)
            here = [trial for trial, _ in ranked if self._rung(trial) == r]
            chosen += [(trial, self.rungs[r + 1]) for trial in here[:places]]
        return chosen[:most]

    def _stops(self, r: int) -> tuple[int, int]:
        """Returns how many candidates have stopped at a rung, and how many of them went on."""
        stopped = [
            parts
            for parts in self._trials.values()
            if any(t.state == "complete" and t.batch >= 0 and self._rung(t) == r for t in parts)
        ]
        return len(stopped), sum(max(map(self._rung, parts)) > r for parts in stopped)

    def _quota(self, r: int) -> int:
        """Returns how many candidates may go on from a rung now."""
        stopped, promoted = self._stops(r)
        return max(0, stopped * self.rungs[r] // self.rungs[r + 1] - promoted)

    def summary(self) -> tuple[Rung, ...]:
        """Returns the state of each rung."""
        stds = scaled(self.estimates.rung_stds, self._exponent).tolist()
        return tuple(self._summary(r, std) for r, std in enumerate(stds))

    def _summary(self, r: int, std: float) -> Rung:
        lines = self.estimates.lines
        is_known = r == len(lines) or lines[r].pairs >= MIN_PAIRS
        return Rung(
            self.rungs[r],
            candidates=sum(self._rung(trial) >= r for trial in self.last.values()),
            promoted=self._stops(r)[1],
            correlation=float(self.estimates.correlations[r]) if is_known else None,
            noise=std if is_known else None,
        )


def continued(trial: Trial, number: int, batch: int, epochs: int, predicted: float | None) -> Trial:
    """Returns the trial in which a candidate goes on to the next rung.

    Args:
        trial: The candidate's last trial.
        number: Number of the new trial.
        batch: Batch of the new trial.
        epochs: Number of epochs of the next rung.
        predicted: Predicted final score; None: not known.
    """
    begun = trial.unfinished()
    return replace(
        begun,
        number=number,
        batch=batch,
        max_epochs=epochs,
        predicted=predicted,
        earlier_reasons=[],
        enqueued=None,
        statistics=dict(trial.statistics),
        config=dict(trial.config),
    )


def most_promotions(rungs: Sequence[int], count: int) -> int:
    """Returns how many candidates may go on to a next rung with one batch.

    With more, the batch would have more trials than the check of a stored batch allows.

    Args:
        rungs: Numbers of epochs; (): no rungs.
        count: Number of new candidates of the batch.
    """
    return count * max(0, len(rungs) - 1)


def expected_promotions(rungs: Sequence[int], batch_size: int, batches: int) -> int:
    """Returns how often candidates go on to a next rung in a number of batches of stage 1.

    The count assumes that no candidate fails and that no rung is left out.

    Args:
        rungs: Numbers of epochs; (): no rungs.
        batch_size: Number of new candidates per batch.
        batches: Number of batches.
    """
    reached, in_full = [0] * max(1, len(rungs)), 0
    for _ in range(batches):
        whole = whole_trainings(rungs, batch_size, in_full + sum(reached[1:][-1:]))
        allowed = [n * a // b for n, a, b in zip(reached, rungs, rungs[1:], strict=False)]
        reached, in_full = [reached[0] + batch_size - whole, *allowed], in_full + whole
    return sum(reached[1:])


def whole_trainings(rungs: Sequence[int], count: int, earlier: int) -> int:
    """Returns how many of some new candidates train in full at once.

    Args:
        rungs: Numbers of epochs; (): no rungs.
        count: Number of new candidates.
        earlier: Number of earlier candidates that train or are trained in full.
    """
    if not rungs or not count:
        return 0
    return min(count, max(1, count * rungs[0] // rungs[-1], MIN_PAIRS - earlier))


def is_further(trial: Trial, earlier_epochs: Iterable[int | None]) -> bool:
    """Returns whether a trial trains for more epochs than each earlier trial of its candidate.

    Args:
        trial: The trial.
        earlier_epochs: Number of epochs of each earlier trial; None: it was trained in full.
    """
    return trial.max_epochs is not None and all(
        epochs is not None and epochs < trial.max_epochs for epochs in earlier_epochs
    )
