"""The batch of a predictor that knows how sure it is: expected improvement and draws.

Expected improvement goes for the optimum, one candidate after the other, each chosen as if those
before it had come out as predicted ("Kriging believer"; Ginsbourger et al., 2010). Thompson
sampling lets every function drawn from the posterior choose its own best, and keeps the batch
from trusting one model. Both are climbed with the genetic operators of stage 2 from the pool and
from mutants of the best trained candidates: what is proposed is not limited to the pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, ndtr

from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.acquisition.coarse import spread_out
from fbnetv3.search.predictors.believed import Believed
from fbnetv3.search.predictors.ensemble import Draws
from fbnetv3.search.predictors.gp import GaussianProcess
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import keys_of

Index = npt.NDArray[np.int64]
_IMPROVING = 0.5
"""Share of a batch that expected improvement chooses."""
_CLIMBS, _WIDEST = 24, 3
"""Climbs for a batch, each for one candidate of a batch of 48. Of larger batches a climb chooses
several, from up to so many times as many islands: a climb's cost is that of its calls."""
_ISLANDS, _SHORTLIST = 6, 256
"""Expected improvement is climbed from so many starts, far apart among so many of the best: most
of the best lie around the best trained candidate, and would all climb the same peak."""


@dataclass(frozen=True)
class _Climb:
    """How populations are climbed: candidates that stay of each, and generations."""

    survivors: int
    generations: int


_OF_DRAWS, _OF_IMPROVEMENT = _Climb(16, 8), _Climb(6, 5)
_FEWEST, _AT_ONCE = 4, 768
"""Of many drawn functions each has fewer survivors, so many in all, but never fewer than that."""
_ALL_AT_ONCE = 64
"""Up to so many functions are all computed for each candidate, in one product."""
_ROOT_OF_2PI = math.sqrt(2 * math.pi)
_FAR = 1e5
"""Deviations below the best from which on the limit of expected improvement is exact enough."""
Score = Callable[[Levels, Index], Floats]
"""(candidates, population of each) -> the value that each is climbed by."""


@runtime_checkable
class Probabilistic(Protocol):
    """A predictor that knows how sure it is."""

    process: GaussianProcess
    """Of the labels, for expected improvement."""

    def draws(self, count: int, random: np.random.Generator) -> Draws:
        """Returns ``count`` functions of its posterior, (candidates, count)."""


def next_batch(
    candidates: Candidates,
    predictor: Probabilistic,
    count: int,
    tried: set[bytes],
    random: np.random.Generator,
    pending: Levels | None = None,
    best: float | None = None,
) -> Pool:
    """Returns a batch of candidates that were not tried; fewer only where there are no more.

    Args:
        candidates: where they come from.
        predictor: of the scores, fitted.
        count: size of the batch.
        tried: keys of candidates that may not be chosen.
        random: source of all draws.
        pending: candidates that are being trained: taken to come out as predicted.
        best: score to improve on, as the process predicts it; None: its highest prediction for
            what was trained.
    """
    taken, process = set(tried), predictor.process
    improving = round(count * _IMPROVING)
    first = improvement_batch(candidates, process, improving, taken, random, pending, best)
    taken |= set(keys_of(first))
    rest = count - len(first)
    second = first[:0]
    if rest:
        second = thompson_batch(candidates, predictor.draws(rest, random), taken, random)
    return candidates.priced(np.concatenate([first, second]))


