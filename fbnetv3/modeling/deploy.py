"""The inference form of a model: folded batch norms, channels_last, small slices, compilation.

On a CPU, networks are faster without batch norms and in channels_last memory format. Large batches
take more time per image than small ones, because activations of tens of MB do not fit into the
caches, and their memory is returned to the operating system after each layer.
:class:`DeployedModel` therefore processes a batch in slices.
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
from fbnetv3.modeling.blocks import ACTIVATIONS, ConvBN, PointwiseAct, SqueezeExcite
from fbnetv3.modeling.folding import fold_batch_norm
from fbnetv3.modeling.runtimes import RUNTIMES, Runner, Runtime

# Input pixels per thread in one slice of a batch: 4 images of 248 px. On fbnetv3_b at 248 px,
# slices of 2 to 8 images take at most 10% more time than the best size; slices of 1 and 16 images
# are 30% and 15% slower than it.
SLICE_PIXELS = 1 << 18
# Largest allowed |difference| between compiled and eager outputs, relative to the mean |output|.
TOLERANCE = 1e-4
# Packages of detectors, whose networks take lists of images.
_DETECTION = ("detectron2.modeling.meta_arch.", "torchvision.models.detection.")

_log = logging.getLogger(__name__)


class DeployError(FBNetError):
    """A model cannot be converted into its inference form."""


class Deployable(nn.Module):
    """Base class of modules that make their inference form themselves, such as detectors."""

    def inference_form(self, *, compile: bool) -> nn.Module:
        """Returns the inference form, which is called like the module itself.

        Args:
            compile: Whether to compile the network.

        Raises:
            DeployError: The module cannot be converted.
        """
        raise NotImplementedError


class DeployedModel(nn.Module):
    """The inference form of a model, whose outputs for images (N, C, H, W) differ by rounding only.

    On a CPU a batch is processed in slices of at most ``SLICE_PIXELS`` pixels per thread, or of one
    image if it is larger, so the output for an image must not depend on other images of the batch.

    Attributes:
        model: The folded network in eval mode.
        runtime: Runtime that the next call uses, or tries if it has not been compared with the
            eager model yet: ``eager``, ``onnxruntime`` or ``inductor``.
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
        """Keeps evaluation mode; training is impossible, because batch norms are folded.

        Raises:
            DeployError: ``mode`` is True.
        """
        if mode:
            raise DeployError("a deployed model cannot be trained; train the original model")
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Returns the output (N, classes) of the model for images (N, C, H, W)."""
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
    return max(1, -(-n // limit))  # n / limit, rounded up


class _Compiled:
    """A model that is compiled at its first call, and compared with the eager model.

    The outputs of a runtime are compared once for each input shape. An eager output that is empty
    (an empty batch) or not finite (NaN in an image) cannot be compared: it is returned, and
    compilation or comparison waits for the next call. If a runtime fails, the next one is tried,
    and after the last one the eager model is used.
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
        # An error of the model itself is raised here, as it would be without compilation.
        expected = self._model(images)
        if not _is_comparable(expected):
            return expected
        while self._runtimes and not self._works(images, expected):
            self._run = None
            self._checked.clear()
            del self._runtimes[0]
        return expected

    def _works(self, images: Tensor, expected: Any) -> bool:
        """Returns whether the runtime reproduces the eager output; logs a warning if not."""
        try:
            if self._run is None:
                self._run = self._runtimes[0].build(self._model, images)
            problem = _difference(self._run(images), expected)
        except Exception as error:  # compilers raise errors of every kind
            problem = f"{type(error).__name__}: {first_line(error)}"
        if problem:
            following = [*(runtime.name for runtime in self._runtimes[1:]), "eager"][0]
            _log.warning(
                "deploy(compile=True): %s cannot run this model (%s); using %s instead",
                self.name,
                problem,
                following,
            )
            return False
        self._checked.add(images.shape)
        return True


def _is_comparable(expected: Any) -> bool:
    """Returns False if an eager output is empty or not finite, and so cannot be compared."""
    if not isinstance(expected, Tensor):
        return True  # :func:`_difference` reports it as a problem
    return expected.numel() > 0 and bool(torch.isfinite(expected).all())


def _difference(output: Any, expected: Any) -> str:
    """Returns how an output differs from the expected one; an empty string if it does not."""
    if not isinstance(expected, Tensor) or not isinstance(output, Tensor):
        return "its output is not a single tensor"
    if output.shape != expected.shape:
        return f"its output has shape {tuple(output.shape)} instead of {tuple(expected.shape)}"
    values = expected.detach().double()
    worst, scale = (output.detach().double() - values).abs().max(), values.abs().mean()
    # With <=, a NaN in the output counts as a difference, and two outputs of zeros do not.
    return "" if worst <= TOLERANCE * scale else f"its output differs by {float(worst / scale):.1e}"


