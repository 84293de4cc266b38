"""FBNet search spaces: a table like the paper's Table 1, read from a yaml, as search variables.

A range for a key of a row, such as the kernel ``k`` or the expansion ``e``, becomes two variables:
one for the row's first layer, and one for its other layers, which matters only if the row has more
than one layer. All layers of a row have the same channels ``c``. Ranges with the same ``tie`` share
one variable.

The paper counts 10^17 architectures: all layers of a row have the same kernel, all layers of the
last row with more than one layer have the same expansion, and the resolution is fixed. The space
``fbnetv3`` has none of these limits, which gives 10^20.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3.arch import Arch, ArchError, Block, count_cost
from fbnetv3.arch.cost import count_cost_arrays
from fbnetv3.arch.expand import with_accepted_keys
from fbnetv3.arch.latency import LatencyTable
from fbnetv3.arch.layer import round_channels
from fbnetv3.arch.ops import get_op
from fbnetv3.io import atomic_write
from fbnetv3.registries import COUNTED, LATENCY
from fbnetv3.search.checks import as_whole
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.space_file import list_spaces, naming_source, read_space_table
from fbnetv3.search.fbnet.space_table import Ref, TableReader, resolve
from fbnetv3.search.fbnet.space_values import RESOLUTION, check_ops, check_row_values
from fbnetv3.search.fbnet.table_space import TableSpace, positive

__all__ = ["FBNetSpace", "FBNetStatistics", "list_spaces"]


class FBNetSpace(TableSpace):
    """A space of (FBNet, recipe) pairs.

    Args:
        table: Content of the space's yaml. Without ``rows``, candidates have the architecture of
            the search's config.
        fixed: Mapping from variable to its fixed value; see SEARCH.FIX. If None, no variable is
            fixed.

    Attributes:
        resolution: Image side in pixels, or the :class:`Ref` of the variable that holds it.
        sets_resolution: Whether the table gives the resolution.

    Raises:
        SearchError: The table has an unknown key, or a value or range that is invalid.
    """

    KEYS = ("width_divisor", "width", "resolution", "defaults", "rows", "detector")

    def _read_network(self, reader: TableReader, table: Mapping[str, Any]) -> None:
        divisor = table.get("width_divisor", 8)
        is_set = divisor is not None  # null: channels are rounded down
        self._divisor = as_whole("space: width_divisor", divisor, low=1) if is_set else None
        self._width = positive(table, "width")
        self._rows = reader.rows(table)
        self.resolution = reader.value("resolution", table.get("resolution", 224), "architecture")
        self.sets_resolution = "resolution" in table

    def _check_network(self, reader: TableReader) -> None:
        self._rows = [row.with_constants(reader.parameters) for row in self._rows]
        self._check_values()
        self._check_rows()

    @classmethod
    def from_yaml(cls, name: str, fixed: Mapping[str, Any] | None = None) -> FBNetSpace:
        """Reads a space from a yaml.

        Args:
            name: One of :func:`list_spaces`, or the path of a yaml.
            fixed: Mapping from variable to its fixed value; see SEARCH.FIX. If None, no variable is
                fixed.

        Raises:
            SearchError: The file cannot be read, or does not describe a space.
        """
        path, table = read_space_table(name)
        with naming_source(path):
            return cls(table, fixed)

    @property
    def has_architecture(self) -> bool:
        """Whether the table has rows. If not, candidates have the architecture of the config."""
        return bool(self._rows)

    @property
    def depth_names(self) -> set[str]:
        """Names of the variables that are numbers of layers (``n`` of a row)."""
        return {row.n.name for row in self._rows if isinstance(row.n, Ref)}

    def _check_values(self) -> None:
        """Checks that the keys of the table accept all values of their variables."""
        for row in self._rows:
            for part in ({**row.first, "n": row.n}, row.rest):
                refs = {k: self.space[v.name] for k, v in part.items() if isinstance(v, Ref)}
                try:
                    check_ops({**part, **refs})
                except ArchError as error:
                    raise SearchError(
                        f"the rows of the space do not describe an architecture: {error}"
                    ) from None
        if isinstance(self.resolution, Ref):
            sides = {"resolution": self.space[self.resolution.name]}
            check_row_values(None, sides, {"resolution": RESOLUTION})

    def _check_rows(self) -> None:
        """Checks the architecture with all variables at their first value, then at their last."""
        for levels in (self.space.sizes * 0, self.space.sizes - 1) if self._rows else ():
            try:
                count_cost(self.arch(self.space.configs(levels[None])[0]))
            except (ArchError, KeyError, TypeError) as error:
                raise SearchError(
                    f"the rows of the space do not describe an architecture: {error}"
                ) from None

    def arch(self, config: Mapping[str, Any], num_classes: int = 1000) -> Arch:
        """Returns the architecture of a candidate.

        Args:
            config: Value by variable.
            num_classes: Number of outputs of the classifier.
        """
        blocks = []
        for row in self._rows:
            n = resolve(row.n, config)
            blocks.append(Block.from_dict({**self._fields(row.first, config), "n": 1}))
            if n > 1:
                blocks.append(Block.from_dict({**self._fields(row.rest, config), "n": n - 1}))
        return Arch(
            name=self.name,
            resolution=resolve(self.resolution, config),
            blocks=tuple(blocks),
            width_divisor=self._divisor,
            num_classes=num_classes,
        )

    def network_keys(
        self, config: Mapping[str, Any], num_classes: int, arch_file: Path
    ) -> dict[str, Any]:
        """Returns the config keys of a candidate's network; {} if the table has no rows.

        Args:
            config: Value by variable.
            num_classes: Number of outputs of the classifier.
            arch_file: Path of the yaml to which the architecture is written.
        """
        if not self.has_architecture:
            return {}
        arch = self.arch(config, num_classes)
        with atomic_write(arch_file) as temporary:
            temporary.write_text(arch.to_yaml(), encoding="utf-8")
        return {
            "MODEL.ARCH": str(arch_file.resolve()),
            "MODEL.ARCH_VARIANT": "",
            "MODEL.WIDTH": 1.0,
            "MODEL.DEPTH": 1.0,
            "INPUT.RESOLUTION": arch.resolution,
        }

    def _fields(self, row: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of a layer with plain values, and channels times the table's width."""
        fields = {key: resolve(value, config) for key, value in row.items()}
        if isinstance(row.get("op"), Ref) and np.ndim(fields["op"]) == 0:
            fields = with_accepted_keys(fields)
        # Channels of pooling ops are not scaled. Either all ops of a row pool or none does.
        if self._width != 1.0 and not get_op(np.ravel(np.asarray(fields.get("op")))[0]).pools:
            fields["c"] = round_channels(fields["c"] * self._width, self._divisor)
        return fields

    def statistics(
        self, num_classes: int, latency: LatencyTable | None = None
    ) -> FBNetStatistics | None:
        """Returns the function that computes the cost of candidates.

        Args:
            num_classes: Number of outputs of the classifier.
            latency: Measured latencies for the statistic ``latency_ms``. If None, the statistic is
                left out.

        Returns:
            The function. None if the table has no rows: all classifiers then cost the same.

        Raises:
            SearchError: ``num_classes`` is not a whole number above 0.
        """
        if not self._rows:
            return None
        num_classes = as_whole("num_classes", num_classes, low=1)
        return FBNetStatistics(self, self._divisor, num_classes, latency)

    def rows_of(self, columns: Mapping[str, Any], extra: object) -> list[dict[str, Any]]:
        """Returns the rows of many architectures at once, with arrays as values.

        A row of the space becomes two rows: one for its first layer, one for its other layers.

        Args:
            columns: Array of values by variable, each of shape (candidates,).
            extra: Number of layers to add to each row of the space, except those that always have
                one layer: a scalar, or an array of shape (candidates,). See
                :meth:`FBNetStatistics.of_columns`.
        """
        rows = []
        for row in self._rows:
            rows.append({**self._fields(row.first, columns), "n": 1})
            n = resolve(row.n, columns)
            if isinstance(row.n, Ref) or n > 1:
                rows.append({**self._fields(row.rest, columns), "n": n - 1 + extra})
        return rows


