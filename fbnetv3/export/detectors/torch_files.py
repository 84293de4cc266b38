"""Detectors as programs of torch.export and as TorchScript; both need torchvision's ops."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx.experimental import _config as shape_config

from fbnetv3.export.detectors.job import Boxes, DetectorJob, RunDetector
from fbnetv3.export.job import Pixels
from fbnetv3.export.torch_files import METADATA, open_torchscript

MIN_SIDE, MAX_SIDE = 32, 8192
"""Range of an image's height and width in a program of torch.export, in pixels.

Height or width must be above 128, so that the coarsest feature map has more than one cell.
"""
# Smallest side of the traced example in pixels: all feature maps have several rows and columns
_EXAMPLE_SIDE = 257


def write_pt2(job: DetectorJob, path: Path) -> None:
    """Writes a program of torch.export for images with sides of ``MIN_SIDE`` to ``MAX_SIDE``."""
    height, width = (max(side, _EXAMPLE_SIDE) for side in job.example.shape[2:])
    example = job.network.example(height, width)
    sides = (torch.export.Dim(name, min=MIN_SIDE, max=MAX_SIDE) for name in ("height", "width"))
    shapes = dict(zip((2, 3), sides, strict=True))
    # Without this setting the program is limited to images whose coarsest feature map, of stride
    # 128, has more than one row and more than one column.
    with (
        warnings.catch_warnings(),
        shape_config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")  # torchvision's nms calls a deprecated function of torch
        program = torch.export.export(job.network, (example,), dynamic_shapes=(shapes,))
    torch.export.save(program, path, extra_files={METADATA: json.dumps(dict(job.metadata))})


def load_pt2(path: Path) -> RunDetector:
    """Returns the function that runs a program of torch.export."""
    return _run(torch.export.load(path).module())


def write_torchscript(job: DetectorJob, path: Path) -> None:
    """Writes a TorchScript file for images of any size."""
    with warnings.catch_warnings(), torch.no_grad():  # TorchScript is deprecated
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(job.network, job.example, check_trace=False)
        frozen = torch.jit.freeze(traced.eval())
        extra = {METADATA: json.dumps(dict(job.metadata))}
        torch.jit.save(frozen, str(path), _extra_files=extra)


def load_torchscript(path: Path) -> RunDetector:
    """Returns the function that runs a TorchScript file."""
    return _run(open_torchscript(path))


def _run(module: Callable[[torch.Tensor], Any]) -> RunDetector:
    def run(pixels: Pixels) -> Boxes:
        with torch.no_grad():
            outputs = module(torch.from_numpy(np.ascontiguousarray(pixels)))
        return Boxes(*(output.numpy() for output in outputs))

    return run
