"""The zoo's front door: which models there are, models with weights, and their preprocessing."""

from __future__ import annotations

import fnmatch
import math
import os
from typing import TYPE_CHECKING, Any

from torch import nn

from fbnetv3.arch import get_arch, list_archs
from fbnetv3.zoo.converters import LoadSummary, load_state_dict
from fbnetv3.zoo.detectors import detector_records, get_detector, is_detector_name
from fbnetv3.zoo.download import ZOO_SCHEME, fetch
from fbnetv3.zoo.files import read_tensors
from fbnetv3.zoo.records import IMAGENET_MEAN, IMAGENET_STD, all_records, find_record

if TYPE_CHECKING:
    from fbnetv3.data.transforms import EvalTransform


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Lists models by name.

    Args:
        pattern: shell-style, e.g. ``"fbnetv3*"``; matched against the name, with and without tag.
        pretrained: list weights instead, as ``NAME.TAG``.
    """
    if not pretrained:
        return list(list_archs(pattern))
    found = [
        record.full_name
        for record in all_records()
        if any(fnmatch.fnmatchcase(name, pattern) for name in (record.name, record.full_name))
    ]
    detectors = [record.name for record in detector_records()]
    return sorted([*found, *fnmatch.filter(detectors, pattern)])


def get(
    name: str, pretrained: bool = False, num_classes: int | None = None, **kwargs: Any
) -> nn.Module:
    """Builds a model of the zoo, with its weights if asked.

    Args:
        name: of an architecture, or ``NAME.TAG`` for the form that these weights belong to
            (timm's are of the aligned one). Without a tag, the first listed weights that fit
            NAME's table. A detector's, as ``retinanet_fbnetv3_a0.bccd``, gives a
            :class:`fbnetv3.detection.detector.Detector`, which says what goes in and comes out.
        pretrained: load the weights, downloading them on first use.
        num_classes: of the classifier; None is as many as the weights have, else as the
            published (1000). Another number than the weights' gives a new classifier.
        kwargs: passed to ``build_model``: ``drop_rate``, ``drop_path_rate``.

    Raises:
        RecordError: no such weights.
        DownloadError: the weights can't be had.
    """
    from fbnetv3.modeling import build_model

    if is_detector_name(name):
        return get_detector(name, pretrained)
    if not pretrained and "." not in name:
        return build_model(name, num_classes=num_classes or 1000, **kwargs)
    record = find_record(name)
    model = build_model(record.arch(), num_classes=num_classes or record.num_classes, **kwargs)
    if pretrained:
        load_weights(
            model, f"{ZOO_SCHEME}{record.full_name}", allow_new_head=num_classes is not None
        )
    return model


def load_weights(
    model: nn.Module, uri: str | os.PathLike[str], *, allow_new_head: bool = False
) -> LoadSummary:
    """Loads weights from the zoo or from a file into a model, strictly.

    Args:
        model: to load into.
        uri: ``zoo://NAME[.TAG]``, or the path of a .safetensors, .pth or checkpoint file (of a
            checkpoint that has EMA weights, these).
        allow_new_head: leave the classifier as it is where it has another number of classes.

    Returns:
        What was loaded, derived and skipped; its ``str`` is one line.

    Raises:
        ZooError: the weights can't be had, read, or do not fit.
    """
    uri = os.fspath(uri)
    path = uri
    if uri.startswith(ZOO_SCHEME):
        path = str(fetch(find_record(uri.removeprefix(ZOO_SCHEME))))
    tensors, _ = read_tensors(path)
    return load_state_dict(model, tensors, allow_new_head=allow_new_head, source=uri)


def default_resize(resolution: int) -> int:
    """Returns the shorter side before the crop where no record states one.

    The published zoo's rule: 256 for a crop of 224, in proportion, up to a multiple of 8.
    """
    return math.ceil(resolution * 256 / 224 / 8) * 8


def transform(name: str) -> EvalTransform:
    """Returns the evaluation preprocessing of a model: resize, centre crop, normalise.

    Args:
        name: ``NAME[.TAG]``. Where there are such weights, their record's values; else the
            architecture's resolution, ``default_resize``, bilinear, ImageNet's mean and std.
    """
    from fbnetv3.data.transforms import EvalTransform

    if "." not in name and not any(r.name == name and r.fits_name for r in all_records()):
        resolution = get_arch(name).resolution
        resize = default_resize(resolution)
        return EvalTransform(resolution, resize, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    record = find_record(name)
    return EvalTransform(
        record.resolution, record.resize, record.interpolation, record.mean, record.std
    )