def log_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Returns the logarithm of the expected improvement over ``best``, also where it underflows.

    After Ament et al., 2023, "Unexpected Improvements to Expected Improvement".
    """
    z = (mean - best) / deviation
    near, below = np.maximum(z, -1.0), np.clip(z, -_FAR, -1.0)
    # pdf + z cdf, and far below pdf (1 + z cdf / pdf), whose bracket tends to 1 / z^2
    ratio = math.sqrt(math.pi / 2) * erfcx(-below / math.sqrt(2))
    limit = -2 * np.log(np.maximum(np.abs(z), 1.0))
    bracket = np.where(z > -_FAR, np.log1p(below * ratio), limit)
    log_pdf = -(z**2) / 2.0 - math.log(_ROOT_OF_2PI)
    # not scipy.stats.norm: its checks of every argument take longer than the sums
    gain = np.exp(-(near**2) / 2.0) / _ROOT_OF_2PI + near * ndtr(near)
    log_gain = np.where(z > -1.0, np.log(gain), log_pdf + bracket)
    return np.asarray(log_gain + np.log(deviation))


def improvement_batch(
    candidates: Candidates,
    process: GaussianProcess,
    count: int,
    tried: set[bytes],
    random: np.random.Generator,
    pending: Levels | None = None,
    best: float | None = None,
) -> Levels:
    """Returns at most ``count`` distinct candidates of high expected improvement.

    Args: see :func:`next_batch`.
    """
    known, best = candidates.starts(random), process.best if best is None else best
    features = candidates.encode(known)
    waiting = candidates.pool.levels[:0] if pending is None else pending
    believed = Believed(process, count + len(waiting))
    if len(waiting):
        # those of other budgets don't count
        allowed = believed.add(_wide(candidates, waiting))[candidates.feasible(waiting)]
        best = max([best, *allowed.tolist()])
    watched = [believed.watch(features.astype(np.float64))]
    taken, rows = set(tried), []
    each = max(1, -(-count // _CLIMBS))
    islands = _ISLANDS * min(each, _WIDEST)

    for start in range(0, count, each):
        values = np.concatenate([log_improvement(*w.posterior(), best) for w in watched])
        starts = _far_apart(features, values, islands)
        levels, scores, _ = _climbed(
            candidates,
            _improvement(candidates, believed, best),
            _OF_IMPROVEMENT,
            known[starts],
            values[starts],
            np.arange(len(starts)),
            random,
        )
        # the next climb goes on from where this one came to
        known = np.concatenate([known, levels])
        features = np.concatenate([features, candidates.encode(levels)])
        watched.append(believed.watch(_wide(candidates, levels)))
        for _ in range(min(each, count - start)):
            index = _first_new(levels, scores, taken)
            if index is None:
                break
            taken.add(levels[index].tobytes())
            rows.append(levels[index])
            # what is believed is to be improved on, too: else all would go to the same peak
            best = max(best, believed.add_watched(watched[-1], index))
            scores = log_improvement(*watched[-1].posterior(), best)
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(candidates.space))


def _first_new(levels: Levels, scores: Floats, taken: set[bytes]) -> int | None:
    """Returns the index of the best candidate that is not taken; None: all are."""
    ranked = np.argsort(-scores, kind="stable").tolist()
    return next((i for i in ranked if levels[i].tobytes() not in taken), None)


def _improvement(candidates: Candidates, believed: Believed, best: float) -> Score:
    return lambda levels, _: log_improvement(*believed.posterior(_wide(candidates, levels)), best)


def _wide(candidates: Candidates, levels: Levels) -> Floats:
    return candidates.encode(levels).astype(np.float64)


def _far_apart(features: Features, values: Floats, count: int) -> Index:
    """Returns the best, and others of the shortlist that are far from it and each other."""
    shortlist = np.argsort(-values, kind="stable")[:_SHORTLIST]
    return np.asarray(shortlist[spread_out(features[shortlist], count)])


def thompson_batch(
    candidates: Candidates, draws: Draws, tried: set[bytes], random: np.random.Generator
) -> Levels:
    """Returns the best candidate of each drawn function that is new.

    Args:
        candidates: where they come from.
        draws: ``count`` functions.
        tried: keys of candidates that may not be chosen.
        random: source of all draws.
    """
    starts = candidates.starts(random)
    values = draws(candidates.encode(starts))  # candidates, count
    survivors = min(_OF_DRAWS.survivors, max(_FEWEST, _AT_ONCE // values.shape[1]))
    top = np.argsort(-values, axis=0, kind="stable")[:survivors]  # survivors, count
    groups = np.repeat(np.arange(values.shape[1]), len(top))
    chosen = top.T.reshape(-1)

    def score(levels: Levels, groups: Index) -> Floats:
        features = candidates.encode(levels)
        if values.shape[1] > _ALL_AT_ONCE:
            return draws.own(features, groups)
        return draws(features)[np.arange(len(levels)), groups]

    levels, scores, groups = _climbed(
        candidates,
        score,
        replace(_OF_DRAWS, survivors=survivors),
        starts[chosen],
        values[chosen, groups],
        groups,
        random,
    )
    return _one_each(starts, values, levels, scores, groups, tried)


def _climbed(
    candidates: Candidates,
    score: Score,
    climb: _Climb,
    levels: Levels,
    scores: Floats,
    groups: Index,
    random: np.random.Generator,
) -> tuple[Levels, Floats, Index]:
    """Evolves populations side by side, two children a candidate; parents stay."""
    for _ in range(climb.generations):
        mothers = np.repeat(np.arange(len(levels)), 2)
        born, mothers = candidates.children(levels, mothers, random)
        owners = groups[mothers]
        scores = np.concatenate([scores, score(born, owners)])
        levels, groups = np.concatenate([levels, born]), np.concatenate([groups, owners])
        kept = _survivors(levels, scores, groups, climb.survivors)
        levels, scores, groups = levels[kept], scores[kept], groups[kept]
    return levels, scores, groups


def _survivors(levels: Levels, scores: Floats, groups: Index, count: int) -> Index:
    """Returns the best distinct candidates of each group."""
    kept, seen, sizes = [], set(), dict.fromkeys(groups.tolist(), 0)
    keys = keys_of(levels)
    for i in np.argsort(-scores, kind="stable").tolist():
        group = int(groups[i])
        if sizes[group] < count and (group, keys[i]) not in seen:
            seen.add((group, keys[i]))
            sizes[group] += 1
            kept.append(i)
    return np.array(kept, dtype=np.int64)


def _one_each(
    starts: Levels,
    values: Floats,
    levels: Levels,
    scores: Floats,
    groups: Index,
    tried: set[bytes],
) -> Levels:
    """Gives each function its best candidate that is new; then of the starts, where it has none."""
    taken, rows = set(tried), []
    keys, start_keys = keys_of(levels), keys_of(starts)
    for group in range(values.shape[1]):
        own = np.flatnonzero(groups == group)
        ranked = [(keys[i], levels[i]) for i in own[np.argsort(-scores[own], kind="stable")]]
        fallback = np.argsort(-values[:, group], kind="stable")
        found = next((row for key, row in ranked if key not in taken), None)
        if found is None:
            found = next((starts[i] for i in fallback if start_keys[i] not in taken), None)
        if found is not None:
            taken.add(found.tobytes())
            rows.append(found)
    return np.array(rows, dtype=np.int64).reshape(len(rows), starts.shape[1])
