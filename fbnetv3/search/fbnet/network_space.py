"""Spaces over the arguments of a network: ``timm/NAME``, ``torchvision/NAME`` or a registered one.

The value of an argument is plain, a variable, or a list of these. A variable in a list is named
after its position: ``ARGUMENT_1``, ``ARGUMENT_2`` and so on. A candidate's network is a name with
arguments, such as ``timm/resnet18?layers=[1,2,1,1]``, and trains, exports and resumes like any
other name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3.arch import ArchError
from fbnetv3.arch.latency import LatencyTable
from fbnetv3.arch.library_names import DEFAULT_RESOLUTION, format_name, is_library_name, parse_query
from fbnetv3.search.checks import as_whole
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.network_statistics import NetworkCosts, NetworkStatistics
from fbnetv3.search.fbnet.space_table import Ref, TableReader, resolve
from fbnetv3.search.fbnet.space_values import RESOLUTION, check_row_values
from fbnetv3.search.fbnet.table_space import TableSpace
from fbnetv3.search.outcome import short

_PROBES = 32
"""Number of candidates tried before a search; the network of at least one must be buildable."""
_PROBED_CLASSES = 10
"""Number of classes of the networks that are tried."""


@dataclass(frozen=True)
class NamedNetwork:
    """The network of a candidate, as it is passed to registered statistics.

    Attributes:
        name: Name with arguments, which ``fbnetv3.build_model`` builds.
        resolution: Side of the images in pixels.
        num_classes: Number of outputs of the classifier.
    """

    name: str
    resolution: int
    num_classes: int


class NetworkSpace(TableSpace):
    """A space of (arguments of a network, recipe) pairs.

    Args:
        table: Content of the space's yaml, with ``network`` and ``arguments``.
        fixed: Mapping from variable to its fixed value; see SEARCH.FIX. If None, no variable is
            fixed.
        network: Name of the network if the table has none; it may have arguments.
        side: Side of the images in pixels, unless the table sets the ``resolution``.

    Attributes:
        network: Name of the network, without arguments.

    Raises:
        SearchError: The table has an unknown key, or a value or range that is invalid; the network
            is unknown, has no arguments to search or does not take one of them; or none of 32
            candidates can be built.
    """

    KEYS = ("network", "arguments", "resolution")

    def __init__(
        self,
        table: Mapping[str, Any],
        fixed: Mapping[str, Any] | None = None,
        *,
        network: str = "",
        side: int = DEFAULT_RESOLUTION,
    ) -> None:
        self._side = as_whole("the resolution of a space", side, low=1)
        self._costs: dict[int, NetworkCosts] = {}
        super().__init__({"network": network, **table}, fixed)

    def _read_network(self, reader: TableReader, table: Mapping[str, Any]) -> None:
        name = table["network"]
        if not is_library_name(name):
            raise SearchError(
                f"space: network {short(name)} has no arguments to search; allowed: timm/NAME, "
                "torchvision/NAME, or the name of a network that --import registers"
            )
        try:
            self._arguments: dict[str, Any] = dict(parse_query(name))
        except ArchError as error:
            raise SearchError(f"space: network: {error}") from None
        self.network = name.partition("?")[0]
        arguments = table.get("arguments") or {}
        if not isinstance(arguments, Mapping) or not all(map(_is_key, arguments)):
            raise SearchError(
                f"space: arguments {short(arguments)} must be a mapping such as "
                "{depth: {range: [2, 6]}}, by names of arguments"
            )
        twice = sorted(set(arguments) & set(self._arguments))
        if twice:
            raise SearchError(
                f"space: {twice[0]} is among the arguments and in the name of the network; "
                "remove one"
            )
        self._lists: dict[str, Any] = {}  # the choices that are lists, by their text
        for key, value in arguments.items():
            self._arguments[key] = self._read(reader, str(key), value)
        self._resolution = reader.value("resolution", table.get("resolution"), "architecture")

    def _read(self, reader: TableReader, name: str, value: Any) -> Any:
        """Returns the value of an argument, with a reference in the place of each variable."""
        if isinstance(value, list):
            return [self._read(reader, f"{name}_{i}", item) for i, item in enumerate(value, 1)]
        if not isinstance(value, dict):
            return value
        choices = value.get("choices")
        if isinstance(choices, list):
            value = {**value, "choices": [self._as_choice(choice) for choice in choices]}
        return reader.value(name, value, "architecture")

    def _as_choice(self, choice: Any) -> Any:
        """Returns a choice; a list becomes its text, since the values of variables are plain."""
        if not isinstance(choice, list):
            return choice
        text = str(choice).replace(" ", "").replace("'", "")
        self._lists[text] = choice
        return text

    def _check_network(self, reader: TableReader) -> None:
        sides = {"resolution": self._resolution}
        if isinstance(self._resolution, Ref):
            parameters = {"resolution": self.space[self._resolution.name]}
            check_row_values(None, parameters, {"resolution": RESOLUTION})
        elif self._resolution is not None:
            as_whole("space: resolution", sides["resolution"], low=1)
        self._probe = self._first_network()

    def _first_network(self) -> dict[str, Any]:
        """Returns a candidate whose network can be built: a corner of the space, or a random one.

        Raises:
            SearchError: None of 32 candidates can be built; the message has the first reason.
        """
        random = np.random.default_rng(0)
        sizes = self.space.sizes
        draws = random.integers(0, sizes, (_PROBES - 2, len(self.space)))
        levels = self.space.canonical(np.concatenate([[sizes * 0, sizes - 1], draws]))
        configs = self.space.configs(levels)
        costs = NetworkCosts(_PROBED_CLASSES)
        for config in configs:
            if isinstance(costs.of(self.network_name(config), self.side(config)), tuple):
                return config
        name, side = self.network_name(configs[0]), self.side(configs[0])
        raise SearchError(
            f"none of {len(configs)} networks of the space can be built; {name} at {side} px: "
            f"{costs.of(name, side)}"
        )

    @property
    def has_architecture(self) -> bool:
        """Whether arguments or the resolution are searched too, and not only the recipe."""
        return bool(self.space.indices_of_part("architecture"))

    def probes(self) -> list[dict[str, Any]]:
        """Returns a candidate whose network can be built."""
        return [self._probe]

    def network_name(self, config: Mapping[str, Any]) -> str:
        """Returns the name of a candidate's network, with its arguments.

        An argument whose value is None is left out: the network then has its default.

        Args:
            config: Value by variable.

        Raises:
            SearchError: An argument has a value that cannot be part of a name.
        """
        values = {key: self._resolved(value, config) for key, value in self._arguments.items()}
        try:
            return format_name(self.network, {k: v for k, v in values.items() if v is not None})
        except ArchError as error:
            raise SearchError(f"space: arguments: {error}") from None

    def named_network(self, config: Mapping[str, Any], num_classes: int) -> NamedNetwork:
        """Returns a candidate's network as it is passed to registered statistics.

        Args:
            config: Value by variable.
            num_classes: Number of outputs of the classifier.

        Raises:
            SearchError: An argument has a value that cannot be part of a name.
        """
        return NamedNetwork(self.network_name(config), self.side(config), num_classes)

    def _resolved(self, value: Any, config: Mapping[str, Any]) -> Any:
        if isinstance(value, list):
            return [self._resolved(item, config) for item in value]
        plain = resolve(value, config)
        return self._lists.get(plain, plain) if isinstance(plain, str) else plain

    def side(self, config: Mapping[str, Any]) -> int:
        """Returns the side of a candidate's images in pixels.

        Args:
            config: Value by variable.
        """
        return int(resolve(self._resolution, config) or self._side)

    def network_keys(
        self, config: Mapping[str, Any], num_classes: int, arch_file: Path
    ) -> dict[str, Any]:
        keys = {
            "MODEL.ARCH": self.network_name(config),
            "MODEL.ARCH_VARIANT": "",
            "MODEL.WIDTH": 1.0,
            "MODEL.DEPTH": 1.0,
        }
        return keys if self._resolution is None else keys | {"INPUT.RESOLUTION": self.side(config)}

    def statistics(
        self, num_classes: int, latency: LatencyTable | None = None
    ) -> NetworkStatistics | None:
        """Returns the function that counts the costs of candidates.

        Args:
            num_classes: Number of outputs of the classifier.
            latency: Must be None, since latency tables are for FBNets.

        Returns:
            The function; None if the space does not search the architecture.

        Raises:
            SearchError: ``latency`` is not None.
        """
        if latency is not None:
            raise SearchError(
                f"SEARCH.LATENCY_TABLE has the latencies of FBNets, not of {self.network}; set it "
                "to '', and bound macs, params or activations"
            )
        if not self.has_architecture:
            return None
        return NetworkStatistics(self.network_name, self.side, self.costs(num_classes))

    def costs(self, num_classes: int) -> NetworkCosts:
        """Returns the costs of networks with ``num_classes`` outputs, counted when first needed.

        Args:
            num_classes: Number of outputs of the classifier.
        """
        return self._costs.setdefault(num_classes, NetworkCosts(num_classes))

    def size_lines(self) -> list[str]:
        """Returns the network and the number of candidates as text, and the table's note if any."""
        first, *rest = super().size_lines()
        return [f"{first}, of the network {self.network}", *rest]


def _is_key(key: object) -> bool:
    return isinstance(key, str) and key.isidentifier()
