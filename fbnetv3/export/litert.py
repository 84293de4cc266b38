"""LiteRT (TensorFlow Lite) files for Android and microcontrollers; one image at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3.export.executorch import write_beside
from fbnetv3.export.job import Job, Pixels, Run, missing_packages


def problem() -> str:
    """Returns why the format cannot be used, or an empty string."""
    return missing_packages("litert_torch", "ai_edge_litert", extra="litert")


def write(job: Job, path: Path) -> None:
    """Writes a file for one image; the metadata go to a .json file beside it."""
    import litert_torch

    litert_torch.convert(job.network, (job.example[:1],)).export(str(path))
    write_beside(job, path)


def load(path: Path) -> Run:
    """Returns the function that runs a file in LiteRT, with torch's number of threads."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pixels: Pixels) -> npt.NDArray[np.float32]:
        logits = []
        for image in pixels:
            interpreter.set_tensor(source["index"], image[None])
            interpreter.invoke()
            logits.append(interpreter.get_tensor(result["index"]).copy())
        return np.concatenate(logits)

    return run
