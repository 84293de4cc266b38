"""torch's own formats: programs of torch.export, and TorchScript for older C++ services."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3.export.job import MAX_BATCH, Job, Pixels, Run

METADATA = "fbnetv3.json"
"""Name of the metadata in the archive."""


def problem() -> str:
    """Returns "": torch is always installed."""
    return ""


def write_pt2(job: Job, path: Path) -> None:
    """Writes a program of torch.export, for batches of up to ``MAX_BATCH`` images."""
    batch = torch.export.Dim("n", min=1, max=MAX_BATCH)
    program = torch.export.export(job.network, (job.example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, path, extra_files={METADATA: json.dumps(dict(job.metadata))})


def load_pt2(path: Path) -> Run:
    """Returns the function that runs a program of torch.export."""
    return _run(torch.export.load(path).module())


def write_torchscript(job: Job, path: Path) -> None:
    """Writes a TorchScript file whose batch size is free."""
    with warnings.catch_warnings(), torch.no_grad():  # TorchScript is deprecated
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(job.network, job.example, check_trace=False)
        frozen = torch.jit.freeze(traced.eval())
        extra = {METADATA: json.dumps(dict(job.metadata))}
        torch.jit.save(frozen, str(path), _extra_files=extra)


def load_torchscript(path: Path) -> Run:
    """Returns the function that runs a TorchScript file."""
    return _run(open_torchscript(path))


def open_torchscript(path: Path) -> Callable[..., Any]:
    """Returns the module of a TorchScript file that this process has written.

    A TorchScript file is a program: never open one from somewhere else.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Callable[..., Any] = torch.jit.load(str(path))
    return module


def _run(module: Callable[[torch.Tensor], torch.Tensor]) -> Run:
    def run(pixels: Pixels) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(pixels)).numpy())

    return run
