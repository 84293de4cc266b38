"""The images that weights were trained on, compared with those that a config gives the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fbnetv3 import imagenet
from fbnetv3.arch.library_names import LIBRARIES
from fbnetv3.config import CfgNode, get_cfg, get_value
from fbnetv3.detection.detector import config_from_metadata
from fbnetv3.detection.resnet_weights import is_torchvision
from fbnetv3.errors import FBNetError, data_errors
from fbnetv3.weights.errors import LoadError, WeightsFileError
from fbnetv3.weights.load import Weights
from fbnetv3.weights.networks import preprocessing_of

FORMAT, MEAN, STD = "INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"
STRIDE_IN_1X1 = "MODEL.RESNETS.STRIDE_IN_1X1"
# Normalisations that differ less are taken for equal. Those of CIFAR-10 and ImageNet are: means
# differ by 0.18 standard deviations at most, standard deviations by a factor of 1.16.
_MAX_SHIFT, _MAX_FACTOR = 0.25, 1.25
_BOTTLENECK_DEPTH = 50  # smallest depth of ResNets with bottleneck blocks, which have 1x1 layers


def classifier_input(weights: Weights) -> dict[str, Any]:
    """Returns the values of the config for which a classifier of this project was trained.

    Args:
        weights: Weights of a classifier. Without a mean and a standard deviation in their metadata,
            they are those of ImageNet.

    Returns:
        Mapping from a config key to its value: RGB, and the mean and the standard deviation of
        pixels from 0 to 255. Only RGB if the metadata, which other programs may have written, have
        no such numbers where this project has them.
    """
    try:
        with data_errors(WeightsFileError, weights.source):
            saved = preprocessing_of(weights.metadata)
            mean, std = (
                [round(255 * float(value), 4) for value in saved.get(key, default)]
                for key, default in (("mean", imagenet.MEAN), ("std", imagenet.STD))
            )
    except FBNetError:
        return {FORMAT: "RGB"}
    is_valid = (len(mean), len(std)) == (3, 3) and all(map(math.isfinite, mean)) and min(std) > 0
    return {FORMAT: "RGB", MEAN: mean, STD: std} if is_valid else {FORMAT: "RGB"}


def detector_input(weights: Weights) -> dict[str, Any]:
    """Returns the values of the config for which a detector was trained.

    Args:
        weights: Weights of a detector.

    Returns:
        Mapping from a config key to its value; empty if the metadata have no config that can be
        read.
    """
    saved = get_cfg()
    try:
        with data_errors(WeightsFileError, weights.source):
            saved.merge_from_other_cfg(config_from_metadata(weights.metadata, weights.source))
            mean, std = ([float(x) for x in get_value(saved, key)] for key in (MEAN, STD))
    except FBNetError:
        return {}
    if (len(mean), len(std)) != (3, 3):
        return {}
    needed = {FORMAT: saved.INPUT.FORMAT, MEAN: mean, STD: std}
    if "resnet" in saved.MODEL.BACKBONE.NAME:
        needed[STRIDE_IN_1X1] = saved.MODEL.RESNETS.STRIDE_IN_1X1
    return needed


def resnet_input(weights: Weights, cfg: CfgNode) -> dict[str, Any]:
    """Returns the values of the config for which a ResNet was trained, as far as they are known.

    Args:
        weights: Weights of a ResNet with the names of torchvision, Caffe2 or detectron2.
        cfg: Config of the detector.

    Returns:
        Mapping from a config key to its value. All of Caffe2's ResNets were trained on BGR images.

    Raises:
        LoadError: The file states other strides or images than the config has.
    """
    if is_torchvision(weights.tensors, weights.metadata):
        return _torchvision_input(weights, cfg)
    return {FORMAT: "BGR"} if "res2_0_branch2a_w" in weights.tensors else {}


def _torchvision_input(weights: Weights, cfg: CfgNode) -> dict[str, Any]:
    """Returns the values of the config that a ResNet of torchvision needs.

    Bottleneck blocks of torchvision have their stride in the 3x3 convolution, those of detectron2's
    MSRA weights in the first 1x1 convolution; the tensors have the same shapes. Other programs save
    MSRA's weights, too, under the names of torchvision, so that the names alone say nothing of
    strides and images. Those of torchvision are assumed if the file does not state others, and a
    config may have other ones.

    Raises:
        LoadError: The config has other strides or images than the file states; the message has the
            keys and the values.
    """
    needed = classifier_input(weights)
    if cfg.MODEL.RESNETS.DEPTH >= _BOTTLENECK_DEPTH:
        needed[STRIDE_IN_1X1] = False
    is_torchvisions = weights.metadata.get("author") == "torchvision"
    stated = set(needed) if is_torchvisions else _stated(weights, needed)
    wrong = _other_values({key: needed[key] for key in needed if key in stated}, cfg)
    if wrong:
        raise LoadError(
            f"{weights.source}: the weights of a ResNet of torchvision need other values in the "
            f"config: {wrong}; set these keys, or use weights of detectron2 such as "
            "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
        )
    return needed


def _stated(weights: Weights, needed: Mapping[str, Any]) -> set[str]:
    """Returns which of the values that weights need follow from what their file states.

    An architecture of timm or torchvision has their strides. A mean that cannot be used, as
    :func:`classifier_input` decides, states no images.
    """
    arch, stated = weights.metadata.get("arch"), set[str]()
    if isinstance(arch, str) and arch.startswith(tuple(f"{name}/" for name in LIBRARIES)):
        stated.add(STRIDE_IN_1X1)
    if MEAN in needed and preprocessing_of(weights.metadata).get("mean"):
        stated |= {FORMAT, MEAN, STD}
    return stated


def other_input(needed: Mapping[str, Any], cfg: CfgNode) -> str:
    """Returns a warning that a config gives the network other images than its weights know.

    Args:
        needed: Values of the config for which the weights were trained, by key.
        cfg: Config of the detector.

    Returns:
        The warning, with the keys and the values that they need; "" if the config has these values.
    """
    wrong = _other_values(needed, cfg)
    return wrong and (
        f"the weights were trained with other values than those of the config: {wrong}; set these "
        "keys, unless the difference is intended"
    )


def _other_values(needed: Mapping[str, Any], cfg: CfgNode) -> str:
    """Returns the keys of a config that have other values than needed, with both values."""
    wrong = [key for key in needed if key not in (MEAN, STD) and needed[key] != get_value(cfg, key)]
    if MEAN in needed:
        wrong += _other_normalisation(needed[MEAN], needed[STD], cfg)
    return ", ".join(f"{key} {needed[key]} (not {get_value(cfg, key)})" for key in wrong)


def _other_normalisation(mean: Sequence[float], std: Sequence[float], cfg: CfgNode) -> list[str]:
    """Returns which of PIXEL_MEAN and PIXEL_STD differ noticeably from those of the weights."""
    means = list(zip(mean, cfg.MODEL.PIXEL_MEAN, std, strict=True))
    stds = list(zip(std, cfg.MODEL.PIXEL_STD, strict=True))
    wrong = {
        MEAN: any(abs(a - b) > _MAX_SHIFT * scale for a, b, scale in means),
        STD: any(not a <= _MAX_FACTOR * b or not b <= _MAX_FACTOR * a for a, b in stds),
    }
    return [key for key, is_wrong in wrong.items() if is_wrong]
