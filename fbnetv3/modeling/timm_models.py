"""timm's classifiers, for ``build_model("timm/NAME")``; needs the extra ``timm``."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from fbnetv3.arch import ArchError
from fbnetv3.errors import did_you_mean

# what the builders of timm take and build_model gives, or does not give: no files, no downloads
_OWN = ("num_classes", "drop_rate", "drop_path_rate", "pretrained", "scriptable", "exportable")
_NOT_TAKEN = re.compile(r"(?:unexpected|multiple values for) keyword argument '(\w+)'")


def build(
    name: str,
    num_classes: int,
    drop_rate: float,
    drop_path_rate: float,
    arguments: dict[str, Any],
) -> nn.Module:
    """Makes a timm classifier without weights.

    Raises:
        ArchError: Timm is not installed, the name is unknown, or the network has no such argument
            or rate.
    """
    timm = _timm(name)
    known = timm.list_models()
    if name not in known:
        problem = f"unknown timm model{did_you_mean(name, known)}"
        raise ArchError(problem, key="name", value=name, allowed="what timm.list_models() lists")
    for key in arguments:
        if key in _OWN:
            raise ArchError(
                f"timm/{name} is not given this argument by its name",
                key=key,
                value=arguments[key],
                allowed="another argument",
            )
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    given = arguments | {key: rate for key, rate in rates.items() if rate}
    try:
        model = timm.create_model(name, pretrained=False, num_classes=num_classes, **given)
    except TypeError as error:
        match = _NOT_TAKEN.search(str(error))
        if match is None or match[1] not in given:
            raise
        key = match[1]
        problem = f"timm/{name} has no such {'rate' if key in rates else 'argument'}"
        allowed = "0" if key in rates else "an argument of its class in timm"
        raise ArchError(problem, key=key, value=given[key], allowed=allowed) from error
    found: nn.Module = model
    return found


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ArchError(
            f"timm/{name} needs timm, which is not installed",
            key="name",
            value=f"timm/{name}",
            allowed="timm's networks after: pip install 'fbnetv3[timm]'",
        ) from error
    return timm
