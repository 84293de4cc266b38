"""ONNX files of detectors, in float32 or with 8-bit integers, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fbnetv3.export import onnx as onnx_files
from fbnetv3.export.calibration import MIN_IMAGES
from fbnetv3.export.detectors.job import OUTPUTS, Boxes, DetectorJob, RunDetector
from fbnetv3.export.errors import ExportError
from fbnetv3.export.int8 import write_quantized
from fbnetv3.export.job import INPUT, Pixels

# parts of the names of ONNX nodes, which contain the names of modules
_BACKBONE, _LAST_LAYERS = "/bottom_up/", ("/cls_score", "/bbox_pred")


def write(job: DetectorJob, path: Path) -> None:
    """Writes an ONNX file for images of any height and width, with the metadata in it."""
    import onnx

    with warnings.catch_warnings():  # this exporter is deprecated, and warns of dynamic shapes
        warnings.simplefilter("ignore")
        torch.onnx.export(
            job.network,
            (job.example,),
            str(path),
            dynamo=False,
            opset_version=onnx_files.OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes={
                INPUT: {2: "height", 3: "width"},
                **{name: {0: "objects"} for name in OUTPUTS},
            },
        )
    model = onnx.load(str(path))
    onnx_files.add_metadata(model, job.metadata)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def load(path: Path) -> RunDetector:
    """Returns the function that runs a file in ONNX Runtime, with torch's number of threads."""
    session = onnx_files.open_session(path)

    def run(pixels: Pixels) -> Boxes:
        return Boxes(*session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(pixels)}))

    return run


def write_int8(job: DetectorJob, path: Path) -> None:
    """Writes an ONNX file whose backbone and other convolutions compute with 8-bit integers.

    The last layers of the heads, which compute the scores and the boxes, stay in float32: rounding
    their outputs to 8 bits costs average precision, and they take little of the time. A backbone
    with swish or sigmoid stays in float32, too.

    Raises:
        ExportError: There are fewer than ``MIN_IMAGES`` calibration images.
    """
    if len(job.calibration) < MIN_IMAGES:
        raise ExportError(
            f"onnx-int8 measures ranges on images of the training set, and got "
            f"{len(job.calibration)}; allowed: {MIN_IMAGES} or more; name a data set with "
            "--calibration"
        )
    # Ranges hold all values instead of a percentile of them: for percentiles, ONNX Runtime makes a
    # histogram of each tensor, which fails for the tensors in the decoding of boxes.
    write_quantized(
        partial(write, job), path, job.calibration, job.metadata, _float_nodes, percentile=None
    )


def _float_nodes(model: Any) -> list[str]:
    """Returns the names of the nodes that stay in float32."""
    nodes = model.graph.node
    has_sigmoid = any(node.op_type == "Sigmoid" and _BACKBONE in node.name for node in nodes)
    return [node.name for node in nodes if not _is_quantized(node, has_sigmoid)]


def _is_quantized(node: Any, keep_backbone: bool) -> bool:
    if _BACKBONE in node.name:
        return not keep_backbone
    return node.op_type == "Conv" and not any(part in node.name for part in _LAST_LAYERS)
