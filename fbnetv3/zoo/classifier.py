"""A classifier ready for use: a model, the preprocessing of its images, its classes' names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn

from fbnetv3 import imagenet
from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.library_names import RESOLUTION, is_library_name
from fbnetv3.plain_yaml import parse_yaml
from fbnetv3.weights.converters import load_state_dict
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.records import find_record
from fbnetv3.zoo import api

if TYPE_CHECKING:
    from fbnetv3.data.transforms import EvalTransform

_HEADS = ("head.fc.bias", "head.conv.bias", "classifier.bias", "fc.bias")
# our key of the preprocessing -> the config's, where only that was saved
_CONFIG_KEYS = {
    "resolution": "RESOLUTION",
    "resize": "RESIZE",
    "interpolation": "INTERPOLATION",
    "mean": "MEAN",
    "std": "STD",
}


@dataclass(frozen=True)
class Classifier:
    """A model with what is needed to use it.

    Args:
        model: in eval mode.
        transform: image -> 3 x H x W tensor.
        classes: names in the order of the logits.
        source: where the weights are from.
    """

    model: nn.Module
    transform: EvalTransform
    classes: tuple[str, ...]
    source: str

    @torch.inference_mode()
    def scores(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Returns the probability of each class: N images -> N x classes, on the CPU."""
        device = next(self.model.parameters()).device
        batch = torch.stack([self.transform(image) for image in images]).to(
            device, memory_format=torch.channels_last
        )
        return self.model(batch).float().softmax(1).cpu()

    def top(self, image: Image.Image, k: int = 5) -> list[tuple[str, float]]:
        """Returns the ``k`` likeliest classes of an image with their probabilities."""
        values, indices = self.scores([image])[0].topk(min(k, len(self.classes)))
        names = [self.classes[i] for i in indices.tolist()]
        return list(zip(names, values.tolist(), strict=True))


def from_zoo(name: str) -> Classifier:
    """Makes the classifier of a zoo weight ``NAME[.TAG]``, downloading it on first use."""
    record = find_record(name)
    model = api.get(record.full_name, pretrained=True).eval()
    names = _names(record.class_names(), record.num_classes, record.full_name)
    return Classifier(model, api.transform(record.full_name), names, record.full_name)


def from_file(path: str | os.PathLike[str], model: str | None = None) -> Classifier:
    """Makes a classifier of a weights file or a checkpoint.

    Args:
        path: what training wrote (it tells the architecture, the classes and the
            preprocessing), or any file of a known layout.
        model: name of the architecture, needed where the file does not tell it; ``NAME.TAG`` also
            takes over that record's preprocessing.

    Raises:
        WeightsFileError: the file is broken, or does not tell its architecture.
        LoadError: the weights do not fit.
    """
    from fbnetv3.modeling import build_model

    tensors, metadata = read_tensors(path)
    arch = arch_of(metadata, model, path)
    count = _num_classes(tensors, metadata)
    net = build_model(arch, num_classes=count).eval()
    load_state_dict(net, tensors, source=os.fspath(path))
    classes = metadata.get("classes")
    names = _names(tuple(map(str, classes)) if classes else None, count, os.fspath(path))
    return Classifier(net, _transform_of(metadata, arch, model), names, os.fspath(path))


def arch_of(
    metadata: Mapping[str, Any], model: str | None, path: str | os.PathLike[str]
) -> Arch | str:
    """Returns the architecture named by ``model``, or else told by a file's metadata.

    Raises:
        WeightsFileError: neither tells it.
    """
    told = metadata.get("arch")
    if model is not None:
        if is_library_name(model):
            return model
        return find_record(model).arch() if "." in model else get_arch(model)
    if isinstance(told, Mapping):
        return Arch.from_dict(told, file=os.fspath(path))
    if isinstance(told, str):
        if "\n" in told.strip() or told.lstrip().startswith("{"):
            return Arch.from_yaml(told, file=os.fspath(path))
        if told.endswith((".yaml", ".yml")):
            raise WeightsFileError(
                f"{path} names the file {told[:80]!r} as its architecture, "
                "which is not read; name it with --model"
            )
        return told
    raise WeightsFileError(f"{path} does not tell its architecture; name it with --model")


def _num_classes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> int:
    for key in _HEADS:
        if key in tensors:
            return len(tensors[key])
    return len(metadata.get("classes") or range(1000))


def _names(names: tuple[str, ...] | None, count: int, source: str) -> tuple[str, ...]:
    if names is None:
        return tuple(f"class {i}" for i in range(count))
    if len(names) != count:
        raise WeightsFileError(f"{source} names {len(names)} classes, its classifier has {count}")
    return names


def preprocessing_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Finds the preprocessing that a file tells, itself or in the config saved with it."""
    config = metadata.get("config")
    tree = parse_yaml(config) if isinstance(config, str) else config
    section = tree.get("INPUT", {}) if isinstance(tree, Mapping) else {}
    # 0 in a config means: derived from the architecture
    told = {ours: section[key] for ours, key in _CONFIG_KEYS.items() if section.get(key)}
    return told | {key: metadata[key] for key in _CONFIG_KEYS if metadata.get(key)}


def _transform_of(
    metadata: Mapping[str, Any], arch: Arch | str, model: str | None
) -> EvalTransform:
    from fbnetv3.data.transforms import EvalTransform

    told = preprocessing_of(metadata)
    if not told and model is not None and not is_library_name(model):
        return api.transform(model)
    resolution = int(
        told.get("resolution") or (arch.resolution if isinstance(arch, Arch) else RESOLUTION)
    )
    return EvalTransform(
        resolution,
        int(told.get("resize") or api.default_resize(resolution)),
        told.get("interpolation", "bilinear"),
        told.get("mean", imagenet.MEAN),
        told.get("std", imagenet.STD),
    )
