"""Latency by a table of measured blocks, for one network or many at once; needs no torch.

A network's latency is the sum of its blocks', measured inside networks that ran (see
``fbnetv3-benchmark --latency-table``). A block whose shape was measured costs what was measured.
One between measured shapes costs what a sum of its work says: multiply-adds and elements moved
of each of its parts, with weights >= 0 fitted for each kind of block. So no block costs less than
nothing, and a longer network never less than a shorter one.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.expand import clean_row, expand_row
from fbnetv3.arch.latency_shapes import (
    NUMBERS,
    Floats,
    Kind,
    Shape,
    arch_shapes,
    frame_shape,
    head_shape,
    layer_shape,
    work,
)
from fbnetv3.arch.layer import Ints, Layer
from fbnetv3.arch.spec import Arch
from fbnetv3.io import atomic_write

FORMAT = 1
_COMMAND = "python tools/benchmark.py --latency-table {} --config-file CONFIG"
_RANGED = ("c_in", "mid", "c_out", "size")
_BITS = dict(zip(NUMBERS, (12, 13, 15, 11, 12), strict=True))  # of a key: 63 in all


@dataclass(frozen=True)
class MeasuredBlock:
    """A measured shape: ints, and its latency in milliseconds."""

    shape: Shape
    ms: float


@dataclass(frozen=True)
class LatencyTable:
    """Measured blocks of one machine.

    Attributes:
        blocks: Each shape once.
        about: The machine, the software and how it was measured, and a check against networks
            that were not in it.
    """

    blocks: Sequence[MeasuredBlock]
    about: Mapping[str, Any] = field(default_factory=dict)

    def of_arch(self, arch: Arch) -> float:
        """Returns the latency of a network in milliseconds.

        Raises:
            ArchError: A block is of no measured kind, or outside what was measured.
        """
        return float(sum(float(self._price(shape)) for shape in arch_shapes(arch)))

    def of_rows(
        self,
        rows: Iterable[Mapping[str, Any]],
        resolution: Ints,
        *,
        width_divisor: int | None = 8,
        num_classes: int = 1000,
    ) -> Floats:
        """Returns the latencies of candidates, as ``count_cost_arrays`` counts their cost.

        Args:
            rows: Mappings whose numbers may be arrays (candidates,); ``n`` may be 0 where all
                layers of a row are alike.
            resolution, width_divisor, num_classes: See there.

        Raises:
            ArchError: See :meth:`of_arch`.
        """
        size: Ints = resolution
        total: Any = self._price(frame_shape(size))
        c_in: Ints = 3
        for mapping in rows:
            row = expand_row(clean_row({**mapping, "n": 1}), c_in, width_divisor)
            n = mapping.get("n", 1)
            first, after = self._of_layer(row.first, size)
            if _alike(row.first, row.rest):
                total = total + first * n
            elif np.all(np.asarray(n) == 1):
                total = total + first
            else:
                rest, _ = self._of_layer(row.rest, after)
                total = total + first + rest * (n - 1)
            c_in, size = row.first.c_out, after
        return np.asarray(total + self._price(head_shape(c_in, size, num_classes)))

    def _of_layer(self, layer: Layer, size: Ints) -> tuple[Any, Ints]:
        """Prices a layer; one whose kernels or strides are arrays, kind by kind."""
        total: Any = 0.0
        after: Ints = size
        for kernel, stride, mask in _kinds(layer):
            shape, after = layer_shape(layer, size, kernel, stride)
            total = total + np.where(mask, self._price(shape, mask), 0.0)
        return total, after

    def _price(self, shape: Shape, mask: Any = True) -> Any:
        kind = self._kinds.get(shape.kind)
        if kind is None:
            known = "; ".join(sorted({str(k) for k in self._kinds}))
            raise ArchError(
                f"the latency table has no block of the kind {shape.kind} (it has {known}); "
                f"measure one of this space: {_COMMAND.format('FILE')}"
            )
        return kind.price(shape, mask)

    @cached_property
    def _kinds(self) -> dict[Kind, _Measured]:
        by_kind: dict[Kind, list[MeasuredBlock]] = {}
        for block in self.blocks:
            by_kind.setdefault(block.shape.kind, []).append(block)
        return {kind: _Measured(blocks) for kind, blocks in by_kind.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as json, one block a line."""
        lines = (
            json.dumps(
                vars(b.shape.kind)
                | dict(zip(NUMBERS, b.shape.numbers, strict=True))
                | {"out": b.shape.out, "ms": round(b.ms, 6)}
            )
            for b in self.blocks
        )
        text = ",\n".join(lines)
        head = json.dumps(dict(self.about), indent=1)
        with atomic_write(path) as temporary:
            temporary.write_text(
                f'{{"format": {FORMAT}, "about": {head},\n"blocks": [\n{text}\n]}}\n',
                encoding="utf-8",
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Reads a table.

        Raises:
            ArchError: The file is missing, or no latency table; the command that makes one.
        """
        file = str(path)
        make = _COMMAND.format(file)
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}, not {FORMAT}")
            blocks = [_block(row) for row in found["blocks"]]
            return cls(blocks, found["about"])
        except OSError as error:
            raise ArchError(
                f"cannot read the latency table: {error.strerror}; measure one: {make}", file=file
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArchError(
                f"no latency table ({type(error).__name__}: {error}); measure one: {make}",
                file=file,
            ) from None


def _block(row: Mapping[str, Any]) -> MeasuredBlock:
    kind = Kind(*(row[name] for name in Kind.__dataclass_fields__))
    numbers = [int(row[name]) for name in (*NUMBERS, "out")]
    ms = float(row["ms"])
    if not (np.isfinite(ms) and ms >= 0 and min(numbers) >= 0):
        raise ValueError(f"{row} is no measurement")
    return MeasuredBlock(Shape(kind, *numbers), ms)


def _alike(first: Layer, rest: Layer) -> bool:
    """Tells whether the first layer of a row is like its repeats."""
    return bool(
        np.all(np.asarray(first.s) == 1)
        and np.array_equal(first.c_in, rest.c_in)
        and first.options == rest.options
    )


def _kinds(layer: Layer) -> Iterator[tuple[int | None, int, Any]]:
    """Yields (kernel, stride, mask of the candidates that have both)."""
    kernels = [None] if layer.k is None else np.unique(layer.k).tolist()
    for k, s in itertools.product(kernels, np.unique(layer.s).tolist()):
        mask = np.equal(layer.s, s)
        yield k, s, mask if k is None else np.logical_and(mask, np.equal(layer.k, k))


class _Measured:
    """The measured shapes of one kind, and the weights of its work."""

    def __init__(self, blocks: Sequence[MeasuredBlock]) -> None:
        numbers = np.array([b.shape.numbers for b in blocks], dtype=np.int64)
        ms = np.array([b.ms for b in blocks])
        keys = _keys(tuple(numbers.T))
        order = np.argsort(keys)
        self._keys, self._ms = keys[order], ms[order]
        self._kind = blocks[0].shape.kind
        self._low, self._high = numbers.min(0), numbers.max(0)
        self._weights = _fit(np.stack([work(b.shape) for b in blocks]), ms)

    def price(self, shape: Shape, mask: Any = True) -> Any:
        """Returns milliseconds, a number or (candidates,); only those of ``mask`` are checked."""
        self._check(shape, mask)
        between = work(shape) @ self._weights
        keys = _keys(shape.numbers)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._ms[place], between)

    def _check(self, shape: Shape, mask: Any) -> None:
        for i, name in enumerate(NUMBERS):
            if name not in _RANGED:
                continue
            number = np.asarray(shape.numbers[i])
            wrong = np.logical_and((number < self._low[i]) | (number > self._high[i]), mask)
            if np.any(wrong):
                value = int(np.broadcast_to(number, wrong.shape)[wrong].flat[0])
                raise ArchError(
                    f"outside what the latency table's blocks of the kind {self._kind} were "
                    f"measured with; measure one of this space: {_COMMAND.format('FILE')}",
                    key=name,
                    value=value,
                    allowed=f"{self._low[i]} to {self._high[i]}",
                )


def _keys(numbers: tuple[Ints, ...]) -> npt.NDArray[np.int64]:
    """Returns one int64 for each shape of a kind."""
    key: Any = np.int64(0)
    for (name, bits), number in zip(_BITS.items(), numbers, strict=True):
        if np.any(np.asarray(number) >> bits):
            allowed = f"less than {1 << bits}"
            raise ArchError(
                "too large for a latency table", key=name, value=number, allowed=allowed
            )
        key = (key << bits) | np.asarray(number, dtype=np.int64)
    return np.asarray(key)


def _fit(features: Floats, ms: Floats) -> Floats:
    """Returns weights >= 0 of the features, for the smallest relative error."""
    from scipy.optimize import nnls

    inverse = 1.0 / np.maximum(ms, 1e-6)
    scaled = features * inverse[:, None]
    largest = np.maximum(scaled.max(0), 1e-12)
    weights: Floats = nnls(scaled / largest, ms * inverse)[0] / largest
    return weights
