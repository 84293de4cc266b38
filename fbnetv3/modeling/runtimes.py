"""Runtimes that compile a frozen model for inference: ONNX Runtime, or torch's inductor.

Measured on fbnetv3_b at 248 px, one thread (see ``tools/benchmark.py``): ONNX Runtime keeps
activations in blocks of channels between layers and starts in seconds, inductor calls the same
kernels as eager torch and compiles for a quarter of a minute.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Runner = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Runtime:
    """A way to compile.

    Attributes:
        name: as ``DeployedModel.runtime`` shows it.
        lacks: given the model, what is missing to use it; empty if nothing is.
        build: compiles the model, with a first input for tracing.
    """

    name: str
    lacks: Callable[[nn.Module], str]
    build: Callable[[nn.Module, Tensor], Runner]


def _onnxruntime_lacks(model: nn.Module) -> str:
    missing = [n for n in ("onnx", "onnxruntime") if importlib.util.find_spec(n) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install 'fbnetv3[export]'"
    kinds = {(p.device.type, p.dtype) for p in model.parameters()}
    return "" if kinds <= {("cpu", torch.float32)} else "onnxruntime runs float32 on CPU only"


def _onnxruntime(model: nn.Module, example: Tensor) -> Runner:
    """Traces once for each resolution; the batch size stays free."""
    sessions = {example.shape[1:]: _session(model, example)}

    def run(images: Tensor) -> Tensor:
        key = images.shape[1:]
        if key not in sessions:
            sessions[key] = _session(model, images)
        feed = {"images": images.detach().contiguous().numpy()}
        return torch.from_numpy(sessions[key].run(None, feed)[0])

    return run


def _session(model: nn.Module, example: Tensor) -> Any:
    """Returns an ``onnxruntime.InferenceSession`` with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(_to_onnx(model, example), options, providers=providers)


def _to_onnx(model: nn.Module, example: Tensor) -> bytes:
    """Returns the model in ONNX, by the exporter that traces.

    The newer one takes half a minute for fbnetv3_b, this one a second.
    """
    buffer: Any = io.BytesIO()  # takes files as well as paths, says its documentation
    with warnings.catch_warnings():  # deprecated, says torch
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            buffer,
            dynamo=False,
            input_names=["images"],
            output_names=["outputs"],
            dynamic_axes={"images": {0: "n"}, "outputs": {0: "n"}},
        )
    return buffer.getvalue()


def _inductor_lacks(model: nn.Module) -> str:
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    found = shutil.which(compiler) is not None
    return "" if found else f"there is no C++ compiler ({compiler})"


def _inductor(model: nn.Module, example: Tensor) -> Runner:
    """Compiles again for each shape: frozen weights are laid out for it."""
    compiled = torch.compile(model, dynamic=False, options={"freezing": True})

    def run(images: Tensor) -> Any:
        with torch.no_grad():  # inductor freezes weights only then
            return compiled(images)

    return run


RUNTIMES = (
    Runtime("onnxruntime", _onnxruntime_lacks, _onnxruntime),
    Runtime("inductor", _inductor_lacks, _inductor),
)
