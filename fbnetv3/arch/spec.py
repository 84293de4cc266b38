"""Architectures as values: an ``Arch`` is a table, a ``Block`` is one of its rows.

Both are immutable, and their ops, keys and values are checked on construction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.expand import clean_row, expand_row
from fbnetv3.arch.keys import MAX_LAYERS
from fbnetv3.arch.layer import Layer
from fbnetv3.arch.ops import get_op
from fbnetv3.arch.table import SCALARS, read_table
from fbnetv3.arch.table_yaml import dump_table, parse_yaml


@dataclass(frozen=True)
class Block:
    """A row of an architecture table: ``n`` layers of one op (paper, Table 1).

    Args:
        op: Name of the op.
        c: Output channels, used without rounding.
        stage: Number of the stage that the row belongs to.
        k: Kernel size, an odd integer.
        e: Expansion: the layer has ``c_in * e`` middle channels, rounded.
        n: Number of layers. Only the first has the stride.
        s: Stride of the first layer.
        act: Activation. None means ``hswish`` if the op has an activation.
        se: Gate of the squeeze-and-excitation, ``hsigmoid`` or ``sigmoid``; None leaves it out.
        se_ratio: Squeezed channels as a fraction of the middle channels; ``"0.25/e"`` divides the
            fraction by the expansion.
        options: Other keys of the op, for example ``{"dw_padding": 1}``; stored as a sorted tuple
            of pairs.

    Raises:
        ArchError: The op is unknown, does not accept a key or needs a missing one, or a value is
            not allowed.
    """

    op: str
    c: int
    stage: int
    k: int | None = None
    e: float | None = None
    n: int = 1
    s: int = 1
    act: str | None = None
    se: str | None = None
    se_ratio: float | str | None = None
    options: Any = ()

    def __post_init__(self) -> None:
        for name, value in _block_arguments(clean_row(self.row(), may_be_none=_ROW_ORDER)).items():
            object.__setattr__(self, name, value)

    def row(self) -> dict[str, Any]:
        """Returns the row as a flat mapping, with the defaults of the op filled in."""
        row = {f: getattr(self, f) for f in _ROW_ORDER if getattr(self, f) is not None}
        options = dict(self.options)
        clash = next((key for key in options if key in (*_ROW_ORDER, "options")), None)
        if clash is not None:
            raise ArchError("this key is a field, not an option", key=clash, value=options[clash])
        return row | options

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as a flat mapping, without options that have their default value."""
        keys = get_op(self.op).keys
        at_default = {key for key, value in self.options if value == keys[key].default}
        return {key: value for key, value in self.row().items() if key not in at_default}

    @classmethod
    def from_dict(cls, row: object) -> Block:
        """Returns the block that a flat mapping describes, such as a row of a yaml table.

        Raises:
            ArchError: The row is not a mapping, the op or a key is unknown, a key is missing, or a
                value is not allowed.
        """
        if not isinstance(row, Mapping):
            allowed = "a mapping such as {stage: 0, op: conv, k: 3, c: 16, s: 2}"
            raise ArchError("a row must be a mapping", key="row", value=row, allowed=allowed)
        return cls(**_block_arguments(clean_row(row, may_be_none=_ROW_ORDER)))

    def replace(self, **changes: Any) -> Block:
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


# The fields of a Block but for its options, in the order of a row in yaml
_ROW_ORDER = ("stage", "op", "k", "e", "c", "n", "s", "act", "se", "se_ratio")


