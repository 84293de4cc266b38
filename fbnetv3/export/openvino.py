"""OpenVINO's IR: an .xml file with the graph and a .bin file with the weights beside it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3.export.job import INPUT, OUTPUT, Job, Pixels, Run
from fbnetv3.export.job import lacks as lacks_packages


def lacks() -> str:
    """Returns what is missing; "" if nothing is."""
    return lacks_packages("openvino", extra="openvino")


def write(job: Job, path: Path) -> None:
    """Writes the graph with float32 weights and a free batch size, and the weights beside it."""
    import openvino

    shape = openvino.PartialShape([-1, *job.example.shape[1:]])
    with warnings.catch_warnings():  # it calls torch.jit.trace, which is deprecated
        warnings.simplefilter("ignore")
        model = openvino.convert_model(job.network, example_input=job.example, input=[shape])
    model.inputs[0].tensor.set_names({INPUT})
    model.outputs[0].tensor.set_names({OUTPUT})
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
