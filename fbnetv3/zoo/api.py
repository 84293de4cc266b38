"""The models of the zoo by name: listing and building them."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn
from typing_extensions import Unpack  # in typing from Python 3.11 on

from fbnetv3 import modeling
from fbnetv3.arch import Arch, list_archs
from fbnetv3.arch.library_names import is_library_name
from fbnetv3.arch.scaling import ALIGNED
from fbnetv3.modeling.classifier import as_arch, refuse_for_libraries
from fbnetv3.weights.detector_records import detector_records, is_detector_name
from fbnetv3.weights.download import ZOO_SCHEME
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.hub import fetch_from_hub, is_hub_address
from fbnetv3.weights.load import Weights, load_weights, read_weights
from fbnetv3.weights.metadata import check_metadata
from fbnetv3.weights.networks import arch_of, num_classes_of
from fbnetv3.weights.records import WeightRecord, all_records, find_record, is_weights_name
from fbnetv3.zoo.detectors import detector_of, get_detector
from fbnetv3.zoo.fbnet_arguments import FBNetArguments, FBNetKeywords


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Lists models by name.

    Args:
        pattern: Shell-style pattern, such as ``"fbnetv3*"``. It is matched against ``NAME`` and,
            if weights are listed, also against ``NAME.TAG``.
        pretrained: Whether to list weights instead, as ``NAME.TAG``.
    """
    if not pretrained:
        return list(list_archs(pattern))
    classifiers = [
        record.full_name
        for record in all_records()
        if any(fnmatch.fnmatchcase(name, pattern) for name in (record.name, record.full_name))
    ]
    detectors = [
        record.name
        for record in detector_records()
        if any(
            fnmatch.fnmatchcase(n, pattern) for n in (record.name.partition(".")[0], record.name)
        )
    ]
    return sorted([*classifiers, *detectors])


def build_model(
    name_or_arch: str | Arch | Mapping[str, Any],
    num_classes: int | None = None,
    pretrained: bool = False,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    **fbnet: Unpack[FBNetKeywords],
) -> nn.Module:
    """Builds a model of the zoo, with its weights if ``pretrained``.

    Args:
        name_or_arch: One of the following. Names may begin with ``zoo://``.

            - an architecture, its table as a dict, its name (``fbnetv3_a``) or its yaml file; with
              ``pretrained``, its first weights in the zoo are loaded
            - the name of weights (``NAME.TAG``): the architecture is the variant that they fit
            - the name of another library's network (``timm/NAME``) or of a detector (``NAME.TAG``)
            - ``hf://OWNER/NAME[@REVISION]``, a classifier or detector of this project in a
              repository of Hugging Face's hub
        num_classes: Number of logits; 0: the output is the pooled features; None: as in the weights
            or the architecture.
        pretrained: Whether to load weights, downloaded on first use. If the weights have another
            number of classes, the classifier is newly initialised, with a warning.
        drop_rate: Dropout rate before the classifier, in [0, 1).
        drop_path_rate: Stochastic-depth rate of the last block, in [0, 1); the rates rise from 0.
        fbnet: Fields of :class:`~fbnetv3.zoo.fbnet_arguments.FBNetArguments`, for FBNets only.

    Returns:
        A classifier in training mode and channels_last format; with ``features_only``, the network
        of its feature maps; or a detector.

    Raises:
        ArchError: The name is unknown or an argument is outside of its range.
        RecordError: The zoo has no such weights, or a detector was given other arguments.
        DownloadError: The weights cannot be downloaded, or their file is damaged.
        WeightsFileError: The file of a repository of the hub is damaged or lacks its architecture.
        MissingPackageError: A detector needs detectron2, or ``hf://`` needs huggingface_hub.
    """
    name, options = _plain_name(name_or_arch), FBNetArguments(**fbnet)
    return _build_any(name, num_classes, pretrained, (drop_rate, drop_path_rate), options)


