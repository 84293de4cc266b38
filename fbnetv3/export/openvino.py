"""OpenVINO's IR: an .xml file with the graph and a .bin file with the weights beside it.

Files with 8-bit integers are quantised after the training by NNCF: 8-bit weights with one scale per
output channel, and 8-bit activations with a zero point, because the outputs of swish and hard swish
reach much further above 0 than below. NNCF corrects the biases for the mean error of each layer on
the calibration images.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3.export.calibration import calibration_batches
from fbnetv3.export.job import INPUT, OUTPUT, Job, Pixels, Run, missing_packages


def problem() -> str:
    """Returns why the format cannot be used, or an empty string."""
    return missing_packages("openvino", extra="openvino")


def problem_int8() -> str:
    """Returns what is missing for files with 8-bit integers; "" if nothing is."""
    return missing_packages("openvino", "nncf", extra="openvino")


def write(job: Job, path: Path) -> None:
    """Writes the graph with float32 weights and a free batch size, and the weights beside it."""
    _save(_converted(job), job, path)


def write_int8(job: Job, path: Path) -> None:
    """Writes the graph with 8-bit weights and activations, and the weights beside it.

    Raises:
        ExportError: There are too few calibration images.
    """
    batches = calibration_batches(job, "openvino-int8")
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF draws progress bars
        import nncf

        quantized = nncf.quantize(
            _converted(job),
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
        )
    _save(quantized, job, path)


def _converted(job: Job) -> Any:
    import openvino

    shape = openvino.PartialShape([-1, *job.example.shape[1:]])
    with warnings.catch_warnings():  # it calls torch.jit.trace, which is deprecated
        warnings.simplefilter("ignore")
        model = openvino.convert_model(job.network, example_input=job.example, input=[shape])
    model.inputs[0].tensor.set_names({INPUT})
    model.outputs[0].tensor.set_names({OUTPUT})
    return model


def _save(model: Any, job: Job, path: Path) -> None:
    import openvino

    for key, value in job.metadata.items():
        model.set_rt_info(value, ["fbnetv3", key])
    openvino.save_model(model, path, compress_to_fp16=False)


def load(path: Path) -> Run:
    """Returns the function that runs a file in OpenVINO, with torch's number of threads."""
    import openvino

    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(path, "CPU", config)

    def run(pixels: Pixels) -> npt.NDArray[np.float32]:
        return np.array(compiled(pixels)[0])

    return run
