"""The network and the preprocessing that the metadata of weights describe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fbnetv3 import imagenet
from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.library_names import is_library_name
from fbnetv3.errors import FBNetError
from fbnetv3.plain_yaml import parse_yaml
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.records import find_record, is_weights_name

# key of the preprocessing in a file's metadata -> key in section INPUT of a config
_CONFIG_KEYS = {
    "resolution": "RESOLUTION",
    "resize": "RESIZE",
    "interpolation": "INTERPOLATION",
    "mean": "MEAN",
    "std": "STD",
}
# name of the classifier's bias in this project, the published files, timm and torchvision
_HEAD_BIASES = ("head.fc.bias", "head.conv.bias", "classifier.bias", "fc.bias")


def arch_of(
    metadata: Mapping[str, Any], model: str | None, path: str | os.PathLike[str]
) -> Arch | str:
    """Returns the architecture of a weights file, or the network's name if only this is known.

    Args:
        metadata: Metadata of the file.
        model: Name of an architecture, ``NAME.TAG`` or a library's network; None: the
            architecture in the metadata.
        path: Path of the file, for error messages.

    Returns:
        The architecture; for a network of another library, and for metadata with a name only, the
        name. The name in the metadata is not checked.

    Raises:
        WeightsFileError: ``model`` is None, and the metadata have no architecture, or the name of a
            yaml file as the architecture.
        ArchError: ``model`` is unknown, or the table in the metadata is not valid.
        RecordError: The zoo has no weights of the name ``model``.
    """
    if model is not None:
        if is_library_name(model):
            return model
        return find_record(model).arch() if is_weights_name(model) else get_arch(model)
    saved = metadata.get("arch")
    if isinstance(saved, Mapping):
        return Arch.from_dict(saved, file=os.fspath(path))
    if not isinstance(saved, str):
        raise WeightsFileError(f"{path} does not contain its architecture; name it with --model")
    if "\n" in saved.strip() or saved.lstrip().startswith("{"):
        return Arch.from_yaml(saved, file=os.fspath(path))
    if saved.endswith((".yaml", ".yml")):  # an untrusted file must not name a file to open
        raise WeightsFileError(
            f"{path} names the file {saved[:80]!r} as its architecture, which is not read; "
            "name the architecture with --model"
        )
    return saved


def num_classes_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> int:
    """Returns the number of classes of a classifier's weights.

    It is the length of the classifier's bias. If no tensor has a known name of this bias, it is the
    number of ``classes`` in the metadata; without them, 1000.

    Args:
        tensors: Tensors by name, in any known layout.
        metadata: Metadata of the file.
    """
    for key in _HEAD_BIASES:
        if key in tensors:
            return len(tensors[key])
    classes = metadata.get("classes")
    return imagenet.NUM_CLASSES if classes is None else len(classes)


def has_several_labels(metadata: Mapping[str, Any]) -> bool:
    """Returns whether the images that a classifier was trained on may have several classes.

    The probability of each class is then a sigmoid of its logit instead of a softmax of all logits.

    Args:
        metadata: Metadata of the file; files of classifiers with one class per image have no entry.
    """
    return metadata.get("several_labels") is True


def preprocessing_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the preprocessing in a file's metadata, or in the config that it contains.

    Args:
        metadata: Metadata of a weights file.

    Returns:
        Values of ``resolution``, ``resize``, ``interpolation``, ``mean`` and ``std``, as far as the
        file defines them. A 0 in a config means that the architecture decides; it is left out.

    Raises:
        YamlError: The config in the metadata is not valid yaml.
    """
    config = metadata.get("config")
    tree = parse_yaml(config) if isinstance(config, str) else config
    section = (tree.get("INPUT") or {}) if isinstance(tree, Mapping) else {}
    configured = {key: section.get(name) for key, name in _CONFIG_KEYS.items()}
    saved = {key: metadata.get(key) for key in _CONFIG_KEYS}
    return {key: saved[key] or configured[key] for key in saved if saved[key] or configured[key]}


def other_strides(metadata: Mapping[str, Any], model: Arch) -> str:
    """Describes the architecture of weights if its layers have other strides than those of a model.

    The shapes of tensors do not depend on strides, so that the weights of a network's
    low-resolution variant can be loaded into the network itself.

    Args:
        metadata: Metadata of the weights, which may lack an architecture.
        model: Architecture of the model.

    Returns:
        A clause for the log; "" if the strides are equal or not known, or if the tables of the two
        architectures have different numbers of rows (``Arch.blocks``).
    """
    try:
        saved = arch_of(metadata, None, "the weights")
        saved = get_arch(saved) if isinstance(saved, str) else saved
    except FBNetError:
        return ""
    strides = [[block.s for block in arch.blocks] for arch in (saved, model)]
    if strides[0] == strides[1] or len(strides[0]) != len(strides[1]):
        return ""
    return (
        f"the weights are those of {saved.name}, at {saved.resolution} px, whose layers have other "
        f"strides than {model.name} (for small images, set MODEL.ARCH_VARIANT low_resolution)"
    )
