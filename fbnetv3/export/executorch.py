"""ExecuTorch programs for phones and boards, computed by XNNPACK; one image at a time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3.export.calibration import calibration_batches
from fbnetv3.export.job import Job, Pixels, Run, missing_packages


def problem() -> str:
    """Returns why the format cannot be used, or an empty string."""
    return missing_packages("executorch", extra="executorch")


def problem_int8() -> str:
    """Returns what is missing for files with 8-bit integers; "" if nothing is."""
    return missing_packages("executorch", "torchao", extra="executorch")


def write(job: Job, path: Path) -> None:
    """Writes a program for one image; the metadata go to a .json file beside it."""
    _save(job.network, job, path)


def write_int8(job: Job, path: Path) -> None:
    """Writes a program for one image that computes with 8-bit integers.

    torchao's PT2E quantises the trained network for XNNPACK: weights with one scale per output
    channel, activations with a zero point.

    Raises:
        ExportError: There are too few calibration images.
    """
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    images = calibration_batches(job, "executorch-int8", 1)
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    quantizer = xnnpack.XNNPACKQuantizer().set_global(config)
    program = torch.export.export(job.network, (job.example[:1],)).module()
    observed = prepare_pt2e(program, quantizer)
    with torch.no_grad():
        for image in images:
            observed(torch.from_numpy(image))
    _save(convert_pt2e(observed), job, path)


def _save(network: torch.nn.Module, job: Job, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(network, (job.example[:1],))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)
    write_beside(job, path)


def write_beside(job: Job, path: Path) -> None:
    """Writes the metadata of a file to ``FILE.json``, for formats that have no place for them."""
    text = json.dumps(dict(job.metadata), indent=1)
    path.with_name(f"{path.name}.json").write_text(text, encoding="utf-8")


def load(path: Path) -> Run:
    """Returns the function that runs a program with as many threads as torch has at the load."""
    with _quiet():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        # By default there is a thread for each processor of the machine, even if this process may
        # use only a few of them. All programs of the process share one pool of threads.
        threads = torch.get_num_threads()
        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        method = Runtime.get().load_program(path).load_method("forward")

    def run(pixels: Pixels) -> npt.NDArray[np.float32]:
        images = torch.from_numpy(np.ascontiguousarray(pixels))
        return np.concatenate([method.execute([image[None]])[0].numpy() for image in images])

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides standard error, to which the runtime's C++ code writes notes about the processor."""
    saved = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
