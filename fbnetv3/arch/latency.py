"""Latency from a table of measured blocks, for one network or for many at once, without torch.

The latency of a network is the sum over its blocks, its head, and the rest of its time (the frame,
which the table stores like a block). ``fbnetv3-benchmark --latency-table`` measures them inside
running networks. A block of a measured shape has its measured latency. For a shape between measured
ones, the latency is a linear function of the block's work (multiply-adds and moved elements of each
of its parts, see ``latency_shapes.work``). The coefficients of this function are fitted for each
kind of block (op, kernel size, stride and options) and are >= 0. Hence no block has a negative
latency, and adding a block, with the others unchanged, never makes a network faster.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.expand import Row, clean_row, expand_row, split_by_op
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
from fbnetv3.arch.retinanet_cost import RetinaNetParts
from fbnetv3.arch.retinanet_latency import head_shapes, neck_shapes
from fbnetv3.arch.spec import Arch
from fbnetv3.io import atomic_write, read_text
from fbnetv3.requires import require

FORMAT = 1  # version of the format of files
_COMMAND = "fbnetv3-benchmark --latency-table {} --config-file CONFIG"
_MAX_MS = 1e9  # larger latencies in a file are refused
# Numbers of a shape that must be inside the measured range
_RANGED = ("c_in", "mid", "c_out", "size")
# Bits of each number in the int64 key of a shape: 63 in all.
_BITS = dict(zip(NUMBERS, (12, 13, 15, 11, 12), strict=True))


@dataclass(frozen=True)
class MeasuredBlock:
    """A measured block: its shape, in ints, and its latency in milliseconds."""

    shape: Shape
    ms: float


@dataclass(frozen=True)
class LatencyTable:
    """Blocks measured on one machine.

    Attributes:
        blocks: Measured blocks; each shape occurs once.
        about: Description of the machine, the software and the measurement, and the errors of
            predictions for networks that were not used for the table.
    """

    blocks: Sequence[MeasuredBlock]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runtime(self) -> str:
        """Runtime of the measurement and its version, such as ``onnxruntime-int8 1.32.0``."""
        name, version = (self.about.get(key, "") for key in ("runtime", "runtime_version"))
        return (
            f"{name or 'torch'} {version or ('' if name else self.about.get('torch', ''))}".strip()
        )

    def of_arch(self, arch: Arch) -> float:
        """Returns the latency of a network in milliseconds.

        Raises:
            ArchError: A block is of a kind that was not measured, or outside the measured range.
        """
        return self.of_shapes(arch_shapes(arch))

    def of_shapes(self, shapes: Iterable[Shape]) -> float:
        """Returns the latency of all parts of a network in milliseconds.

        Raises:
            ArchError: A part is of a kind that was not measured, or outside the measured range.
        """
        return float(sum(float(self._block_latency(shape)) for shape in shapes))

    def of_rows(
        self,
        rows: Iterable[Mapping[str, Any]],
        resolution: Ints,
        *,
        width_divisor: int | None = 8,
        num_classes: int = 1000,
    ) -> Floats:
        """Returns the latencies of many candidates in milliseconds.

        The arguments are like those of :func:`fbnetv3.arch.count_cost_arrays`.

        Args:
            rows: Rows as flat mappings whose numbers may be arrays of shape (candidates,). The
                number of layers ``n`` may be 0, for candidates without this row, only if all
                layers of the row are equal.
            resolution: Side of the input in pixels, an int or an array of shape (candidates,).
            width_divisor: Divisor of channel counts, as in :class:`Arch`.
            num_classes: Number of logits.

        Raises:
            ArchError: A block is of a kind that was not measured, or outside the measured range.
        """
        total, c_in, size = self._of_layers(rows, resolution, width_divisor)
        return np.asarray(total + self._block_latency(head_shape(c_in, size, num_classes)))

    def of_detectors(
        self,
        rows: Iterable[Mapping[str, Any]],
        height: Ints,
        widths: Sequence[Ints],
        parts: RetinaNetParts,
        width_divisor: int | None = 8,
    ) -> Floats:
        """Returns the latencies of many RetinaNets in milliseconds.

        Args:
            rows: Rows of the backbones, as for :meth:`of_rows`.
            height: Height of the input in pixels, an int or an array of shape (candidates,).
            widths: Channels of the feature maps of strides 8, 16 and 32.
            parts: Width, depth, norms, anchors and classes of necks and heads.
            width_divisor: Divisor of channel counts, as in :class:`Arch`.

        Raises:
            ArchError: A part is of a kind that was not measured, or outside the measured range.
        """
        total, _, _ = self._of_layers(rows, height, width_divisor)
        for shape in neck_shapes(height, widths, parts):
            total = total + self._block_latency(shape)
        for shape, mask in head_shapes(height, parts):
            total = total + np.where(mask, self._block_latency(shape, mask), 0.0)
        return np.asarray(total)

    def _of_layers(
        self, rows: Iterable[Mapping[str, Any]], resolution: Ints, width_divisor: int | None
    ) -> tuple[Any, Ints, Ints]:
        """Returns the latency of frame and layers, and the channels and side of the last output.

        The frame is the part of a network's latency outside of its blocks; see :class:`Kind`.
        """
        size: Ints = resolution
        total: Any = self._block_latency(frame_shape(size))
        c_in: Ints = 3
        for mapping in rows:
            after: Ints = size
            for mask, part in split_by_op(mapping):
                row = expand_row(clean_row({**part, "n": 1}), c_in, width_divisor)
                ms, out = self._of_row(row, mapping.get("n", 1), size, mask)
                total, after = total + ms, out if mask is True else np.where(mask, out, after)
            c_in, size = mapping["c"], after
        return total, c_in, size

    def _of_row(self, row: Row, n: Ints, size: Ints, candidates: Any) -> tuple[Any, Ints]:
        """Returns the latency of a row and the side of its output.

        Args:
            row: Row of one op.
            n: Number of layers.
            size: Side of the input in pixels.
            candidates: Mask of the candidates that have the op. The latency of the others is 0.
        """
        first, after = self._of_layer(row.first, size, candidates)
        if _same_layers(row.first, row.rest):
            return first * n, after
        if np.all(np.asarray(n) == 1):
            return first, after
        rest, _ = self._of_layer(row.rest, after, candidates)
        return first + rest * (n - 1), after

    def _of_layer(self, layer: Layer, size: Ints, candidates: Any) -> tuple[Any, Ints]:
        """Returns the latency of a layer and the side of its output.

        Kernel sizes, strides and options may be arrays: each combination is a separate kind of
        block.
        """
        total: Any = 0.0
        after: Ints = size
        for kernel, stride, options, mask in _kinds(layer, candidates):
            shape, after = layer_shape(layer, size, kernel, stride, options)
            total = total + np.where(mask, self._block_latency(shape, mask), 0.0)
        return total, after

    def _block_latency(self, shape: Shape, mask: Any = True) -> Any:
        """Returns the latency of a block in milliseconds; see :meth:`_Measured.latency`."""
        kind = self._kinds.get(shape.kind)
        if kind is None:
            known = "; ".join(sorted({str(k) for k in self._kinds}))
            raise ArchError(
                f"the latency table has no block of the kind {shape.kind} (it has {known}); "
                f"measure a table for this search space: {_COMMAND.format('FILE')}"
            )
        return kind.latency(shape, mask)

    @cached_property
    def _kinds(self) -> dict[Kind, _Measured]:
        by_kind: dict[Kind, list[MeasuredBlock]] = {}
        for block in self.blocks:
            by_kind.setdefault(block.shape.kind, []).append(block)
        return {kind: _Measured(blocks) for kind, blocks in by_kind.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as JSON with one block per line.

        Raises:
            WriteError: The file cannot be written.
        """
        lines = (json.dumps(block_row(b.shape) | {"ms": round(b.ms, 6)}) for b in self.blocks)
        text = ",\n".join(lines)
        head = json.dumps(dict(self.about), indent=1)
        with atomic_write(path) as temporary:
            temporary.write_text(
                f'{{"format": {FORMAT}, "about": {head},\n"blocks": [\n{text}\n]}}\n',
                encoding="utf-8",
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Reads a table from a JSON file.

        Raises:
            ArchError: The file cannot be read or is not a latency table. The message gives the
                command that measures one, or converts a csv to one.
        """
        file = str(path)
        command = _COMMAND.format(file)
        if file.endswith(".csv"):
            raise ArchError(
                "a csv of blocks is not a latency table; convert it to one: fbnetv3-benchmark "
                f"--latency-table {file} --runtime 'RUNTIME, DEVICE' writes latency_table.json "
                "beside it",
                file=file,
            )
        try:
            content = json.loads(read_text(path, "latency table"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, not {FORMAT}")
            blocks = [block_from_row(row) for row in content["blocks"]]
            return cls(blocks, content["about"])
        except OSError as error:
            problem = (
                f"cannot read the latency table: {error.strerror or error}; measure one: {command}"
            )
            raise ArchError(problem, file=file) from None
        except (
            *(ValueError, KeyError, TypeError, AttributeError, ArithmeticError),
            RecursionError,
        ) as error:
            reason = f"{type(error).__name__}: {error}"
            problem = f"not a latency table ({reason}); measure one: {command}"
            raise ArchError(problem, file=file) from None


def block_row(shape: Shape) -> dict[str, Any]:
    """Returns a shape as a row of a file, without its latency."""
    numbers = dict(zip(NUMBERS, shape.numbers, strict=True))
    return vars(shape.kind) | numbers | {"out": shape.out}


def block_from_row(row: Mapping[str, Any]) -> MeasuredBlock:
    """Returns the block of a row of a file.

    Raises:
        ValueError, KeyError, TypeError: The row is not a measurement.
    """
    kind = Kind(*(row[name] for name in Kind.__dataclass_fields__))
    is_kind = all(type(value) is (int if key in "ks" else str) for key, value in vars(kind).items())
    numbers = [row[name] for name in (*NUMBERS, "out")]
    is_shape = all(
        type(n) is int and 0 <= n < 1 << _BITS.get(k, 12)
        for k, n in zip((*NUMBERS, "out"), numbers, strict=True)
    )
    ms = row["ms"]
    is_time = type(ms) in (int, float) and 0 <= ms < _MAX_MS
    if not (is_kind and is_shape and is_time and 0 < kind.s < 100 and 0 <= kind.k < 1000):
        raise ValueError(f"{str(row)[:200]} is not a measurement")
    return MeasuredBlock(Shape(kind, *numbers), float(ms))


def _same_layers(first: Layer, rest: Layer) -> bool:
    """Returns whether the first layer of a row equals its repeats."""
    return bool(
        np.all(np.asarray(first.s) == 1)
        and np.array_equal(first.c_in, rest.c_in)
        and first.options.keys() == rest.options.keys()
        and all(np.array_equal(first.options[key], rest.options[key]) for key in first.options)
    )


def _kinds(layer: Layer, candidates: Any) -> Iterator[tuple[int | None, int, dict[str, int], Any]]:
    """Yields each (kernel, stride, options) of a layer, with the mask of its candidates.

    Args:
        layer: A layer, whose numbers may be arrays.
        candidates: Mask of the candidates that have the layer's op.
    """
    varied = {key: v for key, v in layer.options.items() if isinstance(v, np.ndarray)}
    numbers = {"s": layer.s, **({} if layer.k is None else {"k": layer.k}), **varied}
    values = []
    for number in numbers.values():
        array = np.asarray(number)
        present = array[np.broadcast_to(candidates, array.shape)] if array.ndim else array
        values.append(np.unique(present).tolist())
    for combination in itertools.product(*values):
        chosen = dict(zip(numbers, combination, strict=True))
        mask: Any = candidates
        for key, value in chosen.items():
            mask = np.logical_and(mask, np.equal(numbers[key], value))
        if np.any(mask):
            yield chosen.pop("k", None), chosen.pop("s"), chosen, mask


class _Measured:
    """The measured shapes of one kind of block, and the coefficients fitted to their work."""

    def __init__(self, blocks: Sequence[MeasuredBlock]) -> None:
        numbers = np.array([b.shape.numbers for b in blocks], dtype=np.int64)
        ms = np.array([b.ms for b in blocks])
        keys = _keys(tuple(numbers.T))
        order = np.argsort(keys)
        self._keys, self._ms = keys[order], ms[order]
        self._kind = blocks[0].shape.kind
        self._low, self._high = numbers.min(0), numbers.max(0)
        self._weights = _fit(np.stack([work(b.shape) for b in blocks]), ms)

    def latency(self, shape: Shape, mask: Any = True) -> Any:
        """Returns the latency in milliseconds, a number or an array of shape (candidates,).

        A measured shape has its measured latency, any other shape the fitted one. The check that
        shapes are inside the measured range is limited to the candidates in ``mask``.
        """
        self._check(shape, mask)
        fitted = work(shape) @ self._weights
        keys = _keys(shape.numbers)
        index = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[index] == keys, self._ms[index], fitted)

    def _check(self, shape: Shape, mask: Any) -> None:
        for i, name in enumerate(NUMBERS):
            if name not in _RANGED:
                continue
            number = np.asarray(shape.numbers[i])
            outside = np.logical_and((number < self._low[i]) | (number > self._high[i]), mask)
            if np.any(outside):
                value = int(np.broadcast_to(number, outside.shape)[outside].flat[0])
                raise ArchError(
                    f"outside the range measured for blocks of the kind {self._kind}; measure a "
                    f"latency table for this search space: {_COMMAND.format('FILE')}",
                    key=name,
                    value=value,
                    allowed=f"{self._low[i]} to {self._high[i]}",
                )


def _keys(numbers: tuple[Ints, ...]) -> npt.NDArray[np.int64]:
    """Returns an int64 for each shape, unique among the shapes of one kind."""
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
    """Returns the weights >= 0 that minimise the squared relative error of ``features @ weights``.

    Args:
        features: (n, f) work of each block.
        ms: (n,) measured latencies in milliseconds.
    """
    nnls = require("scipy.optimize", "search").nnls
    inverse = 1.0 / np.maximum(ms, 1e-6)
    scaled = features * inverse[:, None]
    largest = np.maximum(scaled.max(0), 1e-12)  # scaling features to at most 1 helps nnls converge
    weights: Floats = nnls(scaled / largest, ms * inverse)[0] / largest
    return weights
