"""timm's classifiers, for ``build_model("timm/NAME")``; they need the extra ``timm``."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from fbnetv3.arch import ArchError
from fbnetv3.errors import did_you_mean
from fbnetv3.modeling.keywords import constructor_keywords
from fbnetv3.requires import MissingPackageError, require

# Arguments of timm.create_model that a name such as timm/resnet18?drop_rate=0.1 must not set
# (arch/library_names.py): those that build_model sets itself, those that read files or download,
# those for export, and the device and type of the weights.
_RESERVED = (
    "num_classes",
    "drop_rate",
    "drop_path_rate",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "pretrained_filter_fn",
    "checkpoint_path",
    "cache_dir",
    "scriptable",
    "exportable",
    "no_jit",
    "device",
    "dtype",
)
_REJECTED_ARGUMENT = re.compile(r"(?:unexpected|multiple values for) keyword argument '(\w+)'")


def build(
    name: str,
    num_classes: int,
    drop_rate: float,
    drop_path_rate: float,
    arguments: dict[str, Any],
) -> nn.Module:
    """Returns a timm classifier with freshly initialised weights.

    Args:
        name: Name of the network in timm.
        num_classes: Number of logits.
        drop_rate: Dropout rate in [0, 1); 0: timm's default for the network.
        drop_path_rate: Rate of stochastic depth in [0, 1); 0: timm's default for the network.
        arguments: Keyword arguments of timm.create_model, from the part of the name after ``?``.

    Raises:
        ArchError: timm is not installed, the name is unknown, an argument cannot be set in a name,
            or the network does not accept an argument or rate.
        BrokenPackageError: timm is installed, but importing it fails.
    """
    timm = _timm(name)
    _check(name, timm.list_models(), arguments)
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    given = arguments | {key: rate for key, rate in rates.items() if rate}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, **given
        )
    except TypeError as error:
        match = _REJECTED_ARGUMENT.search(str(error))
        if match is None or match[1] not in given:
            raise
        key = match[1]
        problem = f"timm/{name} has no such {'rate' if key in rates else 'argument'}"
        allowed = "0" if key in rates else ", ".join(_allowed(timm, name, exclude=key))
        problem += "" if key in rates else did_you_mean(key, _allowed(timm, name, exclude=key))
        raise ArchError(problem, key=key, value=given[key], allowed=allowed) from error
    return model


def _check(name: str, known: list[str], arguments: dict[str, Any]) -> None:
    """Checks that timm knows the network, and that its name sets no reserved argument."""
    if name not in known:
        problem = f"unknown timm model{did_you_mean(name, known)}"
        raise ArchError(problem, key="name", value=name, allowed="a name in timm.list_models()")
    for key in arguments:
        if key in _RESERVED:
            raise ArchError(
                f"timm/{name}: this argument cannot be set in the name of a network",
                key=key,
                value=arguments[key],
                allowed="keyword arguments of the model's class in timm, except "
                f"{', '.join(_RESERVED)}",
            )


def _allowed(timm: Any, name: str, exclude: str) -> list[str]:
    """Returns the keyword arguments of a network's class that the network's name may set.

    Args:
        timm: The package.
        name: Name of the network in timm.
        exclude: Argument that timm rejected. It is left out even if the class has it, since timm
            then sets it itself.
    """
    with torch.device("meta"):
        network = timm.create_model(name)
    keywords = constructor_keywords(type(network))
    return sorted(set(keywords) - {*_RESERVED, exclude})


def _timm(name: str) -> Any:
    try:
        return require("timm", "timm")
    except MissingPackageError as error:
        raise ArchError(
            "timm is not installed; install it: pip install 'fbnetv3[timm]'",
            key="name",
            value=f"timm/{name}",
        ) from error
