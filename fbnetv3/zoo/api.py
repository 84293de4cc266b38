"""The models of the zoo by name: listing them, building them, and their preprocessing."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from fbnetv3 import imagenet, modeling
from fbnetv3.arch import Arch, get_arch, list_archs
from fbnetv3.arch.library_names import DEFAULT_RESOLUTION, is_library_name
from fbnetv3.arch.scaling import ALIGNED
from fbnetv3.data.transforms import EvalTransform, default_resize
from fbnetv3.modeling.classifier import as_arch
from fbnetv3.weights.detector_records import detector_records, is_detector_name
from fbnetv3.weights.download import ZOO_SCHEME
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.load import load_weights
from fbnetv3.weights.records import WeightRecord, all_records, find_record, is_weights_name
from fbnetv3.zoo.detectors import get_detector


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Lists models by name.

    Args:
        pattern: Shell-style pattern, such as ``"fbnetv3*"``. It is matched against ``NAME`` and
            ``NAME.TAG``.
        pretrained: Whether to list weights instead, as ``NAME.TAG``.
    """
    if not pretrained:
        return list(list_archs(pattern))
    classifiers = [
        record.full_name
        for record in all_records()
        if any(fnmatch.fnmatchcase(name, pattern) for name in (record.name, record.full_name))
    ]
    detectors = [record.name for record in detector_records()]
    return sorted([*classifiers, *fnmatch.filter(detectors, pattern)])


def build_model(
    name_or_arch: str | Arch | Mapping[str, Any],
    num_classes: int | None = None,
    pretrained: bool = False,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Builds a model of the zoo, with its weights if ``pretrained``.

    Args:
        name_or_arch: One of the following. Names may begin with ``zoo://``.

            - an architecture, its table as a dict, its name (``fbnetv3_a``) or its yaml file; with
              ``pretrained``, its first weights in the zoo are loaded
            - the name of weights (``NAME.TAG``): the architecture is the variant they belong to
            - the name of another library's network (``timm/NAME``) or of a detector (``NAME.TAG``)
        num_classes: Number of logits, at least 1; None: as in the weights or the architecture.
        pretrained: Whether to load weights, which are downloaded on first use. If their number of
            classes differs, the classifier is newly initialised, with a warning.
        drop_rate: Dropout rate before the classifier, in [0, 1).
        drop_path_rate: Stochastic-depth rate of the last block, in [0, 1); the rates rise from 0.

    Returns:
        A classifier in training mode and channels_last memory format, or a detector.

    Raises:
        ArchError: The name is unknown or an argument is outside of its range.
        RecordError: The zoo has no such weights, or a detector was given classes or rates.
        DownloadError: The weights cannot be downloaded, or their file is damaged.
    """
    name_or_arch = _plain_name(name_or_arch)
    if isinstance(name_or_arch, str) and is_detector_name(name_or_arch):
        _check_detector_arguments(name_or_arch, num_classes, drop_rate, drop_path_rate)
        return get_detector(name_or_arch, pretrained)
    record = _record_of(name_or_arch) if pretrained or _has_tag(name_or_arch) else None
    arch = record.arch() if record and isinstance(name_or_arch, str) else name_or_arch
    model = modeling.build_model(arch, num_classes, drop_rate, drop_path_rate)
    if record and pretrained:
        _load(model, record)
    return model


def _plain_name(name_or_arch: str | Arch | Mapping[str, Any]) -> str | Arch:
    if isinstance(name_or_arch, str):
        return name_or_arch.removeprefix(ZOO_SCHEME)
    return as_arch(name_or_arch)


def _has_tag(name_or_arch: str | Arch) -> bool:
    return isinstance(name_or_arch, str) and is_weights_name(name_or_arch)


def _record_of(name_or_arch: str | Arch) -> WeightRecord:
    name = name_or_arch if isinstance(name_or_arch, str) else name_or_arch.name
    if is_library_name(name):
        raise RecordError(
            f"{name}: the zoo has no weights for networks of other libraries; build it with "
            "pretrained=False"
        )
    # The aligned variant (arch/scaling.py) differs only in its paddings; its weights are the same.
    return find_record(name.removesuffix(ALIGNED))


def _load(model: nn.Module, record: WeightRecord) -> None:
    summary = load_weights(model, f"{ZOO_SCHEME}{record.full_name}", allow_new_head=True)
    if summary.skipped:
        warnings.warn(
            f"{record.full_name} has weights for {record.num_classes} classes, but the model has a "
            "different number; its classifier is newly initialised and must be trained",
            stacklevel=3,
        )


def _check_detector_arguments(
    name: str, num_classes: int | None, drop_rate: float, drop_path_rate: float
) -> None:
    if num_classes is not None or drop_rate or drop_path_rate:
        raise RecordError(
            f"{name}: the classes and rates of a detector of the zoo are fixed; leave out "
            "num_classes, drop_rate and drop_path_rate, or train a detector that starts from these "
            "weights (config key MODEL.WEIGHTS)"
        )


def get(
    name: str, pretrained: bool = False, num_classes: int | None = None, **kwargs: Any
) -> nn.Module:
    """Builds a model of the zoo by name; ``pretrained`` is second, as in detectron2's zoo.

    It calls :func:`build_model`, whose second argument is the number of classes.

    Args:
        name: Name of an architecture or a detector, or ``NAME.TAG`` of weights.
        pretrained: Whether to load weights of the zoo.
        num_classes: Number of logits; None: as in :func:`build_model`.
        kwargs: ``drop_rate`` and ``drop_path_rate`` of :func:`build_model`.
    """
    return build_model(name, num_classes, pretrained, **kwargs)


def transform(name: str) -> EvalTransform:
    """Returns the evaluation preprocessing of a model: resize, centre crop, normalise.

    Args:
        name: ``NAME`` or ``NAME.TAG``. Weights define their preprocessing. For an architecture
            without weights, it is the architecture's resolution, ``default_resize``, bilinear
            interpolation, and ImageNet's mean and standard deviation; for a network of another
            library, the same with a resolution of 224 pixels.

    Raises:
        RecordError: There are no such weights, or the name is that of a detector.
    """
    name = name.removeprefix(ZOO_SCHEME)
    if is_detector_name(name):
        raise RecordError(
            f"{name}: a detector resizes and normalises images itself; give it the images"
        )
    if is_library_name(name):
        resize = default_resize(DEFAULT_RESOLUTION)
        return EvalTransform(DEFAULT_RESOLUTION, resize, "bilinear", imagenet.MEAN, imagenet.STD)
    if not is_weights_name(name) and not any(
        r.name == name and r.fits_architecture for r in all_records()
    ):
        resolution = get_arch(name).resolution
        resize = default_resize(resolution)
        return EvalTransform(resolution, resize, "bilinear", imagenet.MEAN, imagenet.STD)
    record = find_record(name)
    return EvalTransform(
        record.resolution, record.resize, record.interpolation, record.mean, record.std
    )
