"""FBNet search spaces: a table like the paper's Table 1, from a yaml, as variables of a search.

A row's ``k`` and ``e`` become one variable for its first layer and one for the rest, which
matters only where the depth exceeds 1. Ranges with the same ``tie`` are one variable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fbnetv3.arch import Arch, Block
from fbnetv3.arch.cost import count_cost_arrays
from fbnetv3.arch.layer import Layer, round_channels
from fbnetv3.errors import did_you_mean
from fbnetv3.recipe import Recipe
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space import Choice, FloatRange, IntRange, Parameter, SearchSpace, When

_FOLDER = Path(__file__).with_name("spaces")
_HEAD = ("name", "width_divisor", "width", "resolution", "defaults", "rows", "recipe")
_SGD = "sgd_lr_factor"
STATISTICS = ("macs", "params", "activations")


@dataclass(frozen=True)
class Row:
    """A row of the table: fixed values, and the names of variables where there are some.

    Attributes:
        first, rest: key -> value or :class:`Ref`, of the first layer and of the others.
        n: depth: a number or a Ref.
    """

    first: dict[str, Any]
    rest: dict[str, Any]
    n: Any


@dataclass(frozen=True)
class Ref:
    """Stands for the value of a variable."""

    name: str


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
            if key not in (*_HEAD, _SGD):
                raise SearchError(f"space: no key {key!r}{did_you_mean(str(key), (*_HEAD, _SGD))}")
        self.name = str(table.get("name", "space"))
        self._divisor = table.get("width_divisor", 8)
        self._width = float(table.get("width", 1.0))
        self._sgd_factor = float(table.get(_SGD, 1.0))
        self._parameters: dict[str, Parameter] = {}
        self._rows = self._read_rows(table)
        self.resolution = self._value("resolution", table.get("resolution", 224), "architecture")
        self._recipe = self._read_recipe(table.get("recipe") or {})
        self._fix(dict(fixed or {}))
        self.space = SearchSpace(self._parameters.values())

    @classmethod
    def from_yaml(cls, name: str, fixed: Mapping[str, Any] | None = None) -> FBNetSpace:
        """Reads a space: one of :func:`list_spaces`, or the path of a yaml.

        Raises:
            SearchError: there is no such file, or it holds no space.
        """
        path = Path(name) if Path(name).suffix in (".yaml", ".yml") else _FOLDER / f"{name}.yaml"
        try:
            table = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            known = list_spaces()
            raise SearchError(
                f"space {name!r}: cannot read {path}; give a path, or one of {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            ) from error
        except yaml.YAMLError as error:
            raise SearchError(f"space {path} is no yaml: {' '.join(str(error).split())}") from error
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

    def _read_rows(self, table: Mapping[str, Any]) -> list[Row]:
        rows = table.get("rows") or []
        stages = [row.get("stage") for row in rows]
        found = []
        for i, row in enumerate(rows):
            letter = "abcdefgh"[stages[:i].count(row.get("stage"))]
            several = stages.count(row.get("stage")) > 1
            name = f"stage{row.get('stage')}{letter if several else ''}"
            found.append(self._read_row(name, dict(row), table.get("defaults") or {}))
        return found

    def _read_row(self, name: str, row: dict[str, Any], defaults: Mapping[str, Any]) -> Row:
        n = self._value(f"{name}_n", row.pop("n", 1), "architecture")
        has_rest = isinstance(n, Ref) or n > 1
        deep = (When(n.name, ">", 1),) if isinstance(n, Ref) else ()
        takes = ("act", "se_ratio") if row.get("se") else ("act",)
        first: dict[str, Any] = {k: v for k, v in defaults.items() if k in takes}
        rest = dict(first)
        for key, value in row.items():
            parts = value if isinstance(value, dict) and "first" in value else {"first": value}
            first[key] = self._value(f"{name}_{key}", parts["first"], "architecture")
            again = parts.get("rest", value)
            if not has_rest or key in ("c", "s"):
                rest[key] = first[key]
            else:
                rest[key] = self._value(f"{name}_{key}_rest", again, "architecture", deep)
        rest["s"] = 1
        return Row(first, rest, n)

    def _read_recipe(self, values: Mapping[str, Any]) -> dict[str, Any]:
        known = [f.name for f in dataclasses.fields(Recipe)]
        for key in values:
            if key not in known:
                raise SearchError(f"recipe has no key {key!r}{did_you_mean(str(key), known)}")
        return {key: self._value(key, value, "recipe") for key, value in values.items()}

    def _value(self, name: str, value: Any, part: str, active_if: tuple[When, ...] = ()) -> Any:
        """Returns a plain value, or a Ref to the variable that a mapping describes."""
        if not isinstance(value, dict):
            return value
        name = value.get("tie", name)
        parameter = _parameter(name, value, part, active_if)
        known = self._parameters.get(name)
        if known is None:
            self._parameters[name] = parameter
        elif dataclasses.replace(known, active_if=()) != dataclasses.replace(  # type: ignore[type-var]
            parameter, active_if=()
        ):
            raise SearchError(
                f"{name}: tied ranges differ: {known.describe()}, {parameter.describe()}"
            )
        else:
            # active where any of its rows uses it; always, where one of them always does
            both = (*known.active_if, *active_if) if known.active_if and active_if else ()
            del self._parameters[name]  # to the end: after every depth that it depends on
            self._parameters[name] = dataclasses.replace(  # type: ignore[type-var]
                known, active_if=both
            )
        return Ref(name)

    def _fix(self, fixed: dict[str, Any]) -> None:
        for name, value in fixed.items():
            if name not in self._parameters:
                close = did_you_mean(name, self._parameters)
                raise SearchError(f"the space has no variable {name!r} to fix{close}")
            old = self._parameters[name]
            value = old.value(old.level(value))
            self._parameters[name] = Choice(name, (value,), old.part, old.active_if)

    def arch(self, config: Mapping[str, Any], num_classes: int = 1000) -> Arch:
        """Builds the architecture of a candidate."""
        blocks = []
        for row in self._rows:
            n = _resolve(row.n, config)
            blocks.append(Block.from_dict({**self._filled(row.first, config), "n": 1}))
            if n > 1:
                blocks.append(Block.from_dict({**self._filled(row.rest, config), "n": n - 1}))
        return Arch(
            name=self.name,
            resolution=_resolve(self.resolution, config),
            blocks=tuple(blocks),
            width_divisor=self._divisor,
            num_classes=num_classes,
        )

    def recipe(self, config: Mapping[str, Any], base: Recipe) -> Recipe:
        """Returns ``base`` with the recipe of a candidate; SGD's lr is multiplied (Table 1)."""
        values = {key: _resolve(value, config) for key, value in self._recipe.items()}
        recipe = dataclasses.replace(base, **values)
        if "lr" in values and recipe.optimizer == "sgd":
            return dataclasses.replace(recipe, lr=recipe.lr * self._sgd_factor)
        return recipe

    def _filled(self, row: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        filled = {key: _resolve(value, config) for key, value in row.items()}
        if self._width != 1.0 and filled.get("op") != "mbpool":
            filled["c"] = round_channels(filled["c"] * self._width, self._divisor)
        return filled

    def statistics(self, num_classes: int) -> FBNetStatistics | None:
        """Returns what prices candidates; None where the architecture is fixed."""
        return FBNetStatistics(self, num_classes) if self._rows else None

    def rows_of(self, columns: Mapping[str, Any], extra: int) -> list[dict[str, Any]]:
        """Returns table rows whose values are arrays, with ``n - 1 + extra`` further layers."""
        found = []
        for row in self._rows:
            found.append({**self._filled(row.first, columns), "n": 1})
            n = _resolve(row.n, columns)
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
    """MACs, params and activations of candidates, for whole populations at once."""

    def __init__(self, space: FBNetSpace, num_classes: int) -> None:
        self._space, self._num_classes = space, num_classes

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
        one, two = (self._cost(columns, extra) for extra in (1, 2))
        found = {name: 2 * getattr(one, name) - getattr(two, name) for name in STATISTICS}
        return {name: np.broadcast_to(value, size) for name, value in found.items()}

    def _cost(self, columns: Mapping[str, np.ndarray], extra: int) -> Any:
        return count_cost_arrays(
            self._space.rows_of(columns, extra),
            _resolve(self._space.resolution, columns),
            width_divisor=self._space._divisor,
            num_classes=self._num_classes,
        )


def list_spaces() -> list[str]:
    """Returns the names of the packaged spaces."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def _parameter(
    name: str, value: dict[str, Any], part: str, active_if: tuple[When, ...]
) -> Parameter:
    """Makes a variable of ``{choices: [...]}`` or ``{range: [low, high, step], log: bool}``."""
    unknown = set(value) - {"choices", "range", "log", "tie"}
    if unknown or ("choices" in value) == ("range" in value):
        raise SearchError(
            f"{name}: {value} is no variable; write {{choices: [3, 5]}} or "
            "{range: [low, high, step]}, with log: true or tie: NAME where wanted"
        )
    if "choices" in value:
        return Choice(name, tuple(value["choices"]), part=part, active_if=active_if)
    bounds = value["range"]
    if not isinstance(bounds, list) or len(bounds) not in (2, 3):
        raise SearchError(f"{name}: range {bounds!r} is not [low, high] or [low, high, step]")
    if any(isinstance(b, bool) or not isinstance(b, int | float) for b in bounds):
        raise SearchError(f"{name}: range {bounds!r} holds something that is no number")
    log = bool(value.get("log", False))
    if all(isinstance(b, int) for b in bounds):
        low, high, step = (*bounds, 1)[:3]
        return IntRange(name, low, high, step, log, part, active_if)
    step_or_none = bounds[2] if len(bounds) == 3 else None
    return FloatRange(name, bounds[0], bounds[1], step_or_none, log, part, active_if)


def _resolve(value: Any, config: Mapping[str, Any]) -> Any:
    return config[value.name] if isinstance(value, Ref) else value


def _note(config: dict[str, Any], value: Any, found: Any) -> None:
    """Sets the variable that ``value`` stands for."""
    if not isinstance(value, Ref):
        return
    if config.get(value.name, found) != found:
        raise SearchError(f"tied variable {value.name} is both {config[value.name]} and {found}")
    config[value.name] = found
