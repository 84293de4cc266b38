"""The formats of exported detectors: for each a function that writes it and one that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fbnetv3.export import formats as all_formats
from fbnetv3.export import onnx as onnx_files
from fbnetv3.export.detectors import onnx, torch_files
from fbnetv3.export.detectors.job import DetectorJob, RunDetector
from fbnetv3.export.errors import ExportError
from fbnetv3.export.torch_files import problem as no_problem


@dataclass(frozen=True)
class DetectorFormat:
    """A format of exported detectors.

    Attributes:
        name: Name on the command line.
        suffix: End of the file's name, after the model's name.
        write: Function that writes the network of a job to a file.
        load: Function from a file to the function that runs it in its own runtime.
        problem: Function that returns the reason why the format cannot be used, or an empty string.
        quantized: Whether the file computes with 8-bit integers, so that its outputs differ from
            PyTorch's.
    """

    name: str
    suffix: str
    write: Callable[[DetectorJob, Path], None]
    load: Callable[[Path], RunDetector]
    problem: Callable[[], str]
    quantized: bool = False


DETECTOR_FORMATS: dict[str, DetectorFormat] = {
    format.name: format
    for format in (
        DetectorFormat("onnx", ".onnx", onnx.write, onnx.load, onnx_files.problem),
        DetectorFormat(
            "onnx-int8",
            ".int8.onnx",
            onnx.write_int8,
            onnx.load,
            onnx_files.problem,
            quantized=True,
        ),
        DetectorFormat("pt2", ".pt2", torch_files.write_pt2, torch_files.load_pt2, no_problem),
        DetectorFormat(
            "torchscript",
            ".torchscript.pt",
            torch_files.write_torchscript,
            torch_files.load_torchscript,
            no_problem,
        ),
    )
}


def check_formats(names: Sequence[str], *, calibrated: bool) -> list[DetectorFormat]:
    """Returns the formats of detectors, if they can be written.

    Args:
        names: Names of formats; repeated ones count once.
        calibrated: Whether there are images of a training set to measure the ranges of
            activations on.

    Raises:
        ExportError: A name is unknown, the format cannot hold a detector, a package is missing, or
            there are no calibration images.
    """
    formats = []
    for name in dict.fromkeys(names):
        if name not in DETECTOR_FORMATS:
            all_formats.get_format(name)  # raises if no format has this name
            raise ExportError(
                f"format {name} cannot hold a detector; allowed: {', '.join(DETECTOR_FORMATS)}"
            )
        format = DETECTOR_FORMATS[name]
        if missing := format.problem():
            raise ExportError(f"format {name} cannot be written: {missing}")
        if format.quantized and not calibrated:
            raise ExportError(
                f"format {name} needs images of the training set to measure ranges on; name a "
                "data set with --calibration"
            )
        formats.append(format)
    return formats
