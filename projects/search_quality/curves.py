"""Problems with a score after every epoch, for searches with partial trainings.

``trainings`` has the curves of the table of real trainings: 4 epochs, one training for each seed.
The others have 27 epochs, and synthetic curves made from a problem of ``problems.py``:

    score after e epochs = f(x) + spread * (u(e) * g(x) - 3 exp(-e / 6))

f is the score of the problem, with its noise. spread is the standard deviation of the true scores
of random candidates. g is a disturbance with variance 1: half of the variance is a smooth function
of the candidate x, the other half is drawn for each candidate and seed. u(e) is 0 after the last
epoch. Before, u(e) = 0.8 exp(-e / 8) in ``continuous``, ``hartmann6`` and ``synthetic``: partial
scores predict the final ones. In ``misleading``, u(e) = 6 exp(-e / 12): for most of the training,
the disturbance hides the final score, which is that of ``continuous``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from fbnetv3.search.space.encoding import Encoding
from projects.search_quality import problems
from projects.search_quality.joint_table import JointTable, load_table
from projects.search_quality.problems import Configs, Problem

Floats = npt.NDArray[np.float64]
_EPOCHS = 27
"""Length of a whole training."""
_FEATURES, _LENGTHSCALE = 256, 0.5
"""Number of Fourier features of the smooth disturbance, and its lengthscale per dimension."""


@dataclass(frozen=True)
class CurveProblem:
    """A problem whose evaluations have a score after every epoch.

    Attributes:
        name: Name in tables.
        problem: Problem of the final scores.
        rungs: Numbers of epochs after which candidates are compared; the last is the whole
            training.
        curve: Function from a configuration and a seed of the evaluation to the scores after
            each epoch.
    """

    name: str
    problem: Problem
    rungs: tuple[int, ...]
    curve: Callable[[dict[str, object], int], Floats]

    @property
    def epochs(self) -> int:
        """Number of epochs of a whole training."""
        return self.rungs[-1]


class _Synthetic:
    """Synthetic curves whose last score is that of a problem minus a constant.

    Args:
        problem: Problem of the final scores.
        height: u(0), the standard deviation of the disturbance at epoch 0 in units of spread.
        decay: Number of epochs in which u falls by a factor of e.
    """

    def __init__(self, problem: Problem, height: float, decay: float) -> None:
        self._problem, self._encoding = problem, Encoding(problem.space)
        random = np.random.default_rng(12)
        sample = problems.random_levels(problem, 500, random)
        self._spread = float(problem.truth(problem.space.configs(sample)).std())
        width = self._encoding.encode(sample).shape[1]
        scale = _LENGTHSCALE * np.sqrt(width)
        self._frequencies = random.standard_normal((width, _FEATURES)) / scale
        self._phases = random.uniform(0, 2 * np.pi, _FEATURES)
        self._weights = random.standard_normal(_FEATURES) * np.sqrt(2 / _FEATURES)
        epochs = np.arange(1, _EPOCHS + 1)
        self._height = height * np.exp(-epochs / decay) * (epochs < _EPOCHS)
        self._rise = -3.0 * np.exp(-epochs / 6)

    def __call__(self, config: dict[str, object], seed: int) -> Floats:
        """Returns the score after each epoch, (epochs,)."""
        x = self._encoding.encode(self._problem.space.levels([config]))[0].astype(np.float64)
        smooth = float(np.cos(x @ self._frequencies + self._phases) @ self._weights)
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).digest()
        own = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
        disturbance = (smooth + own.standard_normal()) / np.sqrt(2)
        final = float(self._problem.measure([config], own)[0])
        return final + self._spread * (self._height * disturbance + self._rise)


def _trainings() -> CurveProblem:
    table = load_table()
    tables = [JointTable(table, seed) for seed in range(len(table.right))]

    def curve(config: dict[str, object], seed: int) -> Floats:
        return tables[seed % len(tables)].curve(config)

    return CurveProblem("trainings", problems.get("trainings"), (1, 2, 4), curve)


def _synthetic(name: str, source: str, height: float, decay: float) -> CurveProblem:
    problem = problems.get(source)
    return CurveProblem(name, problem, (3, 9, _EPOCHS), _Synthetic(problem, height, decay))


_MAKERS: dict[str, Callable[[], CurveProblem]] = {
    "trainings": _trainings,
    "continuous": lambda: _synthetic("continuous", "continuous", 0.8, 8.0),
    "hartmann6": lambda: _synthetic("hartmann6", "hartmann6", 0.8, 8.0),
    "synthetic": lambda: _synthetic("synthetic", "synthetic", 0.8, 8.0),
    "misleading": lambda: _synthetic("misleading", "continuous", 6.0, 12.0),
}
NAMES = tuple(_MAKERS)


@cache
def get(name: str) -> CurveProblem:
    """Returns the problem with a name of ``NAMES``."""
    return _MAKERS[name]()


def rank_correlations(problem: CurveProblem, count: int = 500) -> list[float]:
    """Returns Spearman's rank correlation of the scores after each rung with the final ones."""
    from scipy.stats import spearmanr

    levels = problems.random_levels(problem.problem, count, np.random.default_rng(0))
    configs: Configs = problem.problem.space.configs(levels)
    curves = np.array([problem.curve(config, 0) for config in configs])
    final = curves[:, -1]
    return [float(spearmanr(curves[:, rung - 1], final).statistic) for rung in problem.rungs]
