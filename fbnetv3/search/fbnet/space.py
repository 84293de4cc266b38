"""FBNet search spaces: a table like the paper's Table 1, from a yaml, as variables of a search.

A row's ``k`` and ``e`` become one variable for its first layer and one for the rest, which
matters only where the depth exceeds 1. Ranges with the same ``tie`` are one variable.

The paper states 10^17 architectures. The table has that many (10^17.2) if each row has one
kernel, the last one with depth one expansion, and the resolution is left out. All of these are
told apart here, 10^20.5 in all: FBNetV3-B has other kernels in the first layers of its stages
than in the rest, and the resolution is searched.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3.arch import Arch, ArchError, Block, count_cost
from fbnetv3.arch.cost import count_cost_arrays
from fbnetv3.arch.latency import LatencyTable
from fbnetv3.arch.layer import Layer, round_channels
from fbnetv3.errors import did_you_mean
from fbnetv3.plain_yaml import YamlError, parse_yaml
from fbnetv3.recipe import Recipe, RecipeError
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.space_table import Ref, TableReader, resolve
from fbnetv3.search.space.space import SearchSpace

_FOLDER = Path(__file__).with_name("spaces")
_SGD = "sgd_lr_factor"
_KEYS = (
    *("name", "note", "width_divisor", "width", "resolution", "defaults", "rows", "recipe"),
    _SGD,
)
LATENCY = "latency_ms"
STATISTICS = ("macs", "params", "activations")


class FBNetSpace:
    """A space of (architecture, recipe) pairs.

    Args:
        table: the yaml's content; without ``rows`` the architecture is fixed elsewhere and only
            the recipe is searched.
        fixed: variable -> the only value it keeps.

    Raises:
        SearchError: the table has an unknown key, or a range that is none.
    """

    def __init__(self, table: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> None:
        for key in table:
            if key not in _KEYS:
                raise SearchError(f"space: no key {key!r}{did_you_mean(str(key), _KEYS)}")
        self.name = str(table.get("name", "space"))
        self._note = str(table.get("note", ""))
        self._divisor = table.get("width_divisor", 8)
        self._width, self._sgd_factor = (_positive(table, key) for key in ("width", _SGD))
        reader = TableReader()
        self._rows = reader.rows(table)
        self.resolution = reader.value("resolution", table.get("resolution", 224), "architecture")
        known = [field.name for field in dataclasses.fields(Recipe)]
        self._recipe = reader.recipe(table.get("recipe") or {}, known)
        reader.fix(fixed or {})
        self.space = SearchSpace(reader.parameters.values())
        self._check()

    @classmethod
    def from_yaml(cls, name: str, fixed: Mapping[str, Any] | None = None) -> FBNetSpace:
        """Reads a space: one of :func:`list_spaces`, or the path of a yaml.

        Raises:
            SearchError: there is no such file, or it holds no space.
        """
        path = Path(name) if Path(name).suffix in (".yaml", ".yml") else _FOLDER / f"{name}.yaml"
        try:
            table = parse_yaml(path.read_text(encoding="utf-8"))
        except OSError as error:
            known = list_spaces()
            raise SearchError(
                f"space {name!r}: cannot read {path}; give a path, or one of {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            ) from error
        except (YamlError, UnicodeDecodeError) as error:
            raise SearchError(f"space {path} is no yaml of plain values: {error}") from error
        if not isinstance(table, dict):
            raise SearchError(f"space {path} holds no KEY: VALUE pairs")
        try:
            return cls(table, fixed)
        except SearchError as error:
            raise SearchError(f"{path}: {error}") from None

    @property
    def has_architecture(self) -> bool:
        """Whether architectures are searched, not recipes only."""
        return bool(self._rows)

    def _check(self) -> None:
        """Raises a SearchError where values are none that a recipe or an architecture takes."""
        for key, value in self._recipe.items():
            for each in self._ends(value):
                try:
                    Recipe(**{"warmup_epochs": 0.0, key: each})
                except (RecipeError, TypeError) as error:
                    raise SearchError(f"the space's {key}={each!r}: {error}") from None
        for levels in (self.space.sizes * 0, self.space.sizes - 1) if self._rows else ():
            try:
                count_cost(self.arch(self.space.configs(levels[None])[0]))
            except (ArchError, KeyError, TypeError) as error:
                raise SearchError(f"the space's rows make no architecture: {error}") from None

    def _ends(self, value: Any) -> list[Any]:
        """Returns all values of a choice, both ends of a range, or the fixed value itself."""
        if not isinstance(value, Ref):
            return [value]
        parameter = self.space[value.name]
        levels = (0, parameter.size - 1) if parameter.is_ordered else range(parameter.size)
        return [parameter.value(level) for level in levels]

    def size_lines(self) -> list[str]:
        """Returns how many candidates there are, and what the table notes of it."""
        powers = [f"10^{self.space.log10_of(part):.1f}" for part in ("architecture", "recipe")]
        sizes = f"{powers[0]} architectures x {powers[1]} recipes"
        lines = [f"space {self.name}: {len(self.space)} variables, {sizes}"]
        return [*lines, self._note] if self._note else lines

    def arch(self, config: Mapping[str, Any], num_classes: int = 1000) -> Arch:
        """Builds the architecture of a candidate."""
        blocks = []
        for row in self._rows:
            n = resolve(row.n, config)
            blocks.append(Block.from_dict({**self._filled(row.first, config), "n": 1}))
            if n > 1:
                blocks.append(Block.from_dict({**self._filled(row.rest, config), "n": n - 1}))
        return Arch(
            name=self.name,
            resolution=resolve(self.resolution, config),
            blocks=tuple(blocks),
            width_divisor=self._divisor,
            num_classes=num_classes,
        )

    def recipe(self, config: Mapping[str, Any], base: Recipe) -> Recipe:
        """Returns ``base`` with the recipe of a candidate; SGD's lr is multiplied (Table 1)."""
        values = {key: resolve(value, config) for key, value in self._recipe.items()}
        recipe = dataclasses.replace(base, **values)
        if "lr" in values and recipe.optimizer == "sgd":
            return dataclasses.replace(recipe, lr=recipe.lr * self._sgd_factor)
        return recipe

    def _filled(self, row: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        filled = {key: resolve(value, config) for key, value in row.items()}
        if self._width != 1.0 and filled.get("op") != "mbpool":
            filled["c"] = round_channels(filled["c"] * self._width, self._divisor)
        return filled

    def statistics(
        self, num_classes: int, latency: LatencyTable | None = None
    ) -> FBNetStatistics | None:
        """Returns what prices candidates; None where the architecture is fixed.

        Args:
            num_classes: of the classifier.
            latency: table for the statistic ``latency_ms``; None: there is none.
        """
        return FBNetStatistics(self, num_classes, latency) if self._rows else None

    def rows_of(self, columns: Mapping[str, Any], extra: Any) -> list[dict[str, Any]]:
        """Returns table rows whose values are arrays, with ``n - 1 + extra`` further layers."""
        found = []
        for row in self._rows:
            found.append({**self._filled(row.first, columns), "n": 1})
            n = resolve(row.n, columns)
            if isinstance(row.n, Ref) or n > 1:
                found.append({**self._filled(row.rest, columns), "n": n - 1 + extra})
        return found

    def config_of(self, arch: Arch, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the config of an architecture, the inverse of :meth:`arch`.

        Args:
            arch: with the paddings that the space has (see ``fbnetv3.arch.scaling.aligned``).
            recipe: values of the recipe's variables.

        Raises:
            SearchError: it is not in the space.
        """
        config: dict[str, Any] = {**recipe}
        _note(config, self.resolution, arch.resolution)
        layers = list(arch.layers())
        for i, row in enumerate(self._rows):
            count = self._length(i, layers)
            if count < 1:
                raise SearchError(f"{arch.name} has no layers for row {i} of the space {self.name}")
            _note(config, row.n, count)
            self._note_layer(config, row.first, layers[0])
            if count > 1:
                self._note_layer(config, row.rest, layers[1])
            del layers[:count]
        found = self.space.configs(self.space.levels([config]))[0]
        if self.arch(found, arch.num_classes).layers() != arch.layers():
            raise SearchError(f"{arch.name} is not in the space {self.name}")
        return found

    def _length(self, index: int, layers: list[Layer]) -> int:
        """Returns how many of the next layers belong to a row."""
        stage = self._rows[index].first["stage"]
        later = sum(1 for row in self._rows[index + 1 :] if row.first["stage"] == stage)
        inside = [layer for layer in layers if layer.stage == stage]
        alike = 0
        while alike < len(inside) and (inside[alike].c_out, inside[alike].se) == (
            inside[0].c_out,
            inside[0].se,
        ):
            alike += 1
        return min(alike, len(inside) - later)

    def _note_layer(self, config: dict[str, Any], row: Mapping[str, Any], layer: Layer) -> None:
        _note(config, row.get("c"), layer.c_out)
        for key in ("k", "e"):
            _note(config, row.get(key), getattr(layer, key))


class FBNetStatistics:
    """MACs, params, activations and latency of candidates, for whole populations at once."""

    def __init__(
        self, space: FBNetSpace, num_classes: int, latency: LatencyTable | None = None
    ) -> None:
        self._space, self._latency = space, latency
        self._settings: dict[str, Any] = {
            "width_divisor": space._divisor,
            "num_classes": num_classes,
        }

    def __call__(self, configs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Returns the statistics of configs."""
        names = configs[0] if configs else ()
        return self.of_columns({name: np.array([c[name] for c in configs]) for name in names})

    def of_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the statistics of arrays of values by variable.

        A row cannot have 0 layers more than its first, but cost is linear in their number: that
        of ``n - 1`` is twice that of ``n`` less that of ``n + 1``, exactly.
        """
        size = len(next(iter(columns.values())))
        # both in one call: for few candidates, calls are all that costs
        twice = {name: np.tile(values, 2) for name, values in columns.items()}
        both = count_cost_arrays(*self._network(twice, np.repeat([1, 2], size)), **self._settings)
        found = {}
        for name in STATISTICS:
            one, two = np.broadcast_to(getattr(both, name), 2 * size).reshape(2, size)
            found[name] = 2 * one - two
        if self._latency is not None:
            found[LATENCY] = self._latency.of_rows(*self._network(columns, 0), **self._settings)
        return {name: np.broadcast_to(value, size) for name, value in found.items()}

    def _network(self, columns: Mapping[str, np.ndarray], extra: Any) -> tuple[Any, Any]:
        rows = self._space.rows_of(columns, extra)
        return rows, resolve(self._space.resolution, columns)


def _positive(table: Mapping[str, Any], key: str) -> float:
    value = table.get(key, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise SearchError(f"space: {key}={value!r} is not allowed; allowed: a number > 0")
    return float(value)


def list_spaces() -> list[str]:
    """Returns the names of the packaged spaces."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def _note(config: dict[str, Any], value: Any, found: Any) -> None:
    """Sets the variable that ``value`` stands for."""
    if not isinstance(value, Ref):
        return
    if config.get(value.name, found) != found:
        raise SearchError(f"tied variable {value.name} is both {config[value.name]} and {found}")
    config[value.name] = found
