"""Registered statistics of candidates, in addition to those that a space computes itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fbnetv3.errors import FBNetError, first_line
from fbnetv3.registries import STATISTIC_UNITS, STATISTICS
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.network_space import NetworkSpace
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.space.constraints import StatisticsFn


class RegisteredStatistics:
    """Computes the statistics of a space, and registered statistics one candidate at a time.

    Args:
        statistics: Statistics of the space.
        network: Function from a candidate's values by variable to the argument of the registered
            functions.
        names: Names of registered statistics.

    Attributes:
        may_refuse: Whether the statistics of the space may be NaN, which marks candidates that are
            not in the space, for example because their networks cannot be built.
        is_slow: Whether the statistics of the space take long.
    """

    def __init__(
        self,
        statistics: StatisticsFn,
        network: Callable[[Mapping[str, Any]], Any],
        names: Iterable[str],
    ) -> None:
        self._statistics, self._network = statistics, network
        self._functions: dict[str, Callable[..., Any]] = {n: STATISTICS.get(n) for n in names}
        self.may_refuse = bool(getattr(statistics, "may_refuse", False))
        self.is_slow = bool(getattr(statistics, "is_slow", False))

    def __call__(self, configs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Returns each statistic of a list of configs as an array of shape (candidates,).

        If a statistic of the space is NaN for a candidate, the registered functions are not called
        with that candidate, and its registered statistics are NaN, too.

        Raises:
            FBNetError: A registered function raised it.
            SearchError: A registered function raised any other error, or returned no finite number.
        """
        known = dict(self._statistics(configs))
        refused = np.zeros(len(configs), dtype=bool)
        for column in known.values():
            refused |= np.isnan(column)
        values = {name: np.full(len(configs), np.nan) for name in self._functions}
        for i in np.flatnonzero(~refused):
            network = self._network(configs[i])
            for name, function in self._functions.items():
                values[name][i] = _number(name, function, network)
        return {**known, **values}


def _number(name: str, function: Callable[..., Any], network: Any) -> float:
    try:
        value = float(function(network))
    except FBNetError:
        raise
    except Exception as error:  # a user's function may raise anything
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise SearchError(f"statistic {name} failed for a candidate ({problem})") from error
    if not np.isfinite(value):
        raise SearchError(f"statistic {name} of a candidate is {value}; allowed: a finite number")
    return value


def with_registered(
    statistics: StatisticsFn,
    space: FBNetSpace | NetworkSpace,
    names: Iterable[str],
    num_classes: int,
) -> StatisticsFn:
    """Returns the statistics of a space with the registered ones that a config names.

    Registered functions are called with the :class:`~fbnetv3.arch.Arch` of a candidate, or, in a
    space over the arguments of a network, with its
    :class:`~fbnetv3.search.fbnet.network_space.NamedNetwork`.

    Args:
        statistics: Statistics of the space.
        space: Space of the candidates.
        names: Names in constraints, budgets and objectives; those of built-in statistics, and of
            scores, have no effect.
        num_classes: Number of outputs of the classifier.
    """
    registered = sorted({n for n in names if n in STATISTICS and n not in STATISTIC_UNITS})
    if not registered:
        return statistics
    network: Callable[[Mapping[str, Any]], Any]
    if isinstance(space, NetworkSpace):
        network = functools.partial(space.named_network, num_classes=num_classes)
    else:
        network = functools.partial(space.arch, num_classes=num_classes)
    return RegisteredStatistics(statistics, network, registered)
