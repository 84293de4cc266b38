"""The variants to compare: this project's network in several forms, and timm's network."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3 import zoo
from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.library_names import DEFAULT_RESOLUTION, is_library_name
from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.modeling import deploy
from fbnetv3.modeling.deploy import DeployedModel
from fbnetv3.weights.detector_records import is_detector_name
from fbnetv3.weights.load import read_weights
from fbnetv3.weights.networks import arch_of, preprocessing_of
from fbnetv3.weights.records import find_record, is_weights_name
from fbnetv3.zoo.classifier import from_file

TIMM = "timm"
TIMM_CHANNELS_LAST = "timm, channels_last"
OURS = "ours"
DEPLOY = "deploy"
COMPILED = "deploy, compiled"

Step = Callable[[], object]
StepType = TypeVar("StepType", bound=Step)

_SUFFIXES = (".safetensors", ".pt", ".pth")  # of files of weights
_EMA_DECAY = 0.9998
_LR = 1e-3


@dataclass(frozen=True)
class Shape:
    """Images of a measurement: (``batch``, 3, ``resolution``, ``resolution``)."""

    batch: int
    resolution: int


def is_weights(name: str) -> bool:
    """Returns whether a name is the path of weights: a file, or the folder of a run."""
    path = Path(name)
    is_path = path.suffix in _SUFFIXES or (path.exists() and path.suffix not in (".yaml", ".yml"))
    return is_path and not is_library_name(name)


def check_name(name: str) -> None:
    """Checks that a name is not that of a detector, nor the path of its weights.

    Raises:
        BenchmarkError: The name is that of a detector, whose inputs and losses are different.
        FBNetError: The weights cannot be read.
    """
    if is_detector_name(name) or (is_weights(name) and read_weights(name).is_detector):
        raise BenchmarkError(
            f"{name} is a detector, but only classifiers are measured; measure its backbone by the "
            "name of its architecture (MODEL.ARCH), such as fbnetv3_a0"
        )


def native_resolution(name: str) -> int:
    """Returns the side in pixels of the images that a network is made for.

    It is 224 for networks of torchvision, timm and ``register_network``, unless their weights file
    states another one.
    """
    if is_weights(name):
        metadata = read_weights(name).metadata
        arch: Arch | str = arch_of(metadata, None, name)
        if "resolution" in (saved := preprocessing_of(metadata)):
            return int(saved["resolution"])
    else:
        has_tag = not is_library_name(name) and is_weights_name(name)
        arch = find_record(name).arch() if has_tag else name
    if isinstance(arch, str) and is_library_name(arch):
        return DEFAULT_RESOLUTION
    return (get_arch(arch) if isinstance(arch, str) else arch).resolution


def has_timm(name: str) -> bool:
    """Returns whether timm is installed and has a network of its own with this name.

    Networks that ``fbnetv3.timm`` has registered with timm are this project's, and do not count.
    """
    if is_weights(name) or importlib.util.find_spec("timm") is None:
        return False
    import timm

    if not timm.is_model(name):
        return False
    return bool(timm.model_entrypoint(name).__module__.startswith("timm."))


def inference_variants(name: str, compile: bool) -> list[str]:
    """Lists the variants whose latency is compared; the first is the reference."""
    return [*training_variants(name), DEPLOY, *([COMPILED] if compile else [])]


def training_variants(name: str) -> list[str]:
    """Lists the variants whose training step is compared; the first is the reference."""
    return [*([TIMM, TIMM_CHANNELS_LAST] if has_timm(name) else []), OURS]


def ema_variants(name: str) -> list[str]:
    """Lists the variants whose EMA update is compared; the first is the reference."""
    return [*([TIMM] if has_timm(name) else []), OURS]


def network(name: str, variant: str) -> nn.Module:
    """Builds a variant, in training mode unless deployed; weights are random if not from a file."""
    torch.manual_seed(0)
    if variant in (TIMM, TIMM_CHANNELS_LAST):
        import timm

        model: nn.Module = timm.create_model(name)
        return model.to(memory_format=_layout(variant))
    model = from_file(name).model.train() if is_weights(name) else zoo.build_model(name)
    return deploy(model, compile=variant == COMPILED) if _is_deployed(variant) else model


def _is_deployed(variant: str) -> bool:
    return variant in (DEPLOY, COMPILED)


def _layout(variant: str) -> torch.memory_format:
    return torch.contiguous_format if variant == TIMM else torch.channels_last


def images(variant: str, shape: Shape) -> Tensor:
    """Returns random images in the variant's memory format, the same on every call."""
    generator = torch.Generator().manual_seed(0)
    size = (shape.batch, 3, shape.resolution, shape.resolution)
    return torch.randn(size, generator=generator).contiguous(memory_format=_layout(variant))


@dataclass
class Inference:
    """A forward pass without gradients."""

    model: nn.Module
    images: Tensor

    @property
    def runtime(self) -> str:
        """The runtime of the network: ``eager``, or the one it was compiled for."""
        return self.model.runtime if isinstance(self.model, DeployedModel) else "eager"

    def __call__(self) -> None:
        with torch.inference_mode():
            self.model(self.images)


class TrainingStep:
    """A training step: forward pass, backward pass, SGD with momentum."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.model = model
        self.images = images
        self.optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(self.images)
        labels = torch.arange(len(logits)) % logits.shape[1]
        F.cross_entropy(logits, labels).backward()
        self.optimizer.step()


def inference(name: str, variant: str, shape: Shape) -> Inference:
    """Returns a forward pass in evaluation mode, warmed up, so that compilation is done."""
    return _warmed_up(Inference(network(name, variant).eval(), images(variant, shape)))


def training_step(name: str, variant: str, shape: Shape) -> TrainingStep:
    """Returns a training step, already warmed up."""
    return _warmed_up(TrainingStep(network(name, variant).train(), images(variant, shape)))


def ema_update(name: str, variant: str) -> Step:
    """Returns an update of averaged weights (EMA), already warmed up."""
    model = network(name, variant)
    if variant == TIMM:
        from timm.utils import ModelEmaV3

        timm_ema = ModelEmaV3(model, decay=_EMA_DECAY)
        return _warmed_up(lambda: timm_ema.update(model))
    ema = ModelEMA(model, decay=_EMA_DECAY)
    return _warmed_up(lambda: ema.update(model))


def _warmed_up(step: StepType) -> StepType:
    step()
    return step


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Lets torch use ``number`` threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
