"""The objectives of a search: scores, and costs that are known before a training.

The name of a statistic stands for a cost, ``score`` for the number that an evaluation returns, and
any other name for one of the scores of an evaluation that returns several (``{"top1": ...,
"robust": ...}``). Values keep the user's sign in trials, storages and reports. Candidates are
compared by gains: values with the sign for which higher is better. An array of points has a column
of gains for each objective: the scores first, then the costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3.errors import did_you_mean
from fbnetv3.search.checks import as_items
from fbnetv3.search.direction import MAXIMIZE, MINIMIZE, gain
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short
from fbnetv3.search.trial import SCORE, Trial

ONE_SCORE = (SCORE,)
"""The objectives of a search for the best score."""
_EXAMPLE = '["score", "-latency_ms"]'


@dataclass(frozen=True)
class Objective:
    """A score or a cost, and whether its highest or its lowest value is the best.

    Attributes:
        name: ``score``, the name of a statistic, or the name of a score among several.
        direction: ``maximize`` or ``minimize``.
    """

    name: str
    direction: str = MAXIMIZE

    def __str__(self) -> str:
        return f"{self.name} ({self.direction})"


@dataclass(frozen=True)
class Objectives:
    """The objectives of a search.

    Attributes:
        scores: Scores, each with a predictor of its own. The first one is :attr:`Trial.score`.
        costs: Statistics, which are known without a training.
        bounded: Names of the scores that have bounds, whether they are objectives or not.
    """

    scores: tuple[Objective, ...] = (Objective(SCORE),)
    costs: tuple[Objective, ...] = ()
    bounded: tuple[str, ...] = ()

    @property
    def are_several(self) -> bool:
        """Whether the search looks for a Pareto front."""
        return len(self.scores) + len(self.costs) > 1

    @property
    def all(self) -> tuple[Objective, ...]:
        """The objectives in the order of the columns of points."""
        return (*self.scores, *self.costs)

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the scores that an evaluation returns; () if it returns a number."""
        names = tuple(dict.fromkeys([*(score.name for score in self.scores), *self.bounded]))
        return () if names == ONE_SCORE else names

    def cost_gains(
        self, statistics: Mapping[str, npt.NDArray[np.float64]], count: int
    ) -> np.ndarray:
        """Returns the gains of the costs, (candidates, costs).

        Args:
            statistics: {name: (candidates,)} values of each statistic.
            count: Number of candidates.
        """
        columns = [gain(statistics[cost.name], cost.direction) for cost in self.costs]
        return np.stack(columns, 1) if columns else np.zeros((count, 0))

    def value_of(self, objective: Objective, trial: Trial) -> float:
        """Returns the value of an objective of a complete trial, with the user's sign."""
        if objective in self.costs:
            return trial.statistics[objective.name]
        is_first = objective == self.scores[0]
        value = trial.score if is_first else trial.scores[objective.name]
        assert value is not None, "the trial is not complete"
        return value

    def points(self, trials: Sequence[Trial]) -> np.ndarray:
        """Returns the gains of complete trials, (trials, objectives)."""
        rows = [[gain(self.value_of(o, t), o.direction) for o in self.all] for t in trials]
        return np.array(rows, dtype=np.float64).reshape(len(trials), len(self.all))


def as_objectives(value: object) -> tuple[str, ...]:
    """Returns objectives as strings, after all checks for which statistics need not be known.

    Args:
        value: Texts such as ``["score", "-latency_ms"]``; None: ``["score"]``.

    Raises:
        SearchError: The value is no sequence of one or more names, a name occurs twice, or
            ``score`` has a minus sign.
    """
    if value is None:
        return ONE_SCORE
    texts = tuple(text.strip() for text in as_items("objectives", value, str, f"names: {_EXAMPLE}"))
    names = [name_of(text) for text in texts]
    if not names or not all(names):
        raise SearchError(f"objectives={short(list(texts))} lacks a name; allowed: {_EXAMPLE}")
    for name in names:
        if names.count(name) > 1:
            raise SearchError(f"objectives={short(list(texts))} has {name!r} twice; keep one")
    if any(text.startswith("-") and name_of(text) == SCORE for text in texts):
        raise SearchError(
            "objectives: '-score' is not allowed; write 'score', and direction='minimize' if the "
            "lowest score is the best"
        )
    return texts


def name_of(text: str) -> str:
    """Returns the name in an objective such as ``-latency_ms``."""
    return text.removeprefix("-").strip()


def objectives_of(
    texts: Sequence[str],
    direction: str = MAXIMIZE,
    statistics: Iterable[str] = (),
    bounded: Iterable[str] = (),
) -> Objectives:
    """Returns the objectives that texts name.

    Args:
        texts: Objectives as :func:`as_objectives` returns them.
        direction: Direction of the search; its first score must have the same direction.
        statistics: Names of the statistics.
        bounded: Names of the scores that have bounds.

    Raises:
        SearchError: There is no score, a name beside ``score`` is no statistic, the first score
            contradicts the direction, or a bounded score is a statistic or the only objective.
    """
    known = list(statistics)
    scores: list[Objective] = []
    costs: list[Objective] = []
    for text in texts:
        name, sign = name_of(text), MINIMIZE if text.startswith("-") else MAXIMIZE
        if name == SCORE:
            scores.append(Objective(name, direction))
        else:
            (costs if name in known else scores).append(Objective(name, sign))
    _check_scores(texts, scores, direction, known)
    objectives = Objectives(tuple(scores), tuple(costs), tuple(bounded))
    _check_bounded(objectives, known)
    return objectives


def _check_bounded(objectives: Objectives, statistics: Sequence[str]) -> None:
    """Raises a SearchError if a bounded score is a statistic or the only objective."""
    for name in objectives.bounded:
        if name in statistics:
            raise SearchError(
                f"score_constraints: {name!r} is a statistic, which is known before an evaluation; "
                "give its bound in constraints"
            )
        if not objectives.are_several and name == objectives.scores[0].name:
            raise SearchError(
                f"score_constraints: {name!r} is the only objective, so that a bound on it has no "
                "effect; give bounds on other scores of the evaluation"
            )


def _check_scores(
    texts: Sequence[str], scores: Sequence[Objective], direction: str, statistics: Sequence[str]
) -> None:
    """Raises a SearchError if there is no score, or if scores or directions contradict."""
    if not scores:
        raise SearchError(
            f"objectives={short(list(texts))} are statistics alone, which need no search; add "
            "'score', or the name of a score that the evaluation returns"
        )
    unknown = [score.name for score in scores if score.name != SCORE]
    if unknown and len(unknown) < len(scores):
        raise SearchError(
            f"objectives: there is no statistic {unknown[0]!r}; next to 'score', the statistics "
            f"are allowed: {', '.join(statistics) or 'none'}{did_you_mean(unknown[0], statistics)}"
        )
    first = scores[0]
    if first.direction != direction:
        sign = "" if direction == MAXIMIZE else "-"
        raise SearchError(
            f"objectives: the first score, {first}, contradicts direction={direction!r}; give "
            f"direction={first.direction!r}, or write {f'{sign}{first.name}'!r}"
        )
