"""ONNX files that compute with 8-bit integers, quantised after the training by ONNX Runtime.

Ranges are measured on calibration images (static quantisation), and weights have one scale per
output channel. By default, the range of an activation keeps the central 99.99% of its values: rare
extreme values would make the quantisation steps of all other values coarse. On processors without
VNNI instructions, products of 8-bit integers are added up in 16 bits and may overflow; a file that
is written on such a processor has 7-bit weights (``reduce_range``). Hard sigmoids are computed with
integers, too; see ``integer_gates.py``.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fbnetv3.export import onnx as onnx_files
from fbnetv3.export.calibration import calibration_batches
from fbnetv3.export.integer_gates import replace_hard_sigmoids, split_hard_swishes
from fbnetv3.export.job import INPUT, Job, Pixels

PERCENTILE = 99.99
"""Share in percent of an activation's values in its range; half of the rest is cut at each end."""


def problem() -> str:
    """Returns why the format cannot be used, or an empty string."""
    return onnx_files.problem()


def write(job: Job, path: Path) -> None:
    """Writes an ONNX file with 8-bit weights and activations.

    Raises:
        ExportError: There are too few calibration images.
    """
    batches = calibration_batches(job, "onnx-int8")
    write_quantized(partial(onnx_files.write, job), path, batches, job.metadata)


def write_quantized(
    write_float: Callable[[Path], None],
    path: Path,
    batches: Sequence[Pixels],
    metadata: Mapping[str, str],
    kept: Callable[[Any], list[str]] = lambda model: [],
    percentile: float | None = PERCENTILE,
) -> None:
    """Writes an ONNX file with 8-bit weights and activations, from one in float32.

    Args:
        write_float: Function that writes the float32 file to a path.
        path: File to write.
        batches: Calibration images, of shape (N, 3, H, W); sizes may differ between batches.
        metadata: Properties of the file; ``reduce_range`` and ``activation_ranges`` are added.
        kept: Function from a model to the names of its nodes that stay in float32.
        percentile: Share in percent of an activation's values in its range. If this is None, or if
            the percentiles of any activation cannot be computed, all ranges hold all values.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, shaped = Path(folder) / "plain.onnx", Path(folder) / "shaped.onnx"
        write_float(plain)
        model = onnx.load(str(plain))
        split_hard_swishes(model)
        onnx.save(model, str(plain))
        quant_pre_process(str(plain), str(shaped), skip_symbolic_shape=True)
        exceptions = kept(onnx.load(str(shaped)))
        with contextlib.redirect_stdout(io.StringIO()):  # the calibration prints its steps
            used = _quantize_if_possible(shaped, path, batches, exceptions, percentile)
    model = onnx.load(str(path))
    replace_hard_sigmoids(model)
    onnx.checker.check_model(model)
    ranges = "largest value" if used is None else f"percentile {used}"
    added = {"reduce_range": str(not has_vnni()), "activation_ranges": ranges}
    onnx_files.add_metadata(model, {**metadata, **added})
    onnx.save(model, str(path))


def _quantize_if_possible(
    source: Path, path: Path, batches: Sequence[Pixels], kept: list[str], percentile: float | None
) -> float | None:
    """Quantises; returns the percentile, or None if the ranges of activations hold all values.

    ONNX Runtime cannot compute percentiles of an activation that is constant but for rounding: the
    range of its values has fewer float32 numbers than ONNX Runtime's histogram has bins.
    """
    try:
        _quantize(source, path, batches, kept, percentile)
    except ValueError:
        if percentile is None:
            raise
        _quantize(source, path, batches, kept, None)
        return None
    return percentile


def _quantize(
    source: Path, path: Path, batches: Sequence[Pixels], kept: list[str], percentile: float | None
) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    method = CalibrationMethod.MinMax if percentile is None else CalibrationMethod.Percentile

    quantize_static(
        str(source),
        str(path),
        _Reader(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=not has_vnni(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
        calibrate_method=method,
        # The calibration holds all activations of a stride in memory, and their sizes must be
        # equal. A stride is therefore one batch.
        extra_options={"CalibPercentile": percentile, "CalibStridedMinMax": 1},
    )


class _Reader:
    """Gives calibration images to ONNX Runtime in batches.

    Args:
        batches: Batches of shape (N, 3, H, W).
    """

    def __init__(self, batches: Sequence[Pixels]) -> None:
        self._batches = batches
        self._next: Iterator[Pixels] = iter(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Continues with the batches from ``start_index`` to ``end_index - 1``."""
        self._next = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next batch by input name, or None after the last."""
        batch = next(self._next, None)
        return None if batch is None else {INPUT: batch}


def has_vnni() -> bool:
    """Returns whether the processor adds up products of 8-bit integers in 32 bits.

    False where the system does not say, which costs one bit of the weights.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in text for flag in ("avx512_vnni", "avx_vnni", "asimddp"))
