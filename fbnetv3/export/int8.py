"""ONNX files that compute with 8-bit integers, quantised after the training by ONNX Runtime.

Ranges are measured on calibration images (static quantisation), weights have one scale per output
channel. The range of an activation leaves out the smallest and largest hundredth of a percent of
its values, which would make the steps of all others coarse. On processors without VNNI
instructions, products of 8-bit integers are added up in 16 bits and may overflow; there, weights
use 7 bits (``reduce_range``).
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fbnetv3.export import onnx as onnx_files
from fbnetv3.export.calibration import calibration_batches
from fbnetv3.export.job import INPUT, Job, Pixels

PERCENTILE = 99.99
"""Share in percent of an activation's values up to which its range goes, on either side."""


def lacks() -> str:
    """Returns what is missing; "" if nothing is."""
    return onnx_files.lacks()


def write(job: Job, path: Path) -> None:
    """Writes an ONNX file with 8-bit weights and activations.

    Raises:
        ExportError: There are too few calibration images.
    """
    import onnx

    batches = calibration_batches(job, "onnx-int8")
    with TemporaryDirectory() as folder:
        plain, shaped = Path(folder) / "plain.onnx", Path(folder) / "shaped.onnx"
        onnx_files.write(job, plain)
        _quantize(plain, shaped, path, batches)
    model = onnx.load(str(path))
    onnx_files.add_metadata(model, {**job.metadata, "reduce_range": str(not has_vnni())})
    onnx.save(model, str(path))


def _quantize(plain: Path, shaped: Path, path: Path, batches: list[Pixels]) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # the calibration prints its steps
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        quant_pre_process(str(plain), str(shaped), skip_symbolic_shape=True)
        quantize_static(
            str(shaped),
            str(path),
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=not has_vnni(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )


class _Reader:
    """Gives calibration images to ONNX Runtime in batches.

    Args:
        batches: Batches of shape (N, 3, H, W).
    """

    def __init__(self, batches: list[Pixels]) -> None:
        self._batches: Iterator[dict[str, Any]] = ({INPUT: batch} for batch in batches)

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next batch by input name, or None after the last."""
        return next(self._batches, None)


def has_vnni() -> bool:
    """Returns whether the processor adds up products of 8-bit integers in 32 bits.

    False where the system does not say, which costs one bit of the weights.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in text for flag in ("avx512_vnni", "avx_vnni", "asimddp"))
