"""The formats of exported files, each with functions that write a file and, mostly, run it.

To add a format, write ``write``, ``load`` and ``problem`` of its :class:`Format` in a file of this
folder, and list it in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fbnetv3.errors import did_you_mean
from fbnetv3.export import coreml, executorch, int8, litert, onnx, openvino, torch_files
from fbnetv3.export.errors import ExportError
from fbnetv3.export.job import Job, Run


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
        name: Name on the command line.
        suffix: End of the file's name, after the model's name.
        write: Function that writes the network of a job to a file.
        load: Function from a file to the function that runs it in its own runtime. None: files of
            this format are not run here (Core ML).
        problem: Function that returns the reason why the format cannot be used, or an empty string.
        any_batch: Whether a file takes batches of any size. Otherwise it takes single images.
        quantized: Whether the file computes with 8-bit integers, so that its outputs differ from
            PyTorch's by more than the rounding of floats.
    """

    name: str
    suffix: str
    write: Callable[[Job, Path], None]
    load: Callable[[Path], Run] | None
    problem: Callable[[], str]
    any_batch: bool = True
    quantized: bool = False


FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("onnx", ".onnx", onnx.write, onnx.load, onnx.problem),
        Format("onnx-int8", ".int8.onnx", int8.write, onnx.load, int8.problem, quantized=True),
        Format("pt2", ".pt2", torch_files.write_pt2, torch_files.load_pt2, torch_files.problem),
        Format(
            "torchscript",
            ".torchscript.pt",
            torch_files.write_torchscript,
            torch_files.load_torchscript,
            torch_files.problem,
        ),
        Format("openvino", ".xml", openvino.write, openvino.load, openvino.problem),
        Format(
            "openvino-int8",
            ".int8.xml",
            openvino.write_int8,
            openvino.load,
            openvino.problem_int8,
            quantized=True,
        ),
        Format(
            "executorch",
            ".pte",
            executorch.write,
            executorch.load,
            executorch.problem,
            any_batch=False,
        ),
        Format(
            "executorch-int8",
            ".int8.pte",
            executorch.write_int8,
            executorch.load,
            executorch.problem_int8,
            any_batch=False,
            quantized=True,
        ),
        Format("litert", ".tflite", litert.write, litert.load, litert.problem, any_batch=False),
        Format("coreml", ".mlpackage", coreml.write, None, coreml.problem, any_batch=False),
    )
}


def get_format(name: str) -> Format:
    """Returns a format by name.

    Raises:
        ExportError: The name is unknown.
    """
    if name not in FORMATS:
        allowed = ", ".join(FORMATS)
        raise ExportError(
            f"format {name!r} is unknown; allowed: {allowed}{did_you_mean(name, FORMATS)}"
        )
    return FORMATS[name]
