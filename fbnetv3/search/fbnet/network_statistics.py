"""The costs of candidates that are networks of a library or a user, counted one by one."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3.arch import ArchError
from fbnetv3.errors import first_line
from fbnetv3.io import atomic_write, read_text
from fbnetv3.modeling.counting import count_network
from fbnetv3.registries import COUNTED
from fbnetv3.user_code import UserCode

_log = logging.getLogger(__name__)
_PACKAGES = ("torch", "torchvision", "timm")
_TIMED, _LONG = 32, 60.0
"""Number of networks after which the remaining time is estimated.

The second number is the remaining time, in seconds, above which a warning is logged.
"""
_SAVE_EVERY = 200
"""Number of networks that are counted between two writes of the file, at most."""

Cost = tuple[int, ...]
"""The costs of a network in the order of :data:`~fbnetv3.registries.COUNTED`."""


class NetworkCosts:
    """Costs by name of the network and side of the image, each counted once.

    They are kept in memory and, after :meth:`keep_in`, in a file.

    Args:
        num_classes: Number of outputs of the classifier.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._known: dict[str, Cost | str] = {}
        self._file: Path | None = None
        self._unsaved = 0

    def of(self, name: str, side: int) -> Cost | str:
        """Returns the multiply-adds, parameters and activations of a network.

        Args:
            name: Name of the network, with arguments.
            side: Side of the image in pixels.

        Returns:
            The costs, or the reason why there are none: the network cannot be built with these
            arguments, or cannot process such an image.
        """
        key = f"{name} at {side} px"
        if key not in self._known:
            self._known[key] = self._count(name, side)
            self._unsaved += 1
            if self._unsaved >= _SAVE_EVERY:
                self.save()
        return self._known[key]

    def has(self, name: str, side: int) -> bool:
        """Returns whether a network was counted already, even if it cannot be built or run."""
        return f"{name} at {side} px" in self._known

    def refusal_lines(self) -> list[str]:
        """Returns a line about the networks that cannot be built or run; [] if there are none."""
        reasons = {key: value for key, value in self._known.items() if isinstance(value, str)}
        if not reasons:
            return []
        network, reason = next(iter(reasons.items()))
        share = f"{len(reasons)} of {len(self._known)} networks"
        return [f"{share} cannot be built or run and are not proposed, such as {network}: {reason}"]

    def _count(self, name: str, side: int) -> Cost | str:
        try:
            cost = count_network(name, self._num_classes, side)
        except ArchError as error:
            return first_line(error)
        return tuple(getattr(cost, statistic) for statistic in COUNTED)

    def read_file(self, path: Path) -> None:
        """Adds the costs of a file that :meth:`save` wrote.

        A file of other versions of torch, torchvision or timm, of other imported code or of another
        number of classes is ignored. So is a damaged or unreadable one, with a warning.

        Args:
            path: Path of the json file, which need not exist.
        """
        try:
            content = json.loads(read_text(path, "record")) if path.exists() else {}
            if content.get("of") == self._identity():
                self._known = _checked(content["costs"]) | self._known
        except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
            _log.warning("%s is damaged and is ignored: costs are counted again", path)

    def keep_in(self, path: Path) -> None:
        """Writes the costs to a json file: now, after every 200 new ones, and on :meth:`save`.

        Nothing is written while no cost is new.
        """
        self._file = path
        self.save()

    def save(self) -> None:
        """Writes all costs to the file, if there is one and some costs are new."""
        if self._file is None or not self._unsaved:
            return
        with atomic_write(self._file) as temporary:
            content = {"of": self._identity(), "costs": self._known}
            temporary.write_text(json.dumps(content, indent=0), encoding="utf-8")
        self._unsaved = 0

    def _identity(self) -> dict[str, Any]:
        """Returns what the costs depend on besides the names of the networks."""
        code = {module.label: module.sha256 for module in UserCode().modules}
        packages = {name: _version(name) for name in _PACKAGES}
        return {"classes": self._num_classes, "packages": packages, "imports": code}


class NetworkStatistics:
    """Computes MACs, parameters and activations of candidates.

    They are NaN if the network cannot be built, or cannot process images of its size.

    Args:
        name: Function from a candidate's values by variable to the name of its network.
        side: Function from a candidate's values by variable to the side of its images in pixels.
        costs: Costs by network.

    Attributes:
        may_refuse: True: candidates whose statistics are NaN are not in the space.
        is_slow: True: a search should compute statistics of few candidates.
        costs: Costs by network, as passed.
    """

    may_refuse = True
    is_slow = True

    def __init__(
        self,
        name: Callable[[Mapping[str, Any]], str],
        side: Callable[[Mapping[str, Any]], int],
        costs: NetworkCosts,
    ) -> None:
        self._name, self._side, self.costs = name, side, costs

    def __call__(self, configs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Returns each statistic of a list of configs as an array of shape (candidates,)."""
        networks = [(self._name(config), self._side(config)) for config in configs]
        self._count_new([n for n in dict.fromkeys(networks) if not self.costs.has(*n)])
        rows = []
        for network in networks:
            cost = self.costs.of(*network)
            rows.append((math.nan,) * len(COUNTED) if isinstance(cost, str) else cost)
        table = np.array(rows, dtype=np.float64).reshape(len(rows), len(COUNTED))
        return {statistic: table[:, i] for i, statistic in enumerate(COUNTED)}

    def _count_new(self, networks: list[tuple[str, int]]) -> None:
        """Counts networks; warns if this takes long."""
        start = time.monotonic()
        for i, network in enumerate(networks):
            self.costs.of(*network)
            if i + 1 == _TIMED:
                left = (time.monotonic() - start) / _TIMED * (len(networks) - _TIMED)
                if left > _LONG:
                    _log.warning(
                        "counting the costs of %d networks takes about %.0f more minutes; a lower "
                        "SEARCH.POOL_SIZE takes less",
                        len(networks),
                        left / 60,
                    )
        self.costs.save()


def _checked(costs: Any) -> dict[str, Cost | str]:
    """Returns the costs of a file.

    Raises:
        ValueError: A value is neither a text nor a list of whole numbers, one per statistic, from 0
            to 2**53 - 1.
    """
    checked: dict[str, Cost | str] = {}
    for key, value in costs.items():
        is_cost = isinstance(value, list) and len(value) == len(COUNTED)
        if is_cost and all(type(n) is int and 0 <= n < 2**53 for n in value):
            checked[key] = tuple(value)
        elif isinstance(value, str):
            checked[key] = value
        else:
            raise ValueError(key)
    return checked


def _version(package: str) -> str:
    """Returns the version of a package; "" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
