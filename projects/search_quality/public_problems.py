"""Problems from published tables of trainings, which ``public_tables.py`` turns into arrays.

``nasbench_macro`` and ``nasbench201`` contain every network of their spaces: an evaluation is the
accuracy of one of the network's trainings, drawn at random; the true score is their mean.
``accel_nasbench`` contains 5,136 of some 10^10 networks; its true scores are those of
gradient-boosted trees fitted to them, its latencies those of a fitted sum over blocks, and an
evaluation adds the noise of one training. :func:`errors` returns how well the trees and the sum
predict networks that they were not fitted to.

These tables have no recipes: all variables are part of the architecture. The upper limit of the
cost (MACs, or the latency on a device) is the median over the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.search import Choice, Constraint, IntRange, SearchSpace
from fbnetv3.search.space.parameters import Levels, Parameter
from projects.search_quality import public_tables
from projects.search_quality.problem import Configs, Floats, Problem
from projects.search_quality.public_tables import Arrays

_FOLDS = 5
"""Folds of the cross-validation in :func:`errors`."""
_BLOCK_SIZES = (3, 2, 4, 2)
"""Numbers of levels of expansion, kernel, depth and squeeze-excite."""


class TableOfAll:
    """The scores and costs of all networks of a space, by their levels.

    Args:
        space: Space of the table.
        arrays: Arrays with each network of the space once.
        cost: Name of the cost in the statistics.
    """

    def __init__(self, space: SearchSpace, arrays: Arrays, cost: str) -> None:
        rows = np.full(space.sizes, -1, dtype=np.int64)
        rows[tuple(arrays.levels.T)] = np.arange(len(arrays.levels))
        if (rows < 0).any() or rows.size != len(arrays.levels):
            raise public_tables.TableError(
                f"the table has {len(arrays.levels)} networks, of which some are equal or outside "
                f"of the space; it must have each of the {rows.size} networks of the space once"
            )
        self._space, self._rows, self._arrays, self._cost = space, rows, arrays, cost
        self._means = np.nanmean(arrays.scores, axis=1)

    def _rows_of(self, configs: Configs) -> npt.NDArray[np.int64]:
        return np.asarray(self._rows[tuple(self._space.levels(configs).T)])

    def truth(self, configs: Configs) -> Floats:
        """Returns the mean accuracies of the networks, in percent."""
        return np.asarray(self._means[self._rows_of(configs)])

    def statistics(self, configs: Configs) -> dict[str, Floats]:
        """Returns the costs of the networks."""
        return {self._cost: self._arrays.cost[self._rows_of(configs)]}

    def measured(self, configs: Configs, random: np.random.Generator) -> Floats:
        """Returns the accuracy of one random training of each network, in percent."""
        scores = self._arrays.scores[self._rows_of(configs)]
        return np.array([random.choice(row[~np.isnan(row)]) for row in scores])

    def problem(self, name: str) -> Problem:
        """Returns the problem in which a network costs at most the median of the table."""
        limit = float(np.median(self._arrays.cost))
        allowed = self._arrays.cost <= limit
        cheapest = self._arrays.levels[[int(self._arrays.cost.argmin())]]
        return Problem(
            name,
            self._space,
            self.truth,
            self.statistics,
            (Constraint(self._cost, upper=limit),),
            usual=self._space.configs(cheapest)[0],
            best=float(self._means[allowed].max()),
            measured=self.measured,
        )


def _choices(prefix: str, count: int, values: tuple[str, ...]) -> SearchSpace:
    return SearchSpace([Choice(f"{prefix}{i}", values, part="architecture") for i in range(count)])


def macro_space() -> SearchSpace:
    """Returns the space of NAS-Bench-Macro: the block of each of 8 layers."""
    return _choices("layer", 8, ("identity", "mb3_k3", "mb6_k5"))


def nasbench201_space() -> SearchSpace:
    """Returns the space of NAS-Bench-201: the operation of each of 6 edges of the cell."""
    return _choices("edge", 6, public_tables.OPERATIONS)


def accel_space() -> SearchSpace:
    """Returns the space of Accel-NASBench, with the variables of 7 blocks in the table's order."""
    parameters: list[Parameter] = []
    for block in range(public_tables.BLOCKS):
        deepest = 4 if block == 5 else 3
        parameters += [
            Choice(f"expansion{block}", public_tables.EXPANSIONS, part="architecture"),
            IntRange(f"kernel{block}", 3, 5, step=2, part="architecture"),
            IntRange(f"depth{block}", 1, deepest, part="architecture"),
            Choice(f"squeeze_excite{block}", (False, True), part="architecture"),
        ]
    return SearchSpace(parameters)


