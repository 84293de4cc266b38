"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3.export.job import INPUT, OUTPUT, Job, Pixels, Run, missing_packages

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
"""Version of the operators, which ONNX Runtime (from 1.12 on) and OpenVINO (from 2023 on) read."""


def problem() -> str:
    """Returns why the format cannot be used, or an empty string."""
    return missing_packages("onnx", "onnxruntime", extra="export")


def write(job: Job, path: Path) -> None:
    """Writes an ONNX file whose batch size is free, with the metadata as its properties."""
    import onnx

    with warnings.catch_warnings():  # this exporter is deprecated
        warnings.simplefilter("ignore")
        # The exporter by tracing takes seconds, the one through torch.export a minute.
        torch.onnx.export(
            job.network,
            (job.example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
        )
    model = onnx.load(str(path))
    add_metadata(model, job.metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def add_metadata(model: ModelProto, metadata: Mapping[str, str]) -> None:
    """Replaces the properties of an ``onnx.ModelProto`` by metadata."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name = "fbnetv3"


def open_session(path: Path) -> Any:
    """Opens a file in ONNX Runtime, with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def load(path: Path) -> Run:
    """Returns the function that runs a file in ONNX Runtime, with torch's number of threads."""
    session = open_session(path)

    def run(pixels: Pixels) -> npt.NDArray[np.float32]:
        (logits,) = session.run([OUTPUT], {INPUT: pixels})
        return np.asarray(logits)

    return run
