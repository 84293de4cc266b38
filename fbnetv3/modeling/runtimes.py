"""Runtimes that compile a frozen model for inference: ONNX Runtime and torch's inductor.

For fbnetv3_b at 248 px on one thread (``tools/benchmark.py``), ONNX Runtime compiles in seconds and
keeps activations in a blocked channel layout between layers. Inductor compiles in about 15 s and
calls the same convolution kernels as eager torch.
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
    """A compiler for models.

    Attributes:
        name: Name of the runtime, as in ``DeployedModel.runtime``.
        problem: Function from the model to the reason why the runtime cannot be used, or an empty
            string.
        build: Function of the model and an example input that returns the compiled model.
    """

    name: str
    problem: Callable[[nn.Module], str]
    build: Callable[[nn.Module, Tensor], Runner]


def _onnxruntime_problem(model: nn.Module) -> str:
    missing = [n for n in ("onnx", "onnxruntime") if importlib.util.find_spec(n) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install 'fbnetv3[export]'"
    kinds = {(p.device.type, p.dtype) for p in model.parameters()}
    return (
        ""
        if kinds <= {("cpu", torch.float32)}
        else "onnxruntime is used for float32 models on the CPU only"
    )


def _onnxruntime(model: nn.Module, example: Tensor) -> Runner:
    """Returns a runner that compiles the model once for each resolution, for any batch size."""
    sessions = {example.shape[1:]: _session(model, example)}

    def run(images: Tensor) -> Tensor:
        key = images.shape[1:]
        if key not in sessions:
            sessions[key] = _session(model, images)
        feed = {"images": images.detach().contiguous().numpy()}
        return torch.from_numpy(sessions[key].run(None, feed)[0])

    return run


def _session(model: nn.Module, example: Tensor) -> Any:
    """Returns an ``onnxruntime.InferenceSession`` with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(_to_onnx(model, example), options, providers=providers)


def _to_onnx(model: nn.Module, example: Tensor) -> bytes:
    """Returns the model in ONNX format, from torch's older exporter, which traces the model.

    The older exporter takes a second for fbnetv3_b, the newer one (``dynamo=True``) half a minute.
    """
    buffer: Any = io.BytesIO()  # torch's documentation allows a buffer, its type hints do not
    with warnings.catch_warnings():  # this exporter is deprecated
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


def _inductor_problem(model: nn.Module) -> str:
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return "" if shutil.which(compiler) else f"no C++ compiler is installed ({compiler})"


def _inductor(model: nn.Module, example: Tensor) -> Runner:
    """Returns a runner that compiles once per input shape, and packs the weights for that shape.

    torch limits the number of shapes (``torch._dynamo.config.recompile_limit``, 8 by default);
    inputs of further shapes run eagerly.
    """
    compiled = torch.compile(model, dynamic=False, options={"freezing": True})

    def run(images: Tensor) -> Any:
        with torch.no_grad():  # inductor freezes weights only without gradients
            return compiled(images)

    return run


RUNTIMES = (
    Runtime("onnxruntime", _onnxruntime_problem, _onnxruntime),
    Runtime("inductor", _inductor_problem, _inductor),
)
"""Runtimes in the order in which ``deploy`` tries them."""
