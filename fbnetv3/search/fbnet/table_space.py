"""The base class of all spaces of (network, recipe) pairs, whatever their networks are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fbnetv3.arch.latency import LatencyTable
from fbnetv3.errors import did_you_mean
from fbnetv3.recipe import Recipe, RecipeError
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.detector_fields import check_detector, read_detector
from fbnetv3.search.fbnet.space_conditions import is_active
from fbnetv3.search.fbnet.space_table import Ref, TableReader, resolve
from fbnetv3.search.outcome import short
from fbnetv3.search.space.constraints import StatisticsFn
from fbnetv3.search.space.space import SearchSpace

_SGD = "sgd_lr_factor"
"""Key of the factor by which learning rates are multiplied with the optimizer ``sgd``."""
_SHARED_KEYS = ("name", "note", "recipe", _SGD)
"""Keys that the table of any space may have."""


class TableSpace(ABC):
    """A space of (network, recipe) pairs that a table describes.

    To add a kind of networks, write a subclass with the abstract methods, and choose it in
    ``space_kinds.py``.

    Args:
        table: Content of the space's yaml.
        fixed: Mapping from variable to its fixed value; see SEARCH.FIX. If None, no variable is
            fixed.

    Attributes:
        KEYS: Keys of the table that only this kind of space has.
        name: Name of the space.
        detector: Values of the group ``detector`` by field, each plain or a :class:`Ref` to a
            variable.
        digest: Sha256 of the table without its name and note. A stored search whose space has
            another digest is refused.
        space: The variables, in the form that :class:`~fbnetv3.search.jointnas.JointNAS` accepts.

    Raises:
        SearchError: The table has an unknown key, or a value or range that is invalid, or ``fixed``
            has an unknown variable or a value that is not allowed.
    """

    KEYS: ClassVar[tuple[str, ...]] = ()

    def __init__(self, table: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> None:
        if not isinstance(table, Mapping):
            raise SearchError(f"space: {short(table)} does not consist of KEY: VALUE pairs")
        allowed = (*_SHARED_KEYS, *self.KEYS)
        for key in table:
            if key not in allowed:
                raise SearchError(f"space: no key {key!r}{did_you_mean(str(key), allowed)}")
        content = {k: v for k, v in table.items() if k not in ("name", "note")}
        self.digest = hashlib.sha256(_canonical(content).encode()).hexdigest()
        self.name = str(table.get("name") or "unnamed")
        self._note = str(table.get("note", ""))
        self._sgd_factor = positive(table, _SGD)
        reader = TableReader()
        self._read_network(reader, table)
        fields = [field.name for field in dataclasses.fields(Recipe)]
        self._recipe = reader.recipe(table.get("recipe") or {}, fields)
        self.detector = read_detector(reader, table)
        reader.fix(fixed or {})
        self.space = SearchSpace(reader.parameters.values())
        self._check_recipe()
        check_detector(self.detector, reader.parameters)
        self._check_network(reader)

    @abstractmethod
    def _read_network(self, reader: TableReader, table: Mapping[str, Any]) -> None:
        """Reads the networks' part of the table, and adds its variables to the reader."""

    @abstractmethod
    def _check_network(self, reader: TableReader) -> None:
        """Checks the networks of the space, once the attribute ``space`` is set."""

    @property
    @abstractmethod
    def has_architecture(self) -> bool:
        """Whether the architecture is searched too, and not only the recipe."""

    @abstractmethod
    def network_keys(
        self, config: Mapping[str, Any], num_classes: int, arch_file: Path
    ) -> dict[str, Any]:
        """Returns the config keys of a candidate's network, such as MODEL.ARCH, and their values.

        Args:
            config: Value by variable.
            num_classes: Number of outputs of the classifier.
            arch_file: Path of a file that the space may write, and to which MODEL.ARCH may refer.
        """

    @abstractmethod
    def statistics(
        self, num_classes: int, latency: LatencyTable | None = None
    ) -> StatisticsFn | None:
        """Returns the function that computes the costs of candidates; None: all cost the same.

        Args:
            num_classes: Number of outputs of the classifier.
            latency: Measured latencies of blocks. None: there is no statistic ``latency_ms``.
        """

    @property
    def recipe_fields(self) -> Mapping[str, Any]:
        """Values of the recipe by field, each plain or a :class:`Ref` to a variable."""
        return dict(self._recipe)

    def probes(self) -> list[dict[str, Any]]:
        """Returns the candidates with the first, and with the last, level of every variable.

        Before a search, their trainings are set up in order to check the config; at least one of
        them must be set up without error.
        """
        corners = [self.space.sizes * 0, self.space.sizes - 1]
        return [self.space.configs(self.space.canonical(levels[None]))[0] for levels in corners]

    def size_lines(self) -> list[str]:
        """Returns the number of candidates as a line of text, and the table's note if any."""
        powers = [
            f"10^{self.space.log10_cardinality_of(part):.1f}" for part in ("architecture", "recipe")
        ]
        sizes = f"{powers[0]} architectures x {powers[1]} recipes"
        lines = [f"space {self.name}: {len(self.space)} variables, {sizes}"]
        return [*lines, self._note] if self._note else lines

    def recipe(self, config: Mapping[str, Any], base: Recipe) -> Recipe:
        """Returns the recipe of a candidate.

        A field whose variable has no effect, since its condition ``when`` does not hold, keeps the
        value of ``base``. With SGD, a learning rate that the space sets is multiplied by the
        table's ``sgd_lr_factor`` (paper, Table 1).

        Args:
            config: Value by variable.
            base: Recipe with the values of the fields that the space does not set.
        """
        values = {
            key: resolve(value, config)
            for key, value in self._recipe.items()
            if not isinstance(value, Ref) or is_active(value.name, self.space, config)
        }
        recipe = dataclasses.replace(base, **values)
        if "lr" in values and recipe.optimizer == "sgd":
            return dataclasses.replace(recipe, lr=recipe.lr * self._sgd_factor)
        return recipe

    def _check_recipe(self) -> None:
        for key, value in self._recipe.items():
            for setting in self._extremes(value):
                try:
                    Recipe(**{"warmup_epochs": 0.0, key: setting})
                except (RecipeError, TypeError) as error:
                    raise SearchError(f"the space's {key}={setting!r}: {error}") from None

    def _extremes(self, value: Any) -> list[Any]:
        """Returns all values of a choice, both ends of a range, or the fixed value itself."""
        if not isinstance(value, Ref):
            return [value]
        parameter = self.space[value.name]
        levels = (0, parameter.size - 1) if parameter.is_ordered else range(parameter.size)
        return [parameter.value(level) for level in levels]


def positive(table: Mapping[str, Any], key: str) -> float:
    """Returns a factor of a table, 1.0 if it is missing.

    Raises:
        SearchError: The value is not a finite number above 0.
    """
    value = table.get(key, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise SearchError(f"space: {key}={value!r} is not allowed; allowed: a number > 0")
    return float(value)


def _canonical(values: Any) -> str:
    """Returns a table as text that does not depend on the order of keys."""
    return json.dumps(values, sort_keys=True, default=str)
