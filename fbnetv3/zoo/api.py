"""The zoo's front door: which models there are, models with weights, and their preprocessing."""

from __future__ import annotations

import fnmatch
from typing import Any

from torch import nn

from fbnetv3 import imagenet, modeling
from fbnetv3.arch import Arch, get_arch, list_archs
from fbnetv3.arch.library_names import is_library_name
from fbnetv3.arch.scaling import ALIGNED
from fbnetv3.data.transforms import EvalTransform, default_resize
from fbnetv3.weights.detector_records import detector_records, is_detector_name
from fbnetv3.weights.download import ZOO_SCHEME
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.load import load_weights
from fbnetv3.weights.records import all_records, find_record
from fbnetv3.zoo.detectors import get_detector


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


def build_model(
    name_or_arch: str | Arch,
    num_classes: int | None = None,
    pretrained: bool = False,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Builds a model of the zoo in training mode, with its weights if asked.

    Args:
        name_or_arch: An architecture, the name of one (``fbnetv3_a``), a network of another
            library (``torchvision/NAME``, ``timm/NAME``), or ``NAME.TAG`` for the form that
            these weights belong to (timm's belong to the aligned one). Without a tag,
            ``pretrained`` takes the first listed weights of that architecture. A detector's
            name, such as ``retinanet_fbnetv3_a0.bccd``, gives a
            :class:`fbnetv3.detection.detector.Detector`.
        num_classes: Number of logits, at least 1. None keeps the classifier of the weights, or
            the architecture's own number without weights. A number other than the weights'
            gives a newly initialised classifier.
        pretrained: Whether to load weights of the zoo; they are downloaded on first use.
        drop_rate: Dropout rate before the classifier, in [0, 1).
        drop_path_rate: Stochastic depth of the last block, linear over depth, in [0, 1).

    Returns:
        A classifier in channels_last memory format, or a detector with its preprocessing.

    Raises:
        ArchError: An unknown name, or an argument outside of its range.
        RecordError: The zoo has no weights of that name.
        DownloadError: The weights cannot be downloaded, or their file is damaged.
    """
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    if isinstance(name_or_arch, str) and is_detector_name(name_or_arch):
        return get_detector(name_or_arch, pretrained)
    if isinstance(name_or_arch, str) and is_library_name(name_or_arch):
        if pretrained:
            raise RecordError(
                f"{name_or_arch}: pretrained=True: the zoo has no weights for networks of other "
                "libraries; build it with pretrained=False"
            )
        return modeling.build_model(name_or_arch, num_classes, **rates)
    is_tagged = isinstance(name_or_arch, str) and "." in name_or_arch
    if not pretrained and not is_tagged:
        return modeling.build_model(name_or_arch, num_classes, **rates)
    # the same weights serve both paddings
    name = name_or_arch if isinstance(name_or_arch, str) else name_or_arch.name
    record = find_record(name.removesuffix(ALIGNED))
    arch = record.arch() if isinstance(name_or_arch, str) else name_or_arch
    model = modeling.build_model(arch, num_classes, **rates)
    if pretrained:
        load_weights(model, f"{ZOO_SCHEME}{record.full_name}", allow_new_head=True)
    return model


def get(
    name: str, pretrained: bool = False, num_classes: int | None = None, **kwargs: Any
) -> nn.Module:
    """Builds a model of the zoo; see :func:`build_model`, which it calls.

    Args:
        name: Name of an architecture or a detector, or ``NAME.TAG`` of weights.
        pretrained: Whether to load weights of the zoo.
        num_classes: Number of logits; None keeps the classifier of the weights.
        kwargs: ``drop_rate`` and ``drop_path_rate`` of :func:`build_model`.
    """
    return build_model(name, num_classes, pretrained, **kwargs)


def transform(name: str) -> EvalTransform:
    """Returns the evaluation preprocessing of a model: resize, centre crop, normalise.

    Args:
        name: ``NAME[.TAG]``. Where there are such weights, their record's values; else the
            architecture's resolution, ``default_resize``, bilinear, ImageNet's mean and std.
    """
    if "." not in name and not any(r.name == name and r.fits_name for r in all_records()):
        resolution = get_arch(name).resolution
        resize = default_resize(resolution)
        return EvalTransform(resolution, resize, "bilinear", imagenet.MEAN, imagenet.STD)
    record = find_record(name)
    return EvalTransform(
        record.resolution, record.resize, record.interpolation, record.mean, record.std
    )
