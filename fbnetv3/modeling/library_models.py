"""Classifiers of other libraries and registered ones, for ``build_model("LIBRARY/NAME")``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import nn

from fbnetv3.arch import ArchError
from fbnetv3.arch.library_names import LOW_RESOLUTION_KEY, REGISTERED, parse_library_name
from fbnetv3.arch.table import SCALARS
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.modeling import registered_models, timm_models, torchvision_models

_SIDE = 64  # side in pixels of the test image of _keep_resolution

Build = Callable[[str, int, float, float, dict[str, Any]], nn.Module]
_LIBRARIES: dict[str, Build] = {
    REGISTERED: registered_models.build,
    "torchvision": torchvision_models.build,
    "timm": timm_models.build,
}


def build(text: str, num_classes: int, drop_rate: float, drop_path_rate: float) -> nn.Module:
    """Returns a classifier of another library or a registered one, in channels_last format.

    Args:
        text: Name of the network, ``LIBRARY/NAME?KEY=VALUE&...`` (see ``arch/library_names.py``).
        num_classes: Number of logits; for timm's networks also 0, for pooled features.
        drop_rate: Dropout rate in [0, 1); must be 0 if the network has no dropout.
        drop_path_rate: Rate of stochastic depth in [0, 1); must be 0 if the network has none.

    Raises:
        ArchError: The network is unknown, cannot be built or does not accept an argument, or a
            value is not allowed.
    """
    parsed = parse_library_name(text)
    num_classes = SCALARS["num_classes"].clean("num_classes", num_classes)
    for key, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
        if not 0 <= rate < 1:
            _refuse("not allowed", key, rate, "a number in [0, 1)")
    if num_classes == 0 and parsed.library != "timm":
        _refuse(
            f"{text}: only timm's networks and FBNets can be without a classifier",
            "num_classes",
            0,
            "1 or more",
        )
    make = _LIBRARIES[parsed.library]
    try:
        model = make(parsed.name, num_classes, drop_rate, drop_path_rate, parsed.arguments)
    except (FBNetError, MemoryError):
        raise
    except Exception as error:  # builders raise errors of any kind about their arguments
        library = parsed.library or "its registered function"
        problem = f"{library} cannot build this network ({first_line(error)})"
        _refuse(problem, "name", text, "other arguments in the name, or none")
    if parsed.low_resolution:
        _keep_resolution(model, text)
    return model.to(memory_format=torch.channels_last)


def reset_classifier(model: nn.Module, num_classes: int) -> nn.Module:
    """Replaces the last linear layer or convolution of a model, in place.

    A convolution (SqueezeNet) is replaced by a 1x1 convolution. With 0 classes, the classifier is
    removed; only timm's networks allow this.

    Raises:
        ArchError: The number of classes is negative or no whole number, or it is 0 although the
            network cannot do without a classifier.
    """
    num_classes = SCALARS["num_classes"].clean("num_classes", num_classes)
    if num_classes == 0:
        _remove_classifier(model)
        return model
    named = dict(model.named_modules())
    kinds = (nn.Linear, nn.Conv2d)
    path, old = [(n, m) for n, m in named.items() if isinstance(m, kinds)][-1]
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes)
    else:
        new = nn.Conv2d(old.in_channels, num_classes, 1)
    parent, _, leaf = path.rpartition(".")
    setattr(named[parent], leaf, new.to(old.weight))
    return model


def _remove_classifier(model: nn.Module) -> None:
    """Removes the classifier of a network of timm, which then returns the pooled features."""
    reset = getattr(model, "reset_classifier", None)
    if not callable(reset):
        name = type(model).__name__
        _refuse(f"the classifier of {name} cannot be removed", "num_classes", 0, "1 or more")
    reset(0)


def _refuse(problem: str, key: str, value: object, allowed: str) -> NoReturn:
    raise ArchError(problem, key=key, value=value, allowed=allowed)


def _keep_resolution(model: nn.Module, text: str) -> None:
    """Removes the second downsampling of a network, like ``arch.low_resolution``.

    Among the modules of stride 2, those whose input has the second largest side get stride 1: a
    single module, or the branches of one block. This side is usually half that of the image.

    Raises:
        ArchError: The inputs of the modules of stride 2 have fewer than two different sides, or the
            network cannot process images of ``_SIDE`` pixels.
    """
    seen: list[tuple[int, Any]] = []
    strided = [m for m in model.modules() if getattr(m, "stride", None) in (2, (2, 2))]
    hooks = [
        m.register_forward_pre_hook(lambda m, args: seen.append((args[0].shape[-1], m)))
        for m in strided
    ]
    mode = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, _SIDE, _SIDE))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        problem = f"{text}: the network cannot process images of {_SIDE} pixels ({reason})"
        _refuse(problem, LOW_RESOLUTION_KEY, True, "False")
    finally:
        model.train(mode)
        for hook in hooks:
            hook.remove()
    sides = sorted({side for side, _ in seen}, reverse=True)
    if len(sides) < 2:
        problem = f"{text}: the network does not halve the image twice, as this variant needs"
        _refuse(problem, LOW_RESOLUTION_KEY, True, "False")
    for side, module in seen:
        if side == sides[1]:
            module.stride = 1 if module.stride == 2 else (1, 1)