def _block_arguments(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of :class:`Block` for a flat row."""
    fields = {key: value for key, value in row.items() if key in _ROW_ORDER}
    options = {key: value for key, value in row.items() if key not in _ROW_ORDER}
    return fields | {"options": tuple(sorted(options.items()))}


@dataclass(frozen=True)
class Arch:
    """The table of a network.

    Attributes:
        name: Name of the network.
        resolution: Side of the square input in pixels.
        blocks: Rows of the table, in order.
        width_divisor: Channel counts inside a block are rounded to multiples of this number.
            None rounds them down to integers.
        num_classes: Number of logits; 0: there is no classifier, and the output is the pooled
            features.
        in_channels: Number of channels of the images; 3 for RGB.

    Raises:
        ArchError: A value is not allowed, the table has no row or too many layers, its stages do
            not count up from 0, or groups do not divide channels.
    """

    name: str
    resolution: int
    blocks: tuple[Block, ...]
    width_divisor: int | None = 8
    num_classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        try:
            self._check()
        except ArchError as error:
            raise error.at(arch=str(self.name)) from None

    def _check(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ArchError(
                "not allowed", key="name", value=self.name, allowed="a non-empty string"
            )
        for name, key in SCALARS.items():
            value = getattr(self, name)
            if value is not None or name != "width_divisor":
                object.__setattr__(self, name, key.clean(name, value))
        if not self.blocks:
            raise ArchError("the table has no rows", key="rows", value=[], allowed="one or more")
        self._check_stages()
        count = sum(block.n for block in self.blocks)
        if count > MAX_LAYERS:
            raise ArchError(
                "too many layers", key="n", value=count, allowed=f"at most {MAX_LAYERS}"
            )
        for row, layers in enumerate(self.layers_by_row()):
            for layer in layers[:2]:  # the first layer and one repeat; the other repeats are equal
                _check_groups(layer, row)

    def _check_stages(self) -> None:
        previous = -1
        for row, block in enumerate(self.blocks):
            if not isinstance(block, Block):
                raise ArchError("not a Block", row=row, key="blocks", value=block, allowed="Block")
            stages = (0,) if row == 0 else (previous, previous + 1)
            if block.stage not in stages:
                raise ArchError(
                    "stages must count up from 0 without a gap",
                    row=row,
                    key="stage",
                    value=block.stage,
                    allowed=" or ".join(map(str, stages)),
                )
            previous = block.stage

    def layers_by_row(self) -> Iterator[tuple[Layer, ...]]:
        """Yields the layers of each row, in order."""
        c_in, layers_in_stage = self.in_channels, dict.fromkeys(range(len(self.blocks)), 0)
        for block in self.blocks:
            row = expand_row(block.row(), c_in, self.width_divisor)
            start = layers_in_stage[block.stage]
            yield tuple(
                dataclasses.replace(row.rest if i else row.first, index=start + i)
                for i in range(block.n)
            )
            layers_in_stage[block.stage] = start + block.n
            c_in = block.c

    def layers(self) -> tuple[Layer, ...]:
        """Returns all layers in order, including the repeats."""
        return self._layers

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        return tuple(layer for row in self.layers_by_row() for layer in row)

    @property
    def stage_channels(self) -> list[int]:
        """Output channels of each stage."""
        return [block.c for block in self._stage_ends()]

    @property
    def stage_strides(self) -> list[int | None]:
        """Total stride (reduction) of each stage; None from the first global pool on."""
        strides: list[int | None] = []
        total: int | None = 1
        for block in self.blocks:
            total = None if total is None or get_op(block.op).pools else total * block.s
            # a stage's first row appends its stride; a later one replaces that of the row before
            strides[block.stage :] = [total]
        return strides

    def _stage_ends(self) -> list[Block]:
        # The last row of each stage: in the dict, it replaces the stage's rows before it.
        return list({block.stage: block for block in self.blocks}.values())

    def replace(self, **changes: Any) -> Arch:
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the table as plain data; ``in_channels`` is left out if it is 3."""
        head = {f: getattr(self, f) for f in ("name", *SCALARS)}
        if self.in_channels == 3:
            del head["in_channels"]
        return head | {"rows": [block.to_dict() for block in self.blocks]}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], *, file: str | None = None) -> Arch:
        """Returns the architecture that plain data describe.

        Args:
            table: Mapping with ``name``, ``resolution`` and ``rows``, and optionally
                ``width_divisor``, ``num_classes``, ``in_channels`` and ``defaults`` (values for
                rows whose op accepts the key).
            file: Name of the file in error messages.

        Raises:
            ArchError: The table is not valid. The message names file, architecture, row, key,
                value and the allowed values.
        """
        try:
            return cls._from_dict(table)
        except ArchError as error:
            name = table.get("name") if isinstance(table, Mapping) else None
            raise error.at(file=file, arch=name and str(name)) from None

    @classmethod
    def _from_dict(cls, table: Mapping[str, Any]) -> Arch:
        rows, head = read_table(table)
        blocks = []
        for number, row in enumerate(rows):
            try:
                blocks.append(Block.from_dict(row))
            except ArchError as error:
                raise error.at(row=number) from None
        return cls(blocks=tuple(blocks), **head)

    def to_yaml(self) -> str:
        """Returns the table as yaml with one row per line."""
        return dump_table(self.to_dict())

    @classmethod
    def from_yaml(cls, text: str, *, file: str | None = None) -> Arch:
        """Returns the architecture that a yaml string describes.

        Args:
            text: Table of the architecture in yaml.
            file: Name of the file in error messages.

        Raises:
            ArchError: The text is not yaml, or not an architecture.
        """
        return cls.from_dict(parse_yaml(text, file=file), file=file)


def _check_groups(layer: Layer, row: int) -> None:
    """Checks that the groups of 1x1 convs divide their channels."""
    channels_of = {"pw_groups": (layer.c_in, layer.mid), "pwl_groups": (layer.mid, layer.c_out)}
    for key, channels in channels_of.items():
        groups = layer.options.get(key, 1)
        if channels[0] % groups or channels[1] % groups:
            raise ArchError(
                "does not divide the channels",
                row=row,
                key=key,
                value=groups,
                allowed=f"divisors of {channels[0]} and {channels[1]}",
            )
