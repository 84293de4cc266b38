"""The inference form of a model: batch norm folded, channels_last, small slices, compiled at will.

Where the time goes on a CPU: batch norm and the NCHW layout cost a third, and large batches
another fifth, because activations of tens of MB leave the caches and are given back to the
operating system after each layer. So :class:`DeployedModel` walks through a batch in slices.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from fbnetv3.errors import FBNetError, first_line
from fbnetv3.modeling.folding import fold_batch_norm
from fbnetv3.modeling.runtimes import RUNTIMES, Runner, Runtime

# Pixels of input per thread in one slice of a batch: 4 images of 248 px. Measured on fbnetv3_b
# at 248 px: 2 to 8 images are within 10% of the best, 1 and 16 are 30% and 15% slower.
SLICE_PIXELS = 1 << 18
# Largest |difference| of a compiled and the eager form, relative to the mean |output|.
TOLERANCE = 1e-4

_log = logging.getLogger(__name__)


class DeployError(FBNetError):
    """A model can't be brought into its inference form."""


class DeployedModel(nn.Module):
    """A folded model in eval mode that takes images (N, 3, H, W) and returns what it returned.

    Images of a batch are treated independently of each other, in slices of some
    ``SLICE_PIXELS`` per thread on CPU.

    Attributes:
        model: The folded network; its other methods are there.
        runtime: ``eager``, ``onnxruntime`` or ``inductor``: what the next call uses.
    """

    def __init__(self, model: nn.Module, runtimes: Sequence[Runtime] = ()) -> None:
        super().__init__()
        self.model = model
        self._compiled = _Compiled(model, runtimes) if runtimes else None
        self.eval()

    @property
    def runtime(self) -> str:
        return "eager" if self._compiled is None else self._compiled.name

    def train(self, mode: bool = True) -> DeployedModel:
        """Refuses training mode: there is no batch norm left, and no gradient.

        Raises:
            DeployError: ``mode`` is true.
        """
        if mode:
            raise DeployError("a deployed model cannot be trained; train the one it was made of")
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to the model's output, (N, classes)."""
        if images.dim() != 4:
            return self._run(images)
        images = images.contiguous(memory_format=torch.channels_last)
        parts = _num_slices(images)
        if parts == 1:
            return self._run(images)
        return torch.cat([self._run(part) for part in images.chunk(parts)])

    def _run(self, images: Tensor) -> Any:
        return self.model(images) if self._compiled is None else self._compiled(images)


def _num_slices(images: Tensor) -> int:
    n, _, h, w = images.shape
    if images.device.type != "cpu":
        return 1
    limit = max(1, SLICE_PIXELS * torch.get_num_threads() // max(1, h * w))
    return max(1, -(-n // limit))


class _Compiled:
    """Compiles at the first call and checks each new shape once.

    Where a runtime fails, the next one gets its turn, and after the last the eager model.
    """

    def __init__(self, model: nn.Module, runtimes: Sequence[Runtime]) -> None:
        self._model = model
        self._runtimes = list(runtimes)
        self._run: Runner | None = None
        self._checked: set[torch.Size] = set()

    @property
    def name(self) -> str:
        return self._runtimes[0].name if self._runtimes else "eager"

    def __call__(self, images: Tensor) -> Any:
        if self._run is not None and images.shape in self._checked:
            return self._run(images)
        # An error of the model itself is raised here, as it would be uncompiled.
        expected = self._model(images)
        while self._runtimes and not self._works(images, expected):
            self._run = None
            self._checked.clear()
            del self._runtimes[0]
        return expected

    def _works(self, images: Tensor, expected: Any) -> bool:
        """Whether the present runtime gives the eager model's output; warns if it does not."""
        try:
            if self._run is None:
                self._run = self._runtimes[0].build(self._model, images)
            problem = _difference(self._run(images), expected)
        except Exception as error:  # compilers raise errors of every kind
            problem = f"{type(error).__name__}: {first_line(error)}"
        if problem:
            following = [*(runtime.name for runtime in self._runtimes[1:]), "eager"][0]
            _log.warning(
                "deploy(compile=True): %s does not run this model (%s); now %s",
                self.name,
                problem,
                following,
            )
            return False
        self._checked.add(images.shape)
        return True


def _difference(found: Any, expected: Any) -> str:
    """Returns what is wrong with ``found``, or an empty text."""
    if not isinstance(expected, Tensor) or not isinstance(found, Tensor):
        return "its output is not one tensor"
    if found.shape != expected.shape:
        return f"output of shape {tuple(found.shape)} for {tuple(expected.shape)}"
    worst = (found - expected).abs().max() / expected.abs().mean()
    return f"output differs by {float(worst):.1e}" if worst > TOLERANCE else ""


def deploy(model: nn.Module, compile: bool = False) -> nn.Module:
    """Makes the inference form of a classifier: same outputs, faster. ``model`` is not changed.

    Batch norm is folded into convolutions, weights are laid out channels_last and need no
    gradient, dropout and stochastic depth are off. An op of your own is kept as it is where its
    ``forward`` can't be traced.

    Args:
        model: From :func:`fbnetv3.build_model`, or any network that maps one batch of images to
            one tensor, image by image. Its training or eval mode does not matter.
        compile: Whether to compile with ONNX Runtime if it is installed and the model is float32
            on CPU, else with torch's inductor and frozen weights. It happens at the first call
            (seconds, with inductor up to a minute) and needs no input shape before; ONNX Runtime
            compiles again for each resolution, inductor for each batch size too. The first call
            with a shape is checked against the uncompiled form. Where no runtime is at hand, or
            it fails, one warning says so and the uncompiled form runs. The number of threads is
            torch's at the first call.

    Returns:
        A :class:`DeployedModel` in eval mode on the model's device.

    Raises:
        DeployError: The model is wrapped, scripted, compiled or deployed already, has no weights
            yet, or has a batch norm without running statistics.
    """
    _check(model)
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batch_norm(folded)
    folded = folded.requires_grad_(False).to(memory_format=torch.channels_last)
    return DeployedModel(folded, _usable_runtimes(folded) if compile else ())


def _usable_runtimes(model: nn.Module) -> list[Runtime]:
    lacks = {runtime.name: runtime.lacks(model) for runtime in RUNTIMES}
    usable = [runtime for runtime in RUNTIMES if not lacks[runtime.name]]
    if not usable:
        reasons = " and ".join(lacks.values())
        _log.warning("deploy(compile=True): %s; the model runs uncompiled", reasons)
    return usable


def _check(model: nn.Module) -> None:
    """Raises a DeployError for what can't be folded, or would give other outputs then."""
    if not isinstance(model, nn.Module):
        raise DeployError(f"deploy takes an nn.Module, not {type(model).__name__}")
    if isinstance(model, DeployedModel):
        raise DeployError("the model is deployed already; use it as it is")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise DeployError(f"the model is wrapped in {type(model).__name__}; pass model.module")
    if isinstance(model, torch.jit.ScriptModule) or "_orig_mod" in model._modules:
        raise DeployError("the model is scripted or compiled; pass the one it was made of")
    _check_tensors(model)


def _check_tensors(model: nn.Module) -> None:
    tensors = (*model.named_parameters(), *model.named_buffers())
    for name, tensor in tensors:
        if is_lazy(tensor) or tensor.is_meta:
            raise DeployError(f"{name} has no values yet; load weights before deploy")
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise DeployError(
                f"batch norm {name} keeps no running statistics, so its output depends on the "
                "batch; train with track_running_stats=True"
            )
