"""Registered statistics of candidates, in addition to those that a space computes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fbnetv3.errors import FBNetError, first_line
from fbnetv3.registries import STATISTICS
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.space import FBNetSpace, FBNetStatistics

_OF_SPACE = ("macs", "params", "activations", "latency_ms")


class RegisteredStatistics:
    """Computes the statistics of a space, and registered ones one candidate at a time.

    Args:
        statistics: Statistics of the space.
        space: Space of the candidates.
        names: Names of registered statistics, in order.
        num_classes: Number of outputs of the classifier.
    """

    def __init__(
        self,
        statistics: FBNetStatistics,
        space: FBNetSpace,
        names: Iterable[str],
        num_classes: int,
    ) -> None:
        self._statistics, self._space, self._num_classes = statistics, space, num_classes
        self._functions: dict[str, Callable[..., Any]] = {n: STATISTICS.get(n) for n in names}

    def __call__(self, configs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Returns each statistic of a list of configs as an array of shape (candidates,)."""
        names = configs[0] if configs else ()
        return self.of_columns({name: np.array([c[name] for c in configs]) for name in names})

    def of_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns each statistic of the candidates as an array of shape (candidates,).

        Args:
            columns: Array of values by variable, each of shape (candidates,).

        Raises:
            SearchError: A registered function raises an error, or returns no finite number.
        """
        size = len(next(iter(columns.values())))
        lists = {name: values.tolist() for name, values in columns.items()}
        values = {name: np.empty(size) for name in self._functions}
        for i in range(size):
            config = {name: column[i] for name, column in lists.items()}
            arch = self._space.arch(config, self._num_classes)
            for name, function in self._functions.items():
                values[name][i] = _number(name, function, arch)
        return {**self._statistics.of_columns(columns), **values}


def _number(name: str, function: Callable[..., Any], arch: Any) -> float:
    try:
        value = float(function(arch))
    except FBNetError:
        raise
    except Exception as error:  # of a user's code
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise SearchError(f"statistic {name} failed for a candidate ({problem})") from error
    if not np.isfinite(value):
        raise SearchError(f"statistic {name} of a candidate is {value}; allowed: a finite number")
    return value


def with_registered(
    statistics: FBNetStatistics, space: FBNetSpace, names: Iterable[str], num_classes: int
) -> FBNetStatistics | RegisteredStatistics:
    """Returns the statistics of a space with the registered ones that bounds name.

    Args:
        statistics: Statistics of the space.
        space: Space of the candidates.
        names: Statistics that constraints and budgets name.
        num_classes: Number of outputs of the classifier.
    """
    registered = sorted({n for n in names if n in STATISTICS and n not in _OF_SPACE})
    if not registered:
        return statistics
    return RegisteredStatistics(statistics, space, registered, num_classes)
