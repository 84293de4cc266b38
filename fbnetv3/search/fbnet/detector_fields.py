"""The group ``detector`` in the yaml of a space: keys for what is neither backbone nor recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fbnetv3.errors import did_you_mean
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.space_table import Ref, TableReader
from fbnetv3.search.outcome import short
from fbnetv3.search.space.space import Parameter


@dataclass(frozen=True)
class DetectorField:
    """A field of the group ``detector``.

    Attributes:
        key: Config key that the field sets.
        kind: ``int`` or ``float``.
        part: ``architecture`` or ``recipe``, the part of a candidate that the field belongs to.
        low: Smallest allowed value.
        high: Largest allowed value.
    """

    key: str
    kind: str
    part: str
    low: float
    high: float = math.inf


FIELDS = {
    "fpn_channels": DetectorField("MODEL.FPN.OUT_CHANNELS", "int", "architecture", 1),
    "head_convs": DetectorField("MODEL.RETINANET.NUM_CONVS", "int", "architecture", 1),
    "focal_alpha": DetectorField("MODEL.RETINANET.FOCAL_LOSS_ALPHA", "float", "recipe", 0, 1),
    "focal_gamma": DetectorField("MODEL.RETINANET.FOCAL_LOSS_GAMMA", "float", "recipe", 0),
    "smooth_l1_beta": DetectorField("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", "float", "recipe", 0),
    "iterations": DetectorField("SOLVER.MAX_ITER", "int", "recipe", 1),
    "anchor_scale": DetectorField("MODEL.ANCHOR_GENERATOR.SIZES", "float", "recipe", 1e-3, 1e3),
}
"""Fields of the group. The config's anchor sizes are multiplied by ``anchor_scale``.

The value of any other field replaces the value of its config key.
"""


def read_detector(reader: TableReader, table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the group ``detector`` by field, each plain or a :class:`Ref`.

    Args:
        reader: Reader of the table, which collects the variables.
        table: Content of the space's yaml.

    Raises:
        SearchError: The group is not a mapping, a field is unknown, or a range is invalid.
    """
    values = table.get("detector") or {}
    if not isinstance(values, Mapping):
        raise SearchError(
            f"detector must be a mapping such as {{fpn_channels: 64}}, not {short(values)}"
        )
    for name in values:
        if name not in FIELDS:
            raise SearchError(f"detector has no key {name!r}{did_you_mean(str(name), FIELDS)}")
    return {name: _value(reader, name, value) for name, value in values.items()}


def _value(reader: TableReader, name: str, value: Any) -> Any:
    field = FIELDS[name]
    bounds = value.get("range") if isinstance(value, dict) else None
    if field.kind == "float" and isinstance(bounds, list) and len(bounds) == 2:
        bounds = [float(b) if type(b) is int else b for b in bounds]  # [0, 1] is continuous
        value = {**value, "range": bounds}
    return reader.value(name, value, field.part)


def check_detector(values: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> None:
    """Checks the smallest and the largest value of each field, or all of its choices.

    Args:
        values: Values by field, as :func:`read_detector` returns them.
        parameters: Variables of the space by name.

    Raises:
        SearchError: A value has the wrong type or is out of range.
    """
    for name, value in values.items():
        field = FIELDS[name]
        for setting in _extremes(value, parameters):
            types = (int,) if field.kind == "int" else (int, float)
            is_number = isinstance(setting, types) and not isinstance(setting, bool)
            if not is_number or not field.low <= setting <= field.high:
                number = "whole numbers" if field.kind == "int" else "numbers"
                limit = f"{field.low:g} or more"
                if field.high < math.inf:
                    limit = f"{field.low:g} to {field.high:g}"
                raise SearchError(
                    f"the space's detector {name}={short(setting)} is not allowed; allowed: "
                    f"{number}, {limit}"
                )


def _extremes(value: Any, parameters: Mapping[str, Parameter]) -> list[Any]:
    """Returns both ends of a range, all choices, or the plain value itself."""
    if not isinstance(value, Ref):
        return [value]
    parameter = parameters[value.name]
    levels = (0, parameter.size - 1) if parameter.is_ordered else range(parameter.size)
    return [parameter.value(level) for level in levels]
