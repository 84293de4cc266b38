"""The runtimes of exported files by name, with the format that each one reads and its version."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fbnetv3.errors import did_you_mean
from fbnetv3.export import openvino
from fbnetv3.export.errors import ExportError
from fbnetv3.export.formats import FORMATS, Format
from fbnetv3.export.job import Run


@dataclass(frozen=True)
class FileRuntime:
    """A runtime of exported files.

    Attributes:
        name: Name on the command line.
        format: Format of the file in which a single network is benchmarked.
        package: Distribution on PyPI, whose version is that of the runtime.
        part_format: Format of the files of the many blocks and networks that are timed for a
            latency table.
        load_part: Function from a file of ``part_format`` to the function that runs it.
    """

    name: str
    format: Format
    package: str
    part_format: Format
    load_part: Callable[[Path], Run]

    def problem(self) -> str:
        """Returns why files cannot be written or run, or an empty string."""
        return self.format.problem() or self.part_format.problem()

    @property
    def version(self) -> str:
        """Version of ``package``; "unknown" if no distribution of this name is installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return "unknown"


def _runtime(name: str, format: str, package: str) -> FileRuntime:
    chosen = FORMATS[format]
    if chosen.load is None:
        raise ExportError(f"format {format} has no runtime on this system")
    return FileRuntime(name, chosen, package, chosen, chosen.load)


RUNTIMES: dict[str, FileRuntime] = {
    runtime.name: runtime
    for runtime in (
        _runtime("onnxruntime", "onnx", "onnxruntime"),
        _runtime("onnxruntime-int8", "onnx-int8", "onnxruntime"),
        # OpenVINO reads ONNX files, which are written in a tenth of the time of its own format.
        FileRuntime("openvino", FORMATS["openvino"], "openvino", FORMATS["onnx"], openvino.load),
        _runtime("openvino-int8", "openvino-int8", "openvino"),
        _runtime("executorch", "executorch", "executorch"),
        _runtime("executorch-int8", "executorch-int8", "executorch"),
        _runtime("litert", "litert", "ai-edge-litert"),
    )
}


def get_runtime(name: str) -> FileRuntime:
    """Returns a runtime by name.

    Raises:
        ExportError: The name is unknown, or the runtime cannot be used, for example because it is
            not installed.
    """
    if name not in RUNTIMES:
        allowed = ", ".join(RUNTIMES)
        raise ExportError(
            f"runtime {name!r} is unknown; allowed: {allowed}{did_you_mean(name, RUNTIMES)}"
        )
    if problem := RUNTIMES[name].problem():
        raise ExportError(f"runtime {name} cannot be used: {problem}")
    return RUNTIMES[name]