def _build_any(
    name: str | Arch,
    num_classes: int | None,
    pretrained: bool,
    rates: tuple[float, float],
    options: FBNetArguments,
) -> nn.Module:
    """Builds a classifier or detector of the zoo or the hub, as :func:`build_model` does."""
    weights = read_weights(name) if isinstance(name, str) and is_hub_address(name) else None
    if isinstance(name, str) and (weights.is_detector if weights else is_detector_name(name)):
        if num_classes is not None or any(rates) or options.given():
            raise _detector_arguments(name)
        file = fetch_from_hub(name) if weights else None
        return detector_of(file, pretrained) if file else get_detector(name, pretrained)
    if weights is not None:
        return _build_from_hub(weights, num_classes, pretrained, rates, options)
    return _build(name, num_classes, pretrained, rates, options)


def _build_from_hub(
    weights: Weights,
    num_classes: int | None,
    pretrained: bool,
    rates: tuple[float, float],
    options: FBNetArguments,
) -> nn.Module:
    """Builds a classifier of the hub; the other arguments are those of :func:`build_model`."""
    check_metadata(weights.metadata, weights.source)
    arch = arch_of(weights.metadata, None, weights.source)
    if isinstance(arch, str):
        refuse_for_libraries(arch, options.given())
    arch, count = options.variant(arch), num_classes_of(weights.tensors, weights.metadata)
    if not pretrained:
        classes = count if num_classes is None else num_classes
        model = modeling.build_model(arch, classes, *rates, **options.of_fresh_networks())
    else:
        model = modeling.build_model(arch, num_classes or count, *rates)
        _load(model, weights.source, count)
        if not isinstance(arch, str):
            options.change(model, num_classes)
    return options.output(model)


def _build(
    name: str | Arch,
    num_classes: int | None,
    pretrained: bool,
    rates: tuple[float, float],
    options: FBNetArguments,
) -> nn.Module:
    """Builds a classifier or its feature maps; the arguments are those of :func:`build_model`."""
    if isinstance(name, str) and is_library_name(name):
        refuse_for_libraries(name, options.given())
    record = _record_of(name) if pretrained or _has_tag(name) else None
    arch = options.variant(record.arch() if record and isinstance(name, str) else name)
    if record is None or not pretrained:
        model = modeling.build_model(arch, num_classes, *rates, **options.of_fresh_networks())
    else:  # the weights have a classifier and take RGB images; options.change adapts both
        model = modeling.build_model(arch, num_classes or None, *rates)
        _load(model, f"{ZOO_SCHEME}{record.full_name}", record.num_classes)
        options.change(model, num_classes)
    return options.output(model)


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


def _load(model: nn.Module, uri: str, num_classes: int) -> None:
    summary = load_weights(model, uri, allow_new_head=True)
    if summary.skipped:
        warnings.warn(
            f"{uri.removeprefix(ZOO_SCHEME)} has weights for {num_classes} classes, but the model "
            "has a different number; its classifier is newly initialised and must be trained",
            stacklevel=5,  # of the caller of build_model
        )


def _detector_arguments(name: str) -> RecordError:
    return RecordError(
        f"{name}: the classes, rates and layers of a detector of the zoo are fixed; leave out all "
        "arguments but pretrained, or train a detector that starts from these weights (config key "
        "MODEL.WEIGHTS)"
    )


def get(
    name: str, pretrained: bool = False, num_classes: int | None = None, **kwargs: Any
) -> nn.Module:
    """Builds a model of the zoo by name; the second argument is ``pretrained``.

    ``detectron2.model_zoo.get`` has the same order of arguments. The second argument of
    :func:`build_model`, which this function calls, is the number of classes.

    Args:
        name: Name of an architecture or a detector, or ``NAME.TAG`` of weights.
        pretrained: Whether to load weights of the zoo.
        num_classes: Number of logits; None: as in :func:`build_model`.
        kwargs: Other arguments of :func:`build_model`.
    """
    return build_model(name, num_classes, pretrained, **kwargs)