def deploy(model: nn.Module, compile: bool = False) -> nn.Module:
    """Returns the inference form of a model: a faster one whose outputs differ by rounding only.

    Batch norms are folded into the convolutions directly before them, weights are in channels_last
    memory format and need no gradient, and dropout and stochastic depth are off. If the ``forward``
    of a custom op cannot be traced, its batch norms are not folded. ``model`` itself is not
    modified.

    Args:
        model: A model from :func:`fbnetv3.build_model`, or any network that maps a batch of images
            to one tensor, each image independently. It may be in training or eval mode. A
            ``fbnetv3.detection.detector.Detector`` becomes a detector that is called the same way.
        compile: Whether to compile the model: with ONNX Runtime if it is installed and the model is
            float32 on CPU, otherwise with torch's inductor and frozen weights. Compilation happens
            at the first call and takes seconds, or up to a minute with inductor. ONNX Runtime
            compiles again for each resolution, inductor for each resolution and batch size. The
            first output for each shape of images is compared with that of the uncompiled model. If
            no runtime is available or all fail, a warning is logged and the uncompiled model runs.
            The compiled model uses as many threads as torch has when the model is compiled.

    Returns:
        The inference form, on the model's device: a detector if the model is a detector, else a
        :class:`DeployedModel` in eval mode.

    Raises:
        DeployError: The model cannot be deployed: it is no ``nn.Module``; it is wrapped for several
            devices, scripted, compiled, or deployed already; a weight has no value yet; a batch
            norm keeps no running statistics; it takes lists of images, and is no ``Detector``; or
            it is a ``Detector``, and ``compile`` is True.
    """
    if isinstance(model, Deployable):
        return model.inference_form(compile=compile)
    _check(model)
    folded = folded_copy(model)
    return DeployedModel(folded, _usable_runtimes(folded) if compile else ())


def folded_copy(model: nn.Module) -> nn.Module:
    """Returns a copy for inference: folded batch norms, channels_last, activations in place.

    Args:
        model: Network that computes with its weights alone, not with statistics of the batch.

    Raises:
        DeployError: A weight has no values yet, or a batch norm keeps no running statistics.
    """
    _check_tensors(model)
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batch_norm(folded)
    set_in_place(folded)
    return folded.requires_grad_(False).to(memory_format=torch.channels_last)


def set_in_place(model: nn.Module) -> None:
    """Lets the activations of this project's blocks overwrite their inputs, which saves memory.

    In these blocks the input of an activation is the output of a convolution or batch norm that
    nothing else reads. Networks of other libraries keep their setting.

    Args:
        model: Network that is used without gradients.
    """
    for module in model.modules():
        if isinstance(module, (ConvBN, SqueezeExcite, PointwiseAct)):
            activation = module.act
            if isinstance(activation, tuple(ACTIVATIONS.values())):
                activation.inplace = True


def _usable_runtimes(model: nn.Module) -> list[Runtime]:
    problems = {runtime.name: runtime.problem(model) for runtime in RUNTIMES}
    usable = [runtime for runtime in RUNTIMES if not problems[runtime.name]]
    if not usable:
        reasons = " and ".join(problems.values())
        _log.warning("deploy(compile=True): %s; the model runs uncompiled", reasons)
    return usable


def _check(model: nn.Module) -> None:
    """Checks that a model can be folded without changing its outputs.

    Raises:
        DeployError: It cannot be folded; the message gives the reason.
    """
    if not isinstance(model, nn.Module):
        raise DeployError(f"deploy takes an nn.Module, not {type(model).__name__}")
    if isinstance(model, DeployedModel):
        raise DeployError("the model is already deployed; use it as it is")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise DeployError(f"the model is wrapped in {type(model).__name__}; pass model.module")
    if isinstance(model, torch.jit.ScriptModule) or "_orig_mod" in model._modules:
        raise DeployError("the model is scripted or compiled; pass the original model")
    if any(kind.__module__.startswith(_DETECTION) for kind in type(model).__mro__):
        raise DeployError(
            f"{type(model).__name__} takes lists of images instead of a batch; pass the "
            "Detector of fbnetv3.detection.detector.detector_from_file"
        )


def _check_tensors(model: nn.Module) -> None:
    tensors = (*model.named_parameters(), *model.named_buffers())
    for name, tensor in tensors:
        if is_lazy(tensor) or tensor.is_meta:
            raise DeployError(f"{name} has no values yet; load weights before calling deploy")
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise DeployError(
                f"batch norm {name} keeps no running statistics, so its output depends on the "
                "batch; train with track_running_stats=True"
            )
