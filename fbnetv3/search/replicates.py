"""Finalists that are trained several times, with different random seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fbnetv3.search.trial import Trial


@dataclass(frozen=True)
class Spread:
    """The final scores of the trainings of one candidate.

    Attributes:
        scores: Score of each complete training, in the order of the trials.
    """

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return float(np.mean(self.scores))

    @property
    def std(self) -> float:
        """Sample standard deviation of the n scores, with n - 1 degrees of freedom."""
        return float(np.std(self.scores, ddof=1))

    def __str__(self) -> str:
        return f"mean of {len(self.scores)} seeds, standard deviation {self.std:.2g}"


def replicated(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Returns trials with their replicates: all with the first seed, then all with the next one.

    Args:
        trials: Trials, numbered one after the other.
        count: Number of trainings of each candidate, at least 1.
    """
    copies = [replace(trial.copy(), replicate=seed) for seed in range(count) for trial in trials]
    return [replace(copy, number=trials[0].number + i) for i, copy in enumerate(copies)]


def mean_scores(trials: Iterable[Trial], scores: Mapping[int, float]) -> dict[int, float]:
    """Returns scores in which trainings of one candidate have the mean of their scores.

    Args:
        trials: Trials.
        scores: Score by number of the trial, for some of the trials.
    """
    means = dict(scores)
    for parts in _by_id(t for t in trials if t.number in scores):
        mean = float(np.mean([scores[t.number] for t in parts]))
        means |= dict.fromkeys((t.number for t in parts), mean)
    return means


def mean_scores_by_name(trials: Iterable[Trial]) -> dict[int, dict[str, float]]:
    """Returns the mean of each named score over the trainings of one candidate, by trial number.

    Args:
        trials: Complete trials. Candidates with one of them, or without named scores, are left out.
    """
    means: dict[int, dict[str, float]] = {}
    for parts in _by_id(t for t in trials if t.scores):
        for trial in parts:
            values = {n: [t.scores[n] for t in parts if n in t.scores] for n in trial.scores}
            means[trial.number] = {name: float(np.mean(of)) for name, of in values.items()}
    return means


def spreads(trials: Iterable[Trial]) -> dict[str, Spread]:
    """Returns the spread of each candidate with several complete trainings, by id.

    Args:
        trials: Trials; only complete trials of stage 2 count.
    """
    finals = (t for t in trials if t.stage == "fine" and t.state == "complete")
    return {
        parts[0].id: Spread(tuple(float(t.final_score or 0.0) for t in parts))
        for parts in _by_id(finals)
    }


def _by_id(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Returns the trials of each candidate that has several of them."""
    by_id: dict[str, list[Trial]] = {}
    for trial in trials:
        by_id.setdefault(trial.id, []).append(trial)
    return [parts for parts in by_id.values() if len(parts) > 1]