class FBNetStatistics:
    """Computes MACs, parameters, activations and latency of whole populations at once.

    Args:
        space: Space of the candidates.
        width_divisor: Divisor to whose multiples channel counts are rounded. None: they are
            rounded down to integers.
        num_classes: Number of outputs of the classifier.
        latency: Measured latencies. If None, the statistic ``latency_ms`` is left out.
    """

    def __init__(
        self,
        space: FBNetSpace,
        width_divisor: int | None,
        num_classes: int,
        latency: LatencyTable | None = None,
    ) -> None:
        self._space, self._latency = space, latency
        self._settings: dict[str, Any] = {
            "width_divisor": width_divisor,
            "num_classes": num_classes,
        }

    def __call__(self, configs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Returns each statistic of a list of configs as an array of shape (candidates,)."""
        names = configs[0] if configs else ()
        return self.of_columns({name: np.array([c[name] for c in configs]) for name in names})

    def of_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns each statistic of the candidates as an array of shape (candidates,).

        ``count_cost_arrays`` cannot express a row whose ``rest`` is empty (n = 1). Since cost is
        linear in the number of layers, it is extrapolated: cost(n) = 2 cost(n + 1) - cost(n + 2).

        Args:
            columns: Array of values by variable, each of shape (candidates,).
        """
        size = len(next(iter(columns.values())))
        # One call for n + 1 and n + 2 layers: for few candidates, the overhead per call dominates.
        doubled = {name: np.tile(values, 2) for name, values in columns.items()}
        cost = count_cost_arrays(*self._network(doubled, np.repeat([1, 2], size)), **self._settings)
        statistics = {}
        for name in COUNTED:
            costs = np.broadcast_to(getattr(cost, name), 2 * size)
            cost_plus_1, cost_plus_2 = costs.reshape(2, size)
            statistics[name] = 2 * cost_plus_1 - cost_plus_2
        if self._latency is not None:
            rows, resolution = self._network(columns, 0)
            statistics[LATENCY] = self._latency.of_rows(rows, resolution, **self._settings)
        return {name: np.broadcast_to(value, size) for name, value in statistics.items()}

    def _network(self, columns: Mapping[str, np.ndarray], extra: Any) -> tuple[Any, Any]:
        rows = self._space.rows_of(columns, extra)
        return rows, resolve(self._space.resolution, columns)
