"""Thompson sampling: each function sampled from the posterior chooses its best candidate."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.acquisition.islands import Index, Population, evolve_islands
from fbnetv3.search.acquisition.score_bounds import SampledBounds
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import keys_of

_GENERATIONS = 8
_MAX_SURVIVORS = 16
_MIN_SURVIVORS = 4
_TOTAL_SURVIVORS = 768
"""For each function, 768 / (number of functions) candidates survive a generation.

But at least 4 and at most 16 survive.
"""
_MAX_DENSE_FUNCTIONS = 64
"""Largest number of functions that are all evaluated at every candidate.

With more functions, it is faster to evaluate at each candidate only the function for which it is
evolved.
"""


class PosteriorSamples(Protocol):
    """Functions sampled from the posterior of a predictor."""

    def __call__(self, x: Features) -> Floats:
        """Returns the values of all functions, (m, count), at features (m, width)."""

    def evaluate_each(self, x: Features, functions: npt.NDArray[np.int64]) -> Floats:
        """Returns the value of one function at each candidate, (m,).

        Args:
            x: (m, width) features.
            functions: (m,) index of the function to evaluate at each candidate.
        """


class Functions(Protocol):
    """Functions of candidates, each to be maximised."""

    def __call__(self, levels: Levels) -> Floats:
        """Returns the values of all functions, (m, count), at candidates (m, variables)."""

    def evaluate_each(self, levels: Levels, functions: npt.NDArray[np.int64]) -> Floats:
        """Returns the value of one function at each candidate, (m,).

        Args:
            levels: (m, variables) candidates.
            functions: (m,) index of the function to evaluate at each candidate.
        """


class _SampledScores:
    """Sampled functions of features as functions of candidates."""

    def __init__(self, candidates: Candidates, samples: PosteriorSamples) -> None:
        self._candidates, self._samples = candidates, samples

    def __call__(self, levels: Levels) -> Floats:
        return self._samples(self._candidates.encode(levels))

    def evaluate_each(self, levels: Levels, functions: npt.NDArray[np.int64]) -> Floats:
        return self._samples.evaluate_each(self._candidates.encode(levels), functions)


class _Bounded:
    """Functions, with values far below all others at candidates that violate a bound on scores."""

    def __init__(self, functions: Functions, bounds: SampledBounds) -> None:
        self._functions, self._bounds = functions, bounds

    def __call__(self, levels: Levels) -> Floats:
        return self._bounds.applied(self._functions(levels), levels)

    def evaluate_each(self, levels: Levels, functions: npt.NDArray[np.int64]) -> Floats:
        values = self._functions.evaluate_each(levels, functions)
        return self._bounds.applied_to_each(values, levels, functions)


def thompson_batch(
    candidates: Candidates,
    samples: PosteriorSamples,
    tried: set[bytes],
    random: np.random.Generator,
) -> Levels:
    """Returns the best new candidate of each sampled function, (n, variables).

    Args:
        candidates: Constrained space with a pool and the best candidates trained so far.
        samples: Functions to maximise.
        tried: Keys of candidates that may not be chosen, as :func:`keys_of` returns them.
        random: Source of all random numbers.

    Returns:
        Distinct candidates. A function yields none if its evolved candidates and all starts of the
        search have been tried, or chosen by functions before it.
    """
    return maximise_each(candidates, _SampledScores(candidates, samples), tried, random)


def maximise_each(
    candidates: Candidates, sampled: Functions, tried: set[bytes], random: np.random.Generator
) -> Levels:
    """Returns the best new candidate of each function, (n, variables); see :func:`thompson_batch`.

    Args:
        candidates: Constrained space with a pool and the best candidates trained so far.
        sampled: Functions to maximise.
        tried: Keys of candidates that may not be chosen, as :func:`keys_of` returns them.
        random: Source of all random numbers.
    """
    starts = candidates.starts(random)
    values = sampled(starts)  # (starts, functions)
    count = values.shape[1]
    if candidates.bounds is not None:
        sampled = _Bounded(sampled, candidates.bounds.sample(count, random))
        values = sampled(starts)
    survivors = min(_MAX_SURVIVORS, max(_MIN_SURVIVORS, _TOTAL_SURVIVORS // count))
    top = np.argsort(-values, axis=0, kind="stable")[:survivors]  # (survivors, functions)
    functions, first = np.repeat(np.arange(count), len(top)), top.T.reshape(-1)  # by function

    def score(levels: Levels, functions: Index) -> Floats:
        if count > _MAX_DENSE_FUNCTIONS:
            return sampled.evaluate_each(levels, functions)
        return sampled(levels)[np.arange(len(levels)), functions]

    population = evolve_islands(
        candidates,
        score,
        Population(starts[first], values[first, functions], functions),
        random,
        survivors=survivors,
        generations=_GENERATIONS,
    )
    return _best_of_each(population, starts, values, tried)


def _best_of_each(
    population: Population, starts: Levels, values: Floats, tried: set[bytes]
) -> Levels:
    """Returns one untried candidate per function.

    It is the best evolved candidate of the function that is neither tried nor chosen by a function
    before it; if there is none, the best such start; if there is no such start either, the function
    has no candidate.

    Args:
        population: Candidates of all functions after the search, one island per function.
        starts: (m, variables) candidates that the search started from.
        values: (m, functions) values of all functions at the starts.
        tried: Keys of candidates that may not be chosen.
    """
    taken, chosen = set(tried), []
    keys, start_keys = keys_of(population.levels), keys_of(starts)
    for function in range(values.shape[1]):
        members = np.flatnonzero(population.islands == function)
        members = members[np.argsort(-population.scores[members], kind="stable")]
        ranked = np.argsort(-values[:, function], kind="stable")
        evolved = (population.levels[i] for i in members if keys[i] not in taken)
        fallback = (starts[i] for i in ranked if start_keys[i] not in taken)
        row = next(evolved, None)
        row = next(fallback, None) if row is None else row
        if row is not None:
            taken.add(row.tobytes())
            chosen.append(row)
    return np.array(chosen, dtype=np.int64).reshape(len(chosen), starts.shape[1])
