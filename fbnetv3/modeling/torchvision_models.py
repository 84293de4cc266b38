"""torchvision's classifiers, for ``build_model("torchvision/NAME")``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn

from fbnetv3.arch import ArchError
from fbnetv3.errors import did_you_mean

# build_model's argument -> the argument of torchvision's builders
_RATES = {"drop_rate": "dropout", "drop_path_rate": "stochastic_depth_prob"}
# Networks whose builders set the rate of stochastic depth themselves.
_FIXED_DROP_PATH = ("swin", "maxvit")
_SET_BY_BUILDER = re.compile(r"multiple values for (?:keyword )?argument '(\w+)'")
# Without aux_logits=False, forward would also return the logits of auxiliary classifiers. Without
# init_weights=True, torchvision would warn that its default initialisation will change.
_EXTRA = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}


def build(
    name: str,
    num_classes: int,
    drop_rate: float,
    drop_path_rate: float,
    arguments: dict[str, Any],
) -> nn.Module:
    """Returns a torchvision classifier with freshly initialised weights.

    Args:
        name: Name of the network in torchvision.
        num_classes: Number of logits.
        drop_rate: Dropout rate in [0, 1).
        drop_path_rate: Rate of stochastic depth in [0, 1).
        arguments: Arguments of torchvision's builder other than those above.

    Raises:
        ArchError: The name is unknown, an argument cannot be set in a name, or the network does not
            accept an argument or rate.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        problem = f"unknown torchvision model{did_you_mean(name, known)}"
        allowed = "a name in torchvision.models.list_models(module=torchvision.models)"
        raise ArchError(problem, key="name", value=name, allowed=allowed)
    takes = _parameters(name)
    for key in set(arguments) - takes | set(arguments) & {"num_classes", *_RATES.values()}:
        raise _refusal(name, key, arguments[key], takes)
    rates = _rates(name, takes, {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate})
    given = _EXTRA.get(name, {}) | rates | arguments
    try:
        return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **given)
    except TypeError as error:
        match = _SET_BY_BUILDER.search(str(error))
        if match is None or match[1] not in arguments:
            raise
        raise _refusal(name, match[1], arguments[match[1]], takes) from error


def _refusal(name: str, key: str, value: object, takes: set[str]) -> ArchError:
    """Returns the error about an argument that the name of a network cannot set."""
    names = sorted(takes - {"num_classes", *_RATES.values(), key})
    return ArchError(
        f"torchvision/{name}: this argument cannot be set in the name of a network"
        f"{did_you_mean(key, names)}",
        key=key,
        value=value,
        allowed=", ".join(names),
    )


def _rates(name: str, takes: set[str], given: Mapping[str, float]) -> dict[str, float]:
    """Returns torchvision's arguments for those rates that the network accepts.

    Raises:
        ArchError: The network does not accept a rate that is above 0.
    """
    rates = {}
    for key, rate in given.items():
        if _RATES[key] in takes:
            rates[_RATES[key]] = rate
        elif rate:
            problem = f"torchvision/{name} has no such rate"
            raise ArchError(problem, key=key, value=rate, allowed="0")
    return rates


def _parameters(name: str) -> set[str]:
    """Returns the arguments of the network's class, without a rate that its builder sets itself."""
    builder = torchvision.models.get_model_builder(name)
    module = sys.modules[inspect.unwrap(builder).__module__]
    networks = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, nn.Module) and cls.__module__ == module.__name__
    ]
    parameters = [set(inspect.signature(cls).parameters) for cls in networks]
    fixed = {"stochastic_depth_prob"} if name.startswith(_FIXED_DROP_PATH) else set()
    return set().union(*(names for names in parameters if "num_classes" in names)) - fixed
