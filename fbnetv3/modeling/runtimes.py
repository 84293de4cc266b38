"""Runtimes that compile a frozen model for inference: OpenVINO, or torch's inductor."""

from __future__ import annotations

import importlib.util
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
        name: as :attr:`DeployedModel.runtime` shows it.
        lacks: given the model, what is missing to use it; empty if nothing is.
        build: compiles the model, with an input for tracing; called once.
    """

    name: str
    lacks: Callable[[nn.Module], str]
    build: Callable[[nn.Module, Tensor], Runner]


def _openvino_lacks(model: nn.Module) -> str:
    if importlib.util.find_spec("openvino") is None:
        return "openvino is not installed"
    kinds = {(p.device.type, p.dtype) for p in model.parameters()}
    return "" if kinds <= {("cpu", torch.float32)} else "openvino is used for float32 on CPU only"


def _openvino(model: nn.Module, example: Tensor) -> Runner:
    """Traces once; batch size and resolution stay free."""
    import openvino

    with warnings.catch_warnings():  # it traces by torch.jit, which torch calls deprecated
        warnings.simplefilter("ignore")
        converted = openvino.convert_model(model, example_input=example.contiguous())
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # its own choice is bfloat16 where the CPU has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda images: torch.from_numpy(compiled(images.contiguous().numpy())[0])


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
    Runtime("openvino", _openvino_lacks, _openvino),
    Runtime("inductor", _inductor_lacks, _inductor),
)