class SumOverBlocks:
    """A model of a cost as a sum over blocks, with one value per block and setting of the block.

    Args:
        sizes: Number of levels of each variable of a block; all blocks have the same variables.
    """

    _RIDGE = 0.1  # weight of the penalty on the squared values

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes, self._values, self._mean = sizes, np.zeros((0, 0)), 0.0

    def _codes(self, levels: Levels) -> Levels:
        """Returns a number for the settings of each block, (networks, blocks)."""
        blocks = levels.reshape(len(levels), -1, len(self._sizes))
        return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(blocks, 2, 0)), self._sizes))

    def fit(self, levels: Levels, costs: Floats) -> SumOverBlocks:
        """Fits a value for each setting of each block by ridge regression; returns this object."""
        one_hot = np.eye(math.prod(self._sizes))[self._codes(levels)]
        features = one_hot.reshape(len(levels), -1)
        self._mean = float(costs.mean())
        gram = features.T @ features + self._RIDGE * np.eye(features.shape[1])
        solved = np.linalg.solve(gram, features.T @ (costs - self._mean))
        self._values = solved.reshape(one_hot.shape[1:])
        return self

    def predict(self, levels: Levels) -> Floats:
        """Returns the costs of networks."""
        codes = self._codes(levels)
        return np.asarray(self._mean + self._values[np.arange(codes.shape[1]), codes].sum(1))


class FittedTable:
    """Accuracies and latencies of all networks of a space, fitted to those of a table.

    Args:
        space: Space of the table.
        arrays: Arrays with some networks of the space.
    """

    def __init__(self, space: SearchSpace, arrays: Arrays) -> None:
        self._space, self._arrays = space, arrays
        self._score = _trees().fit(arrays.levels, arrays.scores[:, 0])
        self._latency = SumOverBlocks(_BLOCK_SIZES).fit(arrays.levels, arrays.cost)

    def truth(self, configs: Configs) -> Floats:
        """Returns the fitted accuracies of the networks, in percent."""
        return np.asarray(self._score.predict(self._space.levels(configs)))

    def statistics(self, configs: Configs) -> dict[str, Floats]:
        """Returns the fitted latencies of the networks, in milliseconds."""
        return {"latency": self._latency.predict(self._space.levels(configs))}

    def problem(self, name: str) -> Problem:
        """Returns the problem in which a network has at most the median latency of the table."""
        limit = float(np.median(self._arrays.cost))
        smallest: Levels = np.zeros((1, len(self._space)), dtype=np.int64)
        return Problem(
            name,
            self._space,
            self.truth,
            self.statistics,
            (Constraint("latency", upper=limit),),
            self._arrays.noise,
            self._space.configs(smallest)[0],
        )


def _trees() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=600, learning_rate=0.05, max_leaf_nodes=8, random_state=0
    )


def errors(arrays: Arrays) -> dict[str, tuple[float, float]]:
    """Returns the errors of trees and sum over blocks on networks that they were not fitted to.

    Args:
        arrays: Arrays of Accel-NASBench.

    Returns:
        The root mean squared error and Spearman's rank correlation in a five-fold cross-validation,
        of ``accuracy`` in percent and of ``latency`` in milliseconds.
    """
    from scipy.stats import spearmanr
    from sklearn.model_selection import KFold

    accuracies, costs = arrays.scores[:, 0], arrays.cost
    predicted = np.zeros((2, len(costs)))
    for train, test in KFold(_FOLDS, shuffle=True, random_state=0).split(arrays.levels):
        rest = arrays.levels[test]
        trees = _trees().fit(arrays.levels[train], accuracies[train])
        latency = SumOverBlocks(_BLOCK_SIZES).fit(arrays.levels[train], costs[train])
        predicted[:, test] = trees.predict(rest), latency.predict(rest)
    return {
        name: (float(np.sqrt(np.mean((p - true) ** 2))), float(spearmanr(p, true).statistic))
        for name, p, true in zip(
            ("accuracy", "latency"), predicted, (accuracies, costs), strict=True
        )
    }


MAKERS: dict[str, Callable[[], Problem]] = {
    "nasbench_macro": lambda: TableOfAll(
        macro_space(), public_tables.read("nasbench_macro"), "macs"
    ).problem("nasbench_macro"),
    "nasbench201": lambda: TableOfAll(
        nasbench201_space(), public_tables.read("nasbench201"), "latency"
    ).problem("nasbench201"),
    "accel_nasbench": lambda: FittedTable(
        accel_space(), public_tables.read("accel_nasbench")
    ).problem("accel_nasbench"),
}
